import io
import json

from hypothesis import given
from hypothesis import strategies as st

from contracts.codec import MAX_RECORD_BYTES, decode, encode
from contracts.records import DeadLetter
from contracts.topics import DEAD_LETTERS, INTERACTIONS, ITEMS
from streams.ingest.jsonl import JsonLines

NOW_MS = 1_800_000_000_000
ITEM = {"item": "a", "published_ms": 1, "title": "A"}
CLICK = {"user": "u", "item": "a", "action": "click", "event_ms": 2}


class Sent(list):
    n_flushed = 0

    def send(self, topic, record):
        assert len(encode(topic, record)) < 1_000_000
        self.append((topic, record))

    def flush(self):
        self.n_flushed = len(self)


def ingest(raw, topic=None):
    sent = Sent()
    done = JsonLines(sent, lambda: NOW_MS).ingest(io.BytesIO(raw), "file.jsonl", topic)
    assert sent.n_flushed == len(sent)
    return done, sent


def lines(*rows):
    return "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows).encode()


def test_the_fields_tell_the_topic_and_empty_lines_are_passed_over():
    done, sent = ingest(lines(ITEM, "", CLICK, "  "))
    assert [topic for topic, _ in sent] == [ITEMS, INTERACTIONS]
    assert (done.lines, dict(done.sent), dict(done.dead)) == (2, {"items": 1, "interactions": 1}, {})


def test_a_bad_line_is_a_dead_letter_with_reason_and_line_number_and_the_run_goes_on():
    far = CLICK | {"event_ms": NOW_MS + 2 * 24 * 3600 * 1000}
    done, sent = ingest(lines("not json", CLICK | {"action": "dance"}, {"x": 1}, ITEM | {"item": "a\u0000"}, far, CLICK))
    letters = [record for topic, record in sent if topic is DEAD_LETTERS]
    assert [(letter.topic, letter.offset) for letter in letters] == [
        ("unknown", 1),
        ("interactions", 2),
        ("unknown", 3),
        ("items", 4),
        ("interactions", 5),
    ]
    assert all(f"file.jsonl line {letter.offset}: " in letter.reason for letter in letters)
    assert letters[0].value == b"not json"
    assert (done.dead.total(), dict(done.sent)) == (5, {"interactions": 1})


def test_a_chosen_topic_holds_for_every_line():
    done, _ = ingest(lines(ITEM, CLICK), INTERACTIONS)
    assert (dict(done.sent), dict(done.dead)) == ({"interactions": 1}, {"interactions": 1})


def test_an_overlong_line_is_one_dead_letter_that_fits_and_the_next_line_is_read():
    for length in (MAX_RECORD_BYTES, MAX_RECORD_BYTES + 1, 3 * MAX_RECORD_BYTES):
        done, sent = ingest(b'{"title": "' + b"x" * length + b'"}\n' + lines(CLICK))
        assert (done.dead.total(), dict(done.sent)) == (1, {"interactions": 1})
        assert "of" in sent[0][1].reason
        assert len(sent[0][1].value) == 500_000


@given(st.lists(st.binary(max_size=60).filter(lambda b: b"\n" not in b and b.strip()), max_size=8))
def test_every_line_is_sent_or_dead(raw):
    done, sent = ingest(b"\n".join(raw))
    assert done.lines == len(sent) == done.sent.total() + done.dead.total()
    for topic, record in sent:
        if topic is DEAD_LETTERS:
            assert decode(DEAD_LETTERS, encode(DEAD_LETTERS, record), as_type=DeadLetter, now_ms=NOW_MS) == record
