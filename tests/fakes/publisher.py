"""A publisher that keeps what it is told, and fails on demand."""

from __future__ import annotations

from typing import Any

from contracts.codec import Record, encode, key_of
from contracts.errors import RecordError, UnavailableError
from contracts.records import DeadLetter
from contracts.topics import DEAD_LETTERS, Topic

MAX_BYTES = 1_048_576  # as kafka-python's producer has it


class FakePublisher:
    """Stands in for `streams.publisher.KafkaPublisher`. ``sent`` holds (topic, record or tombstone key), ``acked`` what a flush confirmed.

    Attributes:
        fail_flushes: How many of the next flushes fail; what was sent since the last good one is then lost.
    """

    def __init__(self) -> None:
        self.sent: list[tuple[Topic, Any]] = []
        self.acked: list[tuple[Topic, Any]] = []
        self.fail_flushes = 0

    def send(self, topic: Topic, record: Record) -> None:
        if (n_bytes := len(encode(topic, record))) > MAX_BYTES:
            raise RecordError(f"{n_bytes} bytes", wanted=f"at most {MAX_BYTES}", todo="send less")
        key_of(topic, record)
        self.sent.append((topic, record))

    def own(self) -> FakePublisher:
        """Itself: what was sent through any of them is looked at in one place."""
        return self

    def send_raw(self, topic: Any, value: bytes | None, key: bytes | None = None, partition: int | None = None) -> None:
        self.sent.append((topic, (partition, key, value)))

    def tombstone(self, topic: Topic, key: str) -> None:
        self.sent.append((topic, key))

    def dead_letter(self, letter: DeadLetter) -> None:
        self.send(DEAD_LETTERS, letter)

    def flush(self) -> None:
        waiting, self.sent = self.sent, []
        if self.fail_flushes:
            self.fail_flushes -= 1
            raise UnavailableError("no answer", wanted="a broker", todo="wait")
        self.acked += waiting

    def of(self, topic: Topic) -> list[Any]:
        """What was acknowledged on a topic."""
        return [record for where, record in self.acked if where is topic]
