"""Questions out, answers in: `reki knowledge export`, `import` and `show` on a real broker, with plan, extract and encode at work."""

import json

import pytest

from contracts.records import KnowledgeRequest, Member
from contracts.topics import CLUSTER_KNOWLEDGE, ENCODINGS, IMPORTED, KNOWLEDGE, REQUESTS
from fakes.batch_server import answer_batch
from integration.streams.running import DAY_MS, START_MS, some_interactions, some_items
from streams.topics import lag

pytestmark = pytest.mark.integration

ITEM_IDS = [f"n{n:03d}" for n in range(12)]
USERS = [f"u{n}" for n in range(4)]
SUBJECTS = {f"item:{item}" for item in ITEM_IDS} | {f"user:{user}" for user in USERS}
MODEL = "tiny"


def tiers(reki, topic):
    """The tier of the last record of every subject."""
    return {record.subject: record.tier for record in reki.typed(topic)}


def export(reki, *options):
    """The questions that are open, and the summary."""
    file = reki.home / "questions.jsonl"
    done = reki.command("knowledge", "export", str(file), "--model", MODEL, "--json", *options)
    assert done.returncode == 0, done.stderr
    return file.read_bytes(), json.loads(done.stdout)


def import_answers(reki, answers):
    file = reki.home / "answers.jsonl"
    file.write_bytes(answers)
    done = reki.command("knowledge", "import", str(file), "--json")
    assert done.returncode == 0, done.stderr
    reki.until(lambda: not sum(lag(reki.settings, "extract", (IMPORTED,)).values()), "extract has read the answers")
    return json.loads(done.stdout)


def show(reki, subject):
    done = reki.command("knowledge", "show", subject, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def reki(make_reki):
    """Items and users, all known by their attributes."""
    reki = make_reki()
    reki.start("plan", "extract", "encode")
    reki.send(*some_items(len(ITEM_IDS)))
    reki.until(lambda: len(reki.typed(KNOWLEDGE)) == len(ITEM_IDS), "items are known to plan")  # before a history names them
    reki.send(*some_interactions(USERS, ITEM_IDS, 3, START_MS + DAY_MS))
    reki.until(lambda: tiers(reki, ENCODINGS) == dict.fromkeys(SUBJECTS, "attributes"), "attributes of all")
    return reki


@pytest.fixture(scope="module")
def answers(reki):
    """The answers of a batch server to what is open; imported."""
    questions, summary = export(reki)
    assert summary["lines"] == {"item": len(ITEM_IDS), "user": len(USERS)}
    assert summary["reasons"] == {"lower tier": len(SUBJECTS)}
    answers = answer_batch(questions, model=MODEL)
    assert import_answers(reki, answers)["imported"] == {"item": len(ITEM_IDS), "user": len(USERS)}
    reki.until(lambda: tiers(reki, ENCODINGS) == dict.fromkeys(SUBJECTS, "individual"), "individual knowledge of all")
    return answers


def test_after_the_import_nothing_is_open(reki, answers):
    questions, summary = export(reki)
    assert (questions, summary["left_out"]) == (b"", {"up to date": len(SUBJECTS)})


def test_the_same_answers_again_change_nothing(reki, answers):
    known, encoded = reki.typed(KNOWLEDGE), reki.typed(ENCODINGS)
    import_answers(reki, answers)
    reki.until(lambda: not sum(lag(reki.settings, "encode", (KNOWLEDGE,)).values()), "encode has read everything")
    assert (reki.typed(KNOWLEDGE), reki.typed(ENCODINGS)) == (known, encoded)


@pytest.mark.parametrize("subject", ["item:n003", "user:u2"])
def test_show_prints_what_stands_and_what_stood_before(reki, answers, subject):
    shown = show(reki, subject)
    assert (shown["subject"], shown["tier"], shown["model"], shown["backend"]) == (subject, "individual", MODEL, "batch")
    assert shown["tokens_in"] > 100
    assert [(version["tier"], version["tokens_in"]) for version in shown["versions"]] == [("attributes", None)]
    assert shown["versions"][0]["summary"]
    words = " ".join(reki.command("knowledge", "show", subject).stdout.split())
    assert "tier individual age " in words
    assert f"model {MODEL} (backend batch)" in words
    assert "before as of model prompt tokens summary attributes" in words


def test_what_changes_afterwards_is_open_again_and_alone(reki, answers):
    changed, new = some_items(13)[3:13:9]
    reki.send(type(changed)(item=changed.item, published_ms=changed.published_ms, title="Another title"), new)
    wanted = {"item:n003": "attributes", "item:n012": "attributes"}
    reki.until(lambda: tiers(reki, KNOWLEDGE).items() >= wanted.items(), "the attributes of both")
    questions, summary = export(reki)
    subjects = [json.loads(line)["custom_id"].split("|")[0] for line in questions.splitlines()]
    assert (subjects, summary["lines"]) == (["item:n003", "item:n012"], {"item": 2, "user": 0})
    assert export(reki, "--kind", "user")[0] == b""


def a_cluster(as_of_ms):
    """A request as the role cluster writes it."""
    members = tuple(Member(subject=f"item:{item}", text=f"A report of the section of {item}.") for item in ITEM_IDS[:3])
    return KnowledgeRequest(
        subject="cluster:item-3", mode="collective", reason="new_cluster", priority=50.0, as_of_ms=as_of_ms, trigger_ms=as_of_ms,
        source_hash=f"members at {as_of_ms}", members=members, common={"topic": ("harbours",)}, cluster_size=12,
    )  # fmt: skip


def test_clusters_go_the_same_way_and_their_versions_are_read_off_the_topic(reki, answers):
    assert export(reki, "--tier", "collective")[0] == b""
    assert reki.command("knowledge", "show", "cluster:item-3").returncode == 1
    for as_of_ms in (START_MS, START_MS + 5):
        reki.publisher.send(REQUESTS, a_cluster(as_of_ms))
        reki.publisher.flush()
        questions, summary = export(reki, "--tier", "collective")
        assert summary["lines"] == {"item": 1, "user": 0}
        assert import_answers(reki, answer_batch(questions, model=f"tiny{as_of_ms}"))["imported"] == {"cluster": 1}
        stands = {"cluster:item-3": as_of_ms}
        reki.until(lambda at=stands: {made.subject: made.as_of_ms for made in reki.typed(CLUSTER_KNOWLEDGE)} == at, "it stands")
        assert export(reki, "--tier", "collective")[0] == b""
    shown = show(reki, "cluster:item-3")
    assert (shown["tier"], shown["model"], shown["backend"]) == ("collective", f"tiny{START_MS + 5}", "batch")
    assert [version["model"] for version in shown["versions"]] == [f"tiny{START_MS}"]
