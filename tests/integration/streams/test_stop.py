"""SIGTERM in the middle of a slow batch: the process ends, and the batch comes again."""

import signal

import httpx
import pytest

from contracts.records import ItemEvent, Knowledge, KnowledgeRequest
from contracts.topics import DEAD_LETTERS, ENCODINGS, KNOWLEDGE, REQUESTS
from integration.streams.model_server import HeldModelServer
from streams.demo.draining import behind

pytestmark = pytest.mark.integration

SUBJECTS = [f"item:n{n:02d}" for n in range(40)]


@pytest.fixture
def model_server():
    server = HeldModelServer()
    yield server
    server.close()


def request(subject):
    item = ItemEvent(item=subject.partition(":")[2], published_ms=1_000, title=f"Harbour opens {subject}")
    return KnowledgeRequest(
        subject=subject, mode="individual", reason="new_item", priority=1.0, as_of_ms=1_000, trigger_ms=2_000, source_hash="h",
        item=item,
    )  # fmt: skip


def long_knowledge(subject):
    text = f"{subject} is about the harbour and the rail. " * 40
    return Knowledge(
        subject=subject, factors={"topic": text}, summary=text, tier="individual", backend="openai", scenario="news",
        prompt_version="1", model="m", as_of_ms=1_000,
    )  # fmt: skip


def n_read(process):
    lines = httpx.get(process.url + "/metrics", timeout=5).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("reki_records_in_total"))


def test_extract_stopped_while_the_model_server_is_slow_loses_no_request(make_reki, model_server):
    reki = make_reki(
        extract={"backend": "openai", "base_url": model_server.base_url, "model": "m", "concurrency": 8, "timeout_s": 60}
    )
    reki.start("extract")
    for subject in SUBJECTS:
        reki.publisher.send(REQUESTS, request(subject))
    reki.publisher.flush()
    reki.until(lambda: model_server.under_way >= 8, "requests under way")
    assert reki.processes["extract"].end(signal.SIGTERM) == 0
    assert reki.typed(KNOWLEDGE) == []
    model_server.let_go.set()
    reki.processes["extract"].start()
    reki.until(lambda: {one.subject for one in reki.typed(KNOWLEDGE)} == set(SUBJECTS), "all answered")
    assert not behind(reki.settings)["extract"][REQUESTS.name]
    assert {one.backend for one in reki.typed(KNOWLEDGE)} == {"openai"}
    assert reki.typed(DEAD_LETTERS) == []


def test_encode_stopped_in_the_middle_of_a_batch_loses_no_vector(make_reki):
    reki = make_reki()
    reki.start("encode")
    reki.until_ready("encode")
    for subject in SUBJECTS:
        reki.publisher.send(KNOWLEDGE, long_knowledge(subject))
    reki.publisher.flush()
    process = reki.processes["encode"]
    reki.until(lambda: n_read(process), "a batch under way")
    assert process.end(signal.SIGTERM) == 0
    process.start()
    reki.until(lambda: {one.subject for one in reki.typed(ENCODINGS)} == set(SUBJECTS), "all encoded")
    assert reki.rows() == set(SUBJECTS)
    assert reki.typed(DEAD_LETTERS) == []
