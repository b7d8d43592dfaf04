"""Where records enter a stage: decode, or dead-letter with the reason and go on. The partition never stops for a bad record."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import Counter

from contracts.codec import Record
from contracts.errors import RecordError
from contracts.records import DeadLetter
from streams.messages import RawRecord, record_of
from streams.publisher import wall_ms

log = logging.getLogger(__name__)

RECORDS_IN = Counter("reki_records_in", "records read by a role", ["role", "topic"])
DEAD_LETTERS = Counter("reki_dead_letters", "records that a role could not use", ["role", "topic"])
_KEPT_BYTES = 500_000  # of a record that is kept in a dead letter: two of them and base64 stay below Kafka's message limit


class TakesDeadLetters(Protocol):
    """Where records go that cannot be used: a publisher, or a role that sends them with its results."""

    def dead_letter(self, letter: DeadLetter) -> None:
        """Take one; safe after the next flush."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """A record that fits its schema (None for a tombstone), with the message it came in."""

    record: Record | None
    raw: RawRecord

    @property
    def key(self) -> str:
        """The message's key as text."""
        return self.raw.key_text


def admit(role: str, messages: Iterable[RawRecord], publisher: TakesDeadLetters) -> list[Admitted]:
    """The messages that fit their schema, in order; the others are sent to dead-letters (flush before committing)."""
    admitted: list[Admitted] = []
    for message in messages:
        RECORDS_IN.labels(role, message.topic.name).inc()
        try:
            admitted.append(Admitted(record=record_of(message), raw=message))
        except RecordError as error:
            dead_letter(role, message, str(error), publisher)
    return admitted


def read(message: RawRecord) -> Record | None:
    """The record in a message, or None where it does not fit: for topics whose bad records another role dead-letters."""
    try:
        return record_of(message)
    except RecordError:
        return None


def dead_letter(role: str, message: RawRecord, reason: str, publisher: TakesDeadLetters) -> None:
    """Put one message into the dead letters: its first 500,000 bytes, where it came from, and why."""
    DEAD_LETTERS.labels(role, message.topic.name).inc()
    log.warning("dead letter: %s[%d]@%d: %s", message.topic.name, message.partition, message.offset, reason[:500])
    publisher.dead_letter(
        DeadLetter(
            topic=message.topic.name,
            partition=message.partition,
            offset=message.offset,
            stage=role,
            reason=reason[:2000],
            at_ms=wall_ms(),
            key=message.key[:1000] if message.key is not None else None,
            value=message.value[:_KEPT_BYTES] if message.value is not None else None,
        )
    )
