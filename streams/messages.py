"""Messages as Kafka gives them, and the one way from a message to a record: whoever reads a topic sees the same records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

import msgspec

from contracts.codec import Record, decode, key_of
from contracts.errors import RecordError
from contracts.topics import Topic


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRecord:
    """A message. ``at_ms`` is the broker's wall clock (topics are made with LogAppendTime)."""

    topic: Topic
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    at_ms: int

    @property
    def key_text(self) -> str:
        """The key as text."""
        return (self.key or b"").decode("utf-8", "replace")


def raw_records(batches: Mapping[Any, Sequence[Any]], topics: Mapping[str, Topic]) -> list[RawRecord]:
    """What kafka-python's `poll` gave, in the order of each partition.

    Args:
        batches: Messages by TopicPartition.
        topics: By their names on the broker.
    """
    return [
        RawRecord(
            topic=topics[partition.topic],
            partition=message.partition,
            offset=message.offset,
            key=message.key,
            value=message.value,
            at_ms=message.timestamp,
        )
        for partition, messages in batches.items()
        for message in messages
    ]


def record_of(message: RawRecord) -> Record | None:
    """The record in a message; None for a tombstone. The same answer whenever it is asked.

    Raises:
        RecordError: It does not fit the topic's schema, lies under another key than its own (on another partition it would meet
            another owner and overtake its own history), or is dated more than a day after the broker received it.
    """
    topic = message.topic
    if message.value is None:
        _check_tombstone(message)
        return None
    record = decode(topic, message.value, as_type=topic.record, now_ms=message.at_ms)
    wanted = key_of(topic, record)
    if message.key != wanted:
        raise RecordError(f"key {message.key!r}", wanted=f"{wanted!r}, the record's {topic.key}", todo="mend the producer")
    return record


def _check_tombstone(message: RawRecord) -> None:
    topic = message.topic
    if not topic.tombstones:
        raise RecordError("an empty value", wanted=f"a {topic.record.__name__}", todo="mend the producer")
    try:
        msgspec.convert((message.key or b"").decode(), _key_type(topic), strict=False)
    except (UnicodeDecodeError, msgspec.ValidationError) as error:
        got = f"an empty value under the key {message.key!r} ({error})"
        raise RecordError(got, wanted=f"a {topic.key}", todo="mend the producer") from error


@cache
def _key_type(topic: Topic) -> Any:
    return get_type_hints(topic.record, include_extras=True)[topic.key]
