"""Answers of a file become records of imported-knowledge: which, how often, and what is said of the others."""

import json
import subprocess
import sys

import pytest

from contracts.errors import DatasetError, UnavailableError
from contracts.topics import IMPORTED
from streams.importing import MAX_LISTED, errors_file, import_answers

BAD = b"not json\n"


def answer(news, number, **changes):
    content = {"factors": {factor: f"about {factor} {number}" for factor in news.factors}, "summary": "Short."}
    choice = {"message": {"content": json.dumps(content)}, "finish_reason": "stop", **changes}
    line = {"custom_id": f"item:n{number}|1|h|p", "response": {"status_code": 200, "body": {"model": "m", "choices": [choice]}}}
    return json.dumps(line).encode() + b"\n"


@pytest.fixture
def file(news, tmp_path):
    """Four answers; two bad lines between them."""
    path = tmp_path / "answers.jsonl"
    good = [answer(news, n) for n in range(4)]
    path.write_bytes(b"".join([good[0], BAD, good[1], answer(news, 9, finish_reason="length"), *good[2:]]))
    return path


def test_what_can_be_used_is_sent_and_the_rest_is_listed_and_counted(file, news, publisher, tmp_path):
    steps = []
    with errors_file(tmp_path / "errors.jsonl") as out:
        done = import_answers(file, news, publisher, errors=out, progress=steps.append)
    assert [made.subject for made in publisher.of(IMPORTED)] == ["item:n0", "item:n1", "item:n2", "item:n3"]
    assert (done.answers, done.reasons) == ({"item": 4}, {"not a batch line": 1, "cut off": 1})
    assert [(error.line, error.custom_id) for error in done.errors] == [(2, ""), (4, "item:n9|1|h|p")]
    listed = [json.loads(line) for line in (tmp_path / "errors.jsonl").read_text().splitlines()]
    assert [(error["line"], error["kind"]) for error in listed] == [(2, "not a batch line"), (4, "cut off")]
    assert sum(steps) == 6


def test_twice_sends_the_same_records(file, news, publisher):
    import_answers(file, news, publisher)
    import_answers(file, news, publisher)
    sent = publisher.of(IMPORTED)
    assert sent[:4] == sent[4:]
    assert len(sent) == 8


def test_a_broker_that_goes_away_is_told_and_the_import_repeated(file, news, publisher):
    publisher.fail_flushes = 1
    with pytest.raises(UnavailableError):
        import_answers(file, news, publisher)
    import_answers(file, news, publisher)
    assert len(publisher.of(IMPORTED)) == 4


def test_of_many_errors_the_first_are_kept_and_all_are_listed(tmp_path, news, publisher):
    file = tmp_path / "answers.jsonl"
    file.write_bytes(BAD * (MAX_LISTED + 500))
    with errors_file(tmp_path / "errors.jsonl") as out:
        done = import_answers(file, news, publisher, errors=out)
    assert (len(done.errors), done.reasons.total()) == (MAX_LISTED, MAX_LISTED + 500)
    assert len((tmp_path / "errors.jsonl").read_bytes().splitlines()) == MAX_LISTED + 500


def test_a_list_of_errors_that_cannot_be_written_is_one_message_before_anything_is_sent(tmp_path):
    with pytest.raises(DatasetError, match="choose another"), errors_file(tmp_path / "none" / "errors.jsonl"):
        pytest.fail("opened")


def test_memory_does_not_grow_with_the_file(file, tmp_path):
    good, bad = file.read_bytes().splitlines(keepends=True)[:2]
    long = tmp_path / "long.jsonl"
    with long.open("wb") as out:
        for _ in range(20_000):  # 24 MB, every second line bad
            out.write(good + bad)
    code = f"""
from pathlib import Path
import psutil
from extractor.scenario import load_scenario
from streams.importing import import_answers

class Sink:
    def send(self, topic, record): pass
    def flush(self): pass

news = load_scenario("news")
import_answers(Path({str(file)!r}), news, Sink())
before = psutil.Process().memory_info().rss
done = import_answers(Path({str(long)!r}), news, Sink())
print(done.answers.total(), done.reasons.total(), (psutil.Process().memory_info().rss - before) // 2**20)
"""
    n, n_bad, grown_mib = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert (int(n), int(n_bad)) == (20_000, 20_000)
    assert int(grown_mib) < 8  # the answers in memory would be 24, the errors 10
