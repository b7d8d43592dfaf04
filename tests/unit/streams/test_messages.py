"""From a message to a record: every reader of a topic comes to the same answer."""

import pytest

from contracts.codec import FAR_FUTURE_MS, encode
from contracts.errors import RecordError
from contracts.records import InteractionEvent
from contracts.topics import INTERACTIONS, ITEMS, KNOWLEDGE
from streams.messages import RawRecord, record_of

AT_MS = 1_780_000_000_000


def message(topic, key, value, at_ms=AT_MS):
    return RawRecord(topic=topic, partition=0, offset=1, key=key, value=value, at_ms=at_ms)


def click(event_ms):
    return encode(INTERACTIONS, InteractionEvent(user="u", item="i", action="click", event_ms=event_ms))


def test_a_record_under_its_own_key_is_a_record():
    assert record_of(message(INTERACTIONS, b"u", click(1))) == InteractionEvent(user="u", item="i", action="click", event_ms=1)


@pytest.mark.parametrize("key", [None, b"", b"other"])
def test_a_record_under_another_key_is_refused(key):
    with pytest.raises(RecordError, match="wanted b'u'"):
        record_of(message(INTERACTIONS, key, click(1)))


def test_the_far_future_is_judged_by_the_brokers_clock_so_that_waiting_makes_no_record_good():
    record_of(message(INTERACTIONS, b"u", click(AT_MS + FAR_FUTURE_MS)))
    with pytest.raises(RecordError, match="a day after"):
        record_of(message(INTERACTIONS, b"u", click(AT_MS + FAR_FUTURE_MS + 1)))


@pytest.mark.parametrize("key", [None, b"", b"\x00\x1b[31m", b"\xff\xfe"])
def test_a_tombstone_needs_a_key_that_is_an_id(key):
    with pytest.raises(RecordError, match="empty value"):
        record_of(message(ITEMS, key, None))


def test_tombstones_stand_where_the_topic_has_them():
    assert record_of(message(ITEMS, b"n1", None)) is None
    assert record_of(message(KNOWLEDGE, b"item:n1", None)) is None
    with pytest.raises(RecordError):
        record_of(message(KNOWLEDGE, b"n1", None))
    with pytest.raises(RecordError, match="empty value"):
        record_of(message(INTERACTIONS, b"u", None))
