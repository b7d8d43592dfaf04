"""Into a real broker: a replay that is killed and started again, lines from a file, answers of a language model."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest

from contracts.records import DeadLetter, InteractionEvent, ItemEvent, Knowledge
from contracts.settings import environment_of
from contracts.topics import DEAD_LETTERS, IMPORTED, INTERACTIONS, ITEMS
from streams.datasets.news import SAMPLE
from streams.tail import Tail
from streams.topics import create_topics, n_records

pytestmark = pytest.mark.integration
N_RATINGS = 30_000


@pytest.fixture
def settings(services, tmp_path):
    kafka = services.kafka.model_copy(update={"prefix": f"t{uuid.uuid4().hex[:8]}."})
    settings = services.model_copy(update={"kafka": kafka, "home": tmp_path / "home"})
    create_topics(settings)
    return settings


def reki(settings, *arguments):
    command = [sys.executable, "-P", "-m", "streams.cli.main", *arguments]
    environment = {**os.environ, **environment_of(settings)}
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=settings.home.parent
    )


def finished(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def read(settings, topic, kind):
    with Tail(settings, [topic]) as tail:
        return [one.record for one in tail.to_end() if isinstance(one.record, kind)]


def test_a_replay_killed_in_the_middle_goes_on_and_loses_nothing(settings, tmp_path):
    (tmp_path / "movies.dat").write_text("".join(f"{i}::Film {i} (1999)::Drama\n" for i in range(50)))
    rows = [f"{i % 97}::{i % 50}::4::{1000 + i}\n" for i in range(N_RATINGS)]
    (tmp_path / "ratings.dat").write_text("".join(rows))
    arguments = ("replay", "ml-1m", "--path", str(tmp_path), "--json")
    killed = reki(settings, *arguments, "--speed", "3000")  # ten seconds: long enough to be killed on its way
    deadline = time.monotonic() + 60
    while n_records(settings, INTERACTIONS) < FLUSHED_BEFORE_KILL and time.monotonic() < deadline:
        assert killed.poll() is None, killed.communicate()
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    code, out, err = finished(reki(settings, *arguments))
    assert code == 0, err
    summary = json.loads(out)
    assert 0 < summary["sent"]["interactions"] <= N_RATINGS
    got = read(settings, INTERACTIONS, InteractionEvent)
    assert {(e.user, e.item, e.event_ms) for e in got} == {
        (str(i % 97), str(i % 50), (1000 + i) * 1000) for i in range(N_RATINGS)
    }
    assert {item.item for item in read(settings, ITEMS, ItemEvent)} == {str(i) for i in range(50)}
    assert json.loads(finished(reki(settings, *arguments))[1])["sent"] == {}


FLUSHED_BEFORE_KILL = 2_000


def test_lines_of_a_file_go_to_their_topics_and_the_bad_one_to_the_dead_letters(settings, tmp_path):
    item = {"item": "a", "published_ms": 1, "title": "A"}
    click = {"user": "u", "item": "a", "action": "click", "event_ms": 2}
    file = tmp_path / "events.jsonl"
    file.write_text("\n".join([json.dumps(item), "{", json.dumps(click)]))
    code, out, err = finished(reki(settings, "ingest", "jsonl", str(file), "--json"))
    assert (code, json.loads(out)) == (
        0,
        {"lines": 3, "sent": {"items": 1, "interactions": 1}, "dead_letters": {"unknown": 1}},
    ), err
    assert read(settings, ITEMS, ItemEvent) == [ItemEvent(item="a", published_ms=1, title="A")]
    (letter,) = read(settings, DEAD_LETTERS, DeadLetter)
    assert "events.jsonl line 2" in letter.reason


def test_answers_are_imported_and_bad_ones_listed_with_their_lines(settings, tmp_path):
    answers = (SAMPLE / "answers.jsonl").read_bytes().splitlines()[:3]
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b"\n".join([answers[0], b"{}", answers[1], answers[2]]))
    code, out, err = finished(reki(settings, "knowledge", "import", str(file), "--json"))
    summary = json.loads(out)
    assert (code, summary["imported"], [error["line"] for error in summary["errors"]]) == (1, {"item": 3}, [2]), err
    imported = read(settings, IMPORTED, Knowledge)
    assert {k.tier for k in imported} == {"individual"}
    assert len(imported) == 3
