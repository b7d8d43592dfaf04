"""Questions out of a real broker, answers by vLLM's batch runner, and back in: `reki knowledge export`, `run-batch`, `reki knowledge import`."""

from __future__ import annotations

import gc
import json
import subprocess
import time
import warnings
from collections import Counter
from pathlib import Path

import pytest

from contracts.topics import IMPORTED, REQUESTS
from extractor.batch_file import BadAnswer, read_answers
from extractor.scenario import load_scenario
from integration.conftest import services  # noqa: F401 - a fixture
from integration.streams.running import Reki

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1_800)]
ROOT = Path(__file__).parents[2]
NEWS = load_scenario("news")
N_ITEMS, N_USERS = 500, 100
BATCH_WITHIN_S = 1_200


@pytest.fixture(scope="module")
def reki(services, tmp_path_factory):  # noqa: F811 - the fixture above
    started = Reki(services, tmp_path_factory.mktemp("reki"), extract={"scenario": "news", "max_answer_tokens": 600})
    yield started
    started.close()
    with warnings.catch_warnings():  # kafka-python forgets sockets of connections that were refused
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture(scope="module")
def asked(reki, articles, readers):
    """The open questions of 500 items and 100 users, on their topics."""
    reki.send(*articles(N_ITEMS))
    for request in readers(N_USERS):
        reki.publisher.send(REQUESTS, request)
    reki.publisher.flush()


def export(reki, file):
    done = reki.command("knowledge", "export", str(file), "--model", "tiny", "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def bring_in(reki, file):
    done = reki.command("knowledge", "import", str(file), "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def imported(reki):
    """What is on the topic for every subject, the last record of each."""
    return {one.key: one.record for one in reki.records(IMPORTED)}


@pytest.fixture(scope="module")
def answers(reki, asked, tmp_path_factory, figures):
    """The questions' file and vLLM's answers to it."""
    folder = tmp_path_factory.mktemp("batch")
    questions, answered = folder / "questions.jsonl", folder / "answers.jsonl"
    assert export(reki, questions)["lines"] == {"item": N_ITEMS, "user": N_USERS}
    began = time.monotonic()
    with (folder / "batch.log").open("wb") as log:
        done = subprocess.run(
            [ROOT / "scripts" / "vllm-cpu", "batch", "-i", questions, "-o", answered],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, timeout=BATCH_WITHIN_S, check=False,
        )  # fmt: skip
    assert done.returncode == 0, (folder / "batch.log").read_text(errors="replace")[-4_000:]
    lines = [json.loads(line) for line in answered.read_bytes().splitlines()]
    tokens = Counter()
    for line in lines:
        usage = line["response"]["body"]["usage"]
        tokens.update(prompt=usage["prompt_tokens"], answer=usage["completion_tokens"])
    took_s = time.monotonic() - began
    figures.append(
        f"batch runner: {len(lines)} questions in {took_s:.0f} s with its start; {tokens['prompt']:,} prompt tokens, "
        f"{tokens['answer']:,} answer tokens"
    )
    return questions, answered


def test_export_is_the_same_twice(reki, answers, tmp_path):
    questions, _ = answers
    again = tmp_path / "questions.jsonl"
    export(reki, again)
    assert again.read_bytes() == questions.read_bytes()


def test_every_question_has_a_line_and_every_line_is_knowledge_or_a_listed_error(answers, figures):
    questions, answered = answers
    read = list(read_answers(answered, NEWS))
    assert len(read) == N_ITEMS + N_USERS
    asked_ids = {json.loads(line)["custom_id"] for line in questions.read_bytes().splitlines()}
    assert {json.loads(line)["custom_id"] for line in answered.read_bytes().splitlines()} == asked_ids
    bad = [one for one in read if isinstance(one, BadAnswer)]
    figures.append(
        f"batch answers: {len(read) - len(bad)} of {len(read)} usable; others: {sorted({one.reason for one in bad})[:5]}"
    )
    assert len(bad) <= len(read) // 20
    assert list(read_answers(answered, NEWS)) == read


def test_answers_come_back_in_and_twice_is_the_same_as_once(reki, answers):
    _, answered = answers
    read = list(read_answers(answered, NEWS))
    good = {one.subject: one for one in read if not isinstance(one, BadAnswer)}
    code, first = bring_in(reki, answered)
    assert code == (1 if len(good) < len(read) else 0)
    assert sum(first["imported"].values()) == len(good)
    assert len(first["errors"]) == len(read) - len(good)
    once = imported(reki)
    assert once == good
    assert bring_in(reki, answered) == (code, first)
    assert imported(reki) == once


def test_nothing_but_what_could_not_be_used_is_open_after_the_import(reki, answers, tmp_path):
    _, answered = answers
    bad = {one.custom_id for one in read_answers(answered, NEWS) if isinstance(one, BadAnswer)}
    bring_in(reki, answered)
    done = export(reki, tmp_path / "open.jsonl")
    still_open = {json.loads(line)["custom_id"] for line in (tmp_path / "open.jsonl").read_bytes().splitlines()}
    assert still_open == bad
    assert done["left_out"] == {"answer waiting": N_ITEMS + N_USERS - len(bad)}


def test_damaged_lines_are_listed_and_change_nothing(reki, answers, tmp_path):
    _, answered = answers
    before = imported(reki)
    damaged = tmp_path / "damaged.jsonl"
    lines = answered.read_bytes().splitlines(keepends=True)
    cut = json.loads(lines[0])
    cut["response"]["body"]["choices"][0]["finish_reason"] = "length"
    refused = json.loads(lines[1]) | {"response": {"status_code": 429, "body": {"error": "slow down"}}}
    damaged.write_bytes(
        lines[2] + json.dumps(cut).encode() + b"\n" + json.dumps(refused).encode() + b"\n" + lines[3][:100] + b"\n"
    )
    code, done = bring_in(reki, damaged)
    assert code == 1
    assert [error["line"] for error in done["errors"]] == [2, 3, 4]
    assert ["cut off" in done["errors"][0]["reason"], "slow down" in done["errors"][1]["reason"]] == [True, True]
    assert imported(reki) == before
