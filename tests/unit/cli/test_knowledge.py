"""`reki knowledge show` and `import`: what is printed for people and for programs."""

import json
import os
from itertools import starmap

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from contracts.ports import VectorRow
from contracts.records import Knowledge
from contracts.topics import CLUSTER_KNOWLEDGE, IMPORTED
from extractor.scenario import load_scenario
from fakes.publisher import FakePublisher
from hein.documents import versions_before, write_document
from hein.stores.memory import MemoryVectorStore
from streams import publisher, showing
from streams.cli.knowledge_page import age_in_words
from streams.cli.main import cli
from streams.tail import Tailed

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


def known(subject="item:n1", tier="individual", as_of_ms=NOW_MS - 3 * DAY_MS, **fields):
    wanted = {
        "factors": {"topic": "harbours", "tone": "dry"}, "summary": "A harbour opens.", "backend": "batch", "scenario": "news",
        "prompt_version": "news-1/2", "model": "big",
    }  # fmt: skip
    return Knowledge(subject=subject, tier=tier, as_of_ms=as_of_ms, **(wanted | fields))


def attributes(as_of_ms, **fields):
    return known(tier="attributes", as_of_ms=as_of_ms, model="none", prompt_version="news-1/1", **fields)


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(publisher, "wall_ms", lambda: NOW_MS)
    return lambda *arguments: CliRunner().invoke(cli, ["knowledge", *arguments])


@pytest.fixture
def stored(monkeypatch):
    """Puts pieces of knowledge of one subject into the vector store, one after the other."""
    store = MemoryVectorStore(2)
    monkeypatch.setattr(showing, "knowledge_store", lambda _: store)

    def put(*made, document=None):
        text, _ = write_document(made[-1], versions_before(made, None))
        vector = np.ones(2, dtype=np.float32)
        store.upsert([VectorRow(subject=made[-1].subject, vector=vector, tier=made[-1].tier, as_of_ms=made[-1].as_of_ms,
                                document=text if document is None else document)])  # fmt: skip

    return put


@pytest.fixture
def on_topic(monkeypatch):
    """Says what the topic of clusters' knowledge holds: records, or keys that are withdrawn."""

    class FakeTail:
        """Stands in for `streams.tail.Tail`."""

        records = ()

        def __init__(self, settings, topics):
            assert topics == [CLUSTER_KNOWLEDGE]

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def to_end(self):
            yield from starmap(tailed, enumerate(self.records))

    def tailed(offset, record):
        key = record if isinstance(record, str) else record.subject
        made = None if isinstance(record, str) else record
        return Tailed(topic=CLUSTER_KNOWLEDGE, key=key, record=made, partition=0, offset=offset, at_ms=NOW_MS)

    monkeypatch.setattr(showing, "Tail", FakeTail)
    return lambda *records: monkeypatch.setattr(FakeTail, "records", records)


def test_show_prints_every_fact_and_the_versions_newest_first(run, stored):
    first = attributes(NOW_MS - 9 * DAY_MS, summary="Of its section.")
    second = known(as_of_ms=NOW_MS - 5 * DAY_MS, model="small", tokens_in=300, tokens_out=60, summary="An older text.")
    stored(first, second, known(tokens_in=612, tokens_out=90, tokens_cached=512, shared_from="item:n7"))
    answer = run("show", "item:n1")
    assert answer.exit_code == 0, answer.output
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    assert lines == [
        "item:n1",
        "summary A harbour opens.",
        "tier individual",
        "age 3 days old, as of 2023-11-11 22:13 UTC",
        "model big (backend batch)",
        "prompt news-1/2",
        "tokens 612 in (512 cached), 90 out",
        "shared from item:n7",
        "",
        "factor text",
        "topic harbours",
        "tone dry",
        "",
        "before as of model prompt tokens summary",
        "individual 2023-11-09 22:13 UTC small news-1/2 300 in, 60 out An older text.",
        "attributes 2023-11-05 22:13 UTC none news-1/1 - Of its section.",
    ]


def test_show_as_json_has_every_field(run, stored):
    stored(attributes(NOW_MS - 9 * DAY_MS), known("item:n1", "collective", cluster="cluster:item-3"))
    shown = json.loads(run("show", "item:n1", "--json").stdout)
    assert {name: shown[name] for name in ("subject", "tier", "cluster", "model", "tokens_in", "as_of", "age_ms")} == {
        "subject": "item:n1", "tier": "collective", "cluster": "cluster:item-3", "model": "big", "tokens_in": None,
        "as_of": "2023-11-11T22:13:20+00:00", "age_ms": 3 * DAY_MS,
    }  # fmt: skip
    assert shown["factors"] == {"topic": "harbours", "tone": "dry"}
    assert [(version["tier"], version["tokens_in"]) for version in shown["versions"]] == [("attributes", None)]
    assert shown.keys() >= msgspec.structs.asdict(known()).keys()


def test_hostile_text_reaches_no_terminal(run, stored):
    stored(known(factors={"topic": "[red]a[/red]\x1b[2J\u202eb"}, summary="x\x07\x1b]0;title\x07"))
    stdout = run("show", "item:n1").stdout
    assert "[red]a[/red]" in stdout  # no markup either
    assert not set(stdout) & set("\x1b\x07\u202e")


