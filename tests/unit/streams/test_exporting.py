"""Export, answers, import: the round trip, twice with the same result; and an export that is stopped in the middle."""

import json
import os
import sqlite3
from dataclasses import replace

import pytest
from click.testing import CliRunner

from contracts.codec import key_of
from contracts.errors import DatasetError, SettingsError
from contracts.records import HistoryEntry, ItemEvent, Knowledge, KnowledgeRequest, Member
from contracts.settings import Settings
from contracts.topics import CLUSTER_KNOWLEDGE, IMPORTED, ITEMS, KNOWLEDGE, REQUESTS
from extractor.batch_file import BadAnswer, read_answers
from extractor.chat import request_body
from extractor.exporting import OpenQuestions
from extractor.planning import ItemPlanner, content_hash, history_hash
from extractor.prompts import build_prompt, prompt_version
from extractor.subject_state import usable_import
from fakes.batch_server import answer_batch, content_of
from streams import exporting
from streams.cli.main import cli
from streams.exporting import collect, export, topics_of, write
from streams.tail import Tailed

N_ITEMS, N_USERS = 500, 100


def tailed(topic, record, at_ms=9_000):
    key = record if isinstance(record, str) else key_of(topic, record).decode()
    return Tailed(topic=topic, key=key, record=None if isinstance(record, str) else record, partition=0, offset=0, at_ms=at_ms)


def an_item(number):
    return ItemEvent(
        item=f"n|{number}", published_ms=1_000 + number, title=f"Title {number}", text=f"Text \u00fc {number}. " * (number % 7),
        attributes={"section": (f"section {number % 5}",), "internal": ("x",)},
    )  # fmt: skip


def a_user(number):
    history = tuple(
        HistoryEntry(item=f"n|{n}", title=f"Title {n}", action="click", event_ms=2_000 + n, liked=n % 3 != 0)
        for n in range(number, number + 10)
    )
    return KnowledgeRequest(
        subject=f"user:u{number}", mode="individual", reason="new_interactions", priority=1.0, as_of_ms=history[-1].event_ms,
        trigger_ms=9_000, source_hash=history_hash(history), history=history,
    )  # fmt: skip


def a_cluster(side, number):
    members = tuple(Member(subject=f"{side}:n{n}", text=f"Report {n} about {number}.") for n in range(5))
    return KnowledgeRequest(
        subject=f"cluster:{side}-{number}", mode="collective", reason="new_cluster", priority=1.0, as_of_ms=3_000 + number,
        trigger_ms=9_000, source_hash=f"h{number}", members=members, common={"topic": (f"topic {number}",)}, cluster_size=40,
    )  # fmt: skip


def by_attributes(subject, as_of_ms, source_hash):
    return Knowledge(
        subject=subject, factors={}, summary="", tier="attributes", backend="attributes", scenario="news", prompt_version="news-1/1",
        model="none", as_of_ms=as_of_ms, source_hash=source_hash,
    )  # fmt: skip


@pytest.fixture
def topics():
    """What the topics hold: 500 items and 100 users, half of them known by attributes."""
    items, users = [an_item(n) for n in range(N_ITEMS)], [a_user(n) for n in range(N_USERS)]
    made = [by_attributes(f"item:{i.item}", i.published_ms, content_hash(i)) for i in items[::2]]
    made += [by_attributes(u.subject, u.as_of_ms, u.source_hash) for u in users[::2]]
    return [*(tailed(ITEMS, i) for i in items), *(tailed(REQUESTS, u) for u in users), *(tailed(KNOWLEDGE, k) for k in made)]


@pytest.fixture
def exported(news):
    """Writes the open questions of some records to a file; gives the file's bytes and the summary."""

    def run(records, file, kinds=("item", "user"), tier="individual", **options):
        questions = OpenQuestions(news, tier=tier)
        collect(records, questions)
        done = write(questions, file, **({"kinds": kinds, "everything": False, "model": "m", "max_tokens": 400} | options))
        questions.close()
        return file.read_bytes(), done

    return run


def test_round_trip_of_500_items_and_100_users_twice_with_the_same_result(topics, exported, news, tmp_path):
    first, done = exported(topics, tmp_path / "first.jsonl")
    second, _ = exported(topics[::-1], tmp_path / "second.jsonl")
    assert first == second
    assert done.lines == {"item": N_ITEMS, "user": N_USERS}
    assert done.reasons == {"no knowledge": 300, "lower tier": 300}

    imports = []
    for seed in (1, 2):  # the server answers in another order each time
        answers = tmp_path / f"answers{seed}.jsonl"
        answers.write_bytes(answer_batch(first, model="big", seed=seed))
        imports.append({made.subject: made for made in read_answers(answers, news) if isinstance(made, Knowledge)})
    assert imports[0] == imports[1]
    assert imports[0] == {made.subject: made for made in map(expected(news), wanted_requests(topics))}

    planner = ItemPlanner(news)  # what plan asked, extract can answer with these
    for event in (one.record for one in topics if isinstance(one.record, ItemEvent)):
        assert usable_import(planner.plan(event, None, 9_000), imports[0][f"item:{event.item}"])

    waiting = [tailed(IMPORTED, made) for made in imports[0].values()]
    again, left = exported([*topics, *waiting, *waiting], tmp_path / "first.jsonl")
    assert again == b""
    assert left.left_out == {"answer waiting": 600}
    taken = [tailed(KNOWLEDGE, made) for made in imports[0].values()]
    again, left = exported([*topics, *waiting, *taken], tmp_path / "first.jsonl")
    assert again == b""
    assert left.left_out == {"up to date": 600}
    everything, _ = exported([*topics, *waiting, *taken], tmp_path / "first.jsonl", everything=True)
    assert everything == first