def test_a_subject_without_tokens_cluster_or_versions_has_no_lines_about_them(run, stored):
    stored(attributes(NOW_MS))
    stdout = run("show", "item:n1").stdout
    assert "0 seconds old" in stdout
    assert not [word for word in ("tokens", "cluster", "shared", "before") if word in stdout]


@pytest.mark.parametrize("subject", ["item:n2", "user:n1"])
def test_nothing_known_is_exit_code_1(run, stored, subject):
    stored(known())
    answer = run("show", subject)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert f"nothing is known of {subject} yet" in answer.stderr


def test_no_subject_is_a_wrong_call(run):
    answer = run("show", "n1")
    assert answer.exit_code == 2
    assert "wanted item:ID, user:ID or cluster:ID" in answer.stderr


def test_a_damaged_document_is_one_message(run, stored):
    stored(known(), document="{")
    answer = run("show", "item:n1")
    assert answer.exit_code == 1
    assert "got a document of item:n1 that cannot be read" in answer.stderr


def test_show_reads_a_cluster_off_its_topic(run, on_topic):
    cluster = {"tier": "collective", "cluster": ""}
    on_topic(
        known("cluster:item-3", as_of_ms=1_000, **cluster, summary="First."),
        known("cluster:item-30", as_of_ms=1_000, **cluster),
        known("cluster:item-3", as_of_ms=2_000, **cluster, summary="Second.", model="better"),
        known("cluster:item-3", as_of_ms=1_000, **cluster, summary="First."),  # told again after a crash
    )
    shown = json.loads(run("show", "cluster:item-3", "--json").stdout)
    assert (shown["subject"], shown["summary"], shown["model"]) == ("cluster:item-3", "Second.", "better")
    assert [version["summary"] for version in shown["versions"]] == ["First."]
    assert "Second." in run("show", "cluster:item-3").stdout
    assert run("show", "cluster:item-4").exit_code == 1


def test_a_cluster_that_was_withdrawn_is_not_known(run, on_topic):
    on_topic(known("cluster:item-3", "collective"), "cluster:item-3")
    assert run("show", "cluster:item-3").exit_code == 1


@pytest.mark.parametrize(
    ("age_ms", "words"),
    [
        (0, "0 seconds old"),
        (1_999, "1 second old"),
        (59_999, "59 seconds old"),
        (60_000, "1 minute old"),
        (2 * 3_600_000 - 1, "1 hour old"),
        (364 * DAY_MS, "364 days old"),
        (800 * DAY_MS, "2 years old"),
        (-90_000, "1 minute ahead of the clock"),
    ],
)
def test_an_age_in_words(age_ms, words):
    assert age_in_words(age_ms) == words


# --- import ---


class FakeKafka(FakePublisher):
    """Stands in for the publisher that the command opens and closes."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.fixture
def sent(monkeypatch):
    kafka = FakeKafka()
    monkeypatch.setattr(publisher, "KafkaPublisher", lambda _: kafka)
    return kafka


def answers(n, n_bad):
    factors = dict.fromkeys(load_scenario("news").factors, "harbours")
    content = json.dumps({"factors": factors, "summary": "Short."})
    body = {"model": "m", "choices": [{"message": {"content": content}, "finish_reason": "stop"}]}
    lines = [json.dumps({"custom_id": f"user:u{i}|1|h|p", "response": {"status_code": 200, "body": body}}) for i in range(n)]
    return "\n".join([*lines, *["not json"] * n_bad]) + "\n"


def test_an_import_without_errors_exits_with_0(run, sent, tmp_path):
    (tmp_path / "a.jsonl").write_text(answers(3, 0))
    answer = run("import", "a.jsonl")
    assert (answer.exit_code, answer.stdout) == (0, "imported 3: 3 users\n"), answer.output
    assert len(sent.of(IMPORTED)) == 3


def test_errors_are_shown_counted_and_listed(run, sent, tmp_path):
    (tmp_path / "a.jsonl").write_text(answers(2, 30))
    answer = run("import", "a.jsonl", "--errors", "bad.jsonl")
    assert (answer.exit_code, answer.stdout) == (1, "imported 2: 2 users\n")
    assert answer.stderr.count("line ") == 20 + 1
    assert "not usable 30: 30 not a batch line (bad.jsonl)" in answer.stderr
    assert len((tmp_path / "bad.jsonl").read_text().splitlines()) == 30
    assert len(sent.of(IMPORTED)) == 2


def test_errors_as_json(run, sent, tmp_path):
    (tmp_path / "a.jsonl").write_text(answers(1, 2))
    answer = run("import", "a.jsonl", "--json")
    said = json.loads(answer.stdout)
    assert (said["imported"], said["n_errors"], said["reasons"]) == ({"user": 1}, 2, {"not a batch line": 2})
    assert [error["line"] for error in said["errors"]] == [2, 3]
    assert len(sent.of(IMPORTED)) == 1