def wanted_requests(topics):
    for one in topics:
        if isinstance(one.record, KnowledgeRequest):
            yield one.record
        elif isinstance(one.record, ItemEvent):
            event = one.record
            yield KnowledgeRequest(
                subject=f"item:{event.item}", mode="individual", reason="new_item", priority=0.0, as_of_ms=event.published_ms,
                trigger_ms=one.at_ms, source_hash=content_hash(event), item=event,
            )  # fmt: skip


def expected(news):
    """The knowledge that an answer to a request must become, made without files."""

    def make(request):
        body = request_body(build_prompt(news, request), model="m", max_tokens=400)
        content = content_of(body)
        return Knowledge(
            subject=request.subject, factors=content["factors"], summary=content["summary"], tier="individual", backend="batch",
            scenario="news", prompt_version=prompt_version(news), model="big", as_of_ms=request.as_of_ms,
            source_hash=request.source_hash, tokens_in=sum(len(said["content"].split()) for said in body["messages"]),
            tokens_out=len(json.dumps(content).split()),
        )  # fmt: skip

    return make


def test_after_half_of_an_import_the_other_half_is_open(topics, exported, news, tmp_path):
    questions, _ = exported(topics, tmp_path / "q.jsonl")
    answers = tmp_path / "a.jsonl"
    answers.write_bytes(b"".join(answer_batch(questions).splitlines(keepends=True)[:300]))
    imported = [made for made in read_answers(answers, news) if not isinstance(made, BadAnswer)]
    rest, _ = exported([*topics, *(tailed(IMPORTED, made) for made in imported)], tmp_path / "q.jsonl")
    answered = {made.subject for made in imported}
    lines = questions.splitlines(keepends=True)
    assert rest == b"".join(line for line in lines if json.loads(line)["custom_id"].rsplit("|", 3)[0] not in answered)
    assert len(rest.splitlines()) == 300


CLUSTERS = [a_cluster(side, number) for side in ("item", "user") for number in range(30)]


def test_round_trip_of_clusters_twice_with_the_same_result(topics, exported, news, tmp_path):
    asked = [tailed(REQUESTS, request) for request in CLUSTERS]
    first, done = exported([*topics, *asked], tmp_path / "q.jsonl", tier="collective")
    assert done.lines == {"item": 30, "user": 30}
    assert done.reasons == {"no knowledge": 60}
    answers = tmp_path / "a.jsonl"
    imports = []
    for seed in (1, 2):
        answers.write_bytes(answer_batch(first, model="big", seed=seed))
        imports.append({made.subject: made for made in read_answers(answers, news)})
    assert imports[0] == imports[1]
    assert imports[0].keys() == {request.subject for request in CLUSTERS}
    assert {made.tier for made in imports[0].values()} == {"collective"}
    waiting = [tailed(IMPORTED, made) for made in imports[0].values()]
    again, left = exported([*asked, *waiting], tmp_path / "q.jsonl", tier="collective")
    assert (again, left.left_out) == (b"", {"answer waiting": 60})
    taken = [tailed(CLUSTER_KNOWLEDGE, made) for made in imports[0].values()]
    again, left = exported([*asked, *waiting, *taken], tmp_path / "q.jsonl", tier="collective")
    assert (again, left.left_out) == (b"", {"up to date": 60})
    one_back = [*asked, *taken, tailed(CLUSTER_KNOWLEDGE, "cluster:user-7")]
    assert exported(one_back, tmp_path / "q.jsonl", tier="collective")[1].lines == {"user": 1}
    one_gone = [*asked, tailed(REQUESTS, "cluster:user-7")]
    assert exported(one_gone, tmp_path / "q.jsonl", tier="collective")[1].lines == {"item": 30, "user": 29}


def test_tombstones_take_back_and_records_under_a_wrong_key_are_passed_over(exported, tmp_path):
    event = an_item(1)
    made = by_attributes("item:n|1", 1_001, content_hash(event))
    imported = by_attributes("item:n|1", 1_001, "")
    stray = replace(tailed(ITEMS, an_item(2)), key="other")
    records = [tailed(ITEMS, event), tailed(KNOWLEDGE, made), tailed(IMPORTED, imported), stray]
    records += [tailed(KNOWLEDGE, "item:n|1"), tailed(IMPORTED, "item:n|1")]
    _, done = exported(records, tmp_path / "q.jsonl")
    assert done.reasons == {"no knowledge": 1}
    assert exported([*records, tailed(ITEMS, "n|1")], tmp_path / "q.jsonl")[0] == b""


def test_an_export_that_is_stopped_leaves_the_last_file_as_it_was(topics, news, exported, tmp_path, monkeypatch):
    file = tmp_path / "q.jsonl"
    before, _ = exported(topics[:10], file)

    def stopped(lines, out, **_):
        out.write(b"half a li")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(exporting, "write_requests", stopped)
        with pytest.raises(KeyboardInterrupt):
            exported(topics, file)
    assert file.read_bytes() == before
    assert len(exported(topics, file)[0].splitlines()) == 600
    assert [path.name for path in tmp_path.iterdir()] == ["q.jsonl"]


def test_without_a_model_or_a_folder_nothing_is_read(news, tmp_path):
    with pytest.raises(SettingsError, match="give --model"):
        export(Settings(), news, tmp_path / "q.jsonl", kinds=["item"], model="")
    with pytest.raises(DatasetError, match="folder does not exist"):
        export(Settings(), news, tmp_path / "none" / "q.jsonl", kinds=["item"], model="m")


def test_only_the_topics_of_the_kinds_are_read():
    assert topics_of(["item"]) == [ITEMS, KNOWLEDGE, IMPORTED]
    assert topics_of(["user", "item"]) == [ITEMS, REQUESTS, KNOWLEDGE, IMPORTED]
    assert topics_of(["item"], "collective") == [REQUESTS, CLUSTER_KNOWLEDGE, IMPORTED]


class FakeTail:
    """Stands in for `streams.tail.Tail`."""

    records = ()

    def __init__(self, settings, topics):
        self.topics = topics

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None

    def to_end(self, progress):
        for one in self.records:
            if one.topic in self.topics:
                progress(1)
                yield one


@pytest.fixture
def run(topics, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("REKI_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setattr(FakeTail, "records", topics)
    monkeypatch.setattr(exporting, "Tail", FakeTail)
    return lambda *arguments: CliRunner().invoke(cli, ["knowledge", "export", *arguments])


@pytest.mark.parametrize(
    ("kind", "lines"), [("item", {"item": 500}), ("user", {"user": 100}), ("all", {"item": 500, "user": 100})]
)
def test_the_command_writes_the_file_and_a_summary(run, tmp_path, kind, lines):
    answer = run("q.jsonl", "--kind", kind, "--model", "big", "--json")
    assert answer.exit_code == 0, answer.output
    summary = json.loads(answer.stdout)
    assert summary["lines"] == lines
    assert 0 < summary["of_these_shared"] < summary["estimated_prompt_tokens"]
    written = (tmp_path / "q.jsonl").read_text().splitlines()
    assert len(written) == sum(lines.values())
    assert json.loads(written[0])["body"]["model"] == "big"


def test_the_command_says_it_in_words_too(run):
    stdout = run("q.jsonl", "--model", "big").stdout
    assert "q.jsonl: 600 questions (500 items, 100 users)\nasked: 300 lower tier, 300 no knowledge\n" in stdout


def test_a_full_disk_is_one_message(run, monkeypatch):
    def full(*_):
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(OpenQuestions, "item", full)
    answer = run("q.jsonl", "--model", "big")
    assert answer.exit_code == 1
    assert "set TMPDIR" in answer.stderr


@pytest.mark.parametrize("sides", [("item",), ("user",), ("item", "user")])
def test_the_command_asks_about_clusters(run, tmp_path, monkeypatch, sides):
    monkeypatch.setattr(FakeTail, "records", [*FakeTail.records, *(tailed(REQUESTS, request) for request in CLUSTERS)])
    kind = "all" if len(sides) > 1 else sides[0]
    arguments = ("q.jsonl", "--model", "big", "--tier", "collective", "--kind", kind)
    summary = json.loads(run(*arguments, "--json").stdout)
    assert (summary["tier"], summary["lines"]) == ("collective", dict.fromkeys(sides, 30))
    words = ", ".join(f"30 clusters of {side}s" for side in sides)
    assert f"q.jsonl: {30 * len(sides)} questions ({words})\n" in run(*arguments).stdout
    subjects = [json.loads(line)["custom_id"].split("|")[0] for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert subjects == sorted(request.subject for request in CLUSTERS if request.subject.split(":")[1].startswith(sides))


def test_without_a_model_the_command_exits_with_2(run):
    answer = run("q.jsonl")
    assert answer.exit_code == 2
    assert "set extract.model" in answer.stderr
