"""Sends records over the one producer of a process (kafka-python; idempotent, acknowledged by all replicas).

Whoever commits offsets after a `flush` has a publisher of its own (`KafkaPublisher.own`): a failure is told to the one whose
record it was.
"""

from __future__ import annotations

import threading
import time
from typing import Any, Self

from kafka import KafkaProducer
from kafka.errors import KafkaError, MessageSizeTooLargeError

from contracts.codec import Record, encode, key_of
from contracts.errors import RecordError
from contracts.records import DeadLetter
from contracts.settings import Settings
from contracts.topics import DEAD_LETTERS, Changelog, Topic
from streams.broker import answering, unavailable
from streams.topics import topic_name

_FLUSH_S = 60.0
_KEPT_FUTURES = 10_000  # beyond it, those that succeeded are forgotten before the flush


class KafkaPublisher:
    """A `contracts.ports.Publisher` over Kafka. Thread-safe.

    Args:
        settings: Where the broker is, and the topics' prefix.
        producer: A connection to share; None makes one.
    """

    def __init__(self, settings: Settings, producer: KafkaProducer | None = None) -> None:
        self._settings = settings
        self._sent: list[Any] = []  # futures since the last flush
        self._lock = threading.Lock()
        self._producer = producer if producer is not None else _connected(settings)

    def own(self) -> KafkaPublisher:
        """A publisher over the same connection whose `flush` answers for what it sent, and for nothing else."""
        return KafkaPublisher(self._settings, self._producer)

    def send(self, topic: Topic, record: Record) -> None:
        """Send one record, keyed as the topic says; buffered."""
        self.send_raw(topic, encode(topic, record), key_of(topic, record))

    def tombstone(self, topic: Topic, key: str) -> None:
        """Send a deletion for a key of a compacted topic."""
        self.send_raw(topic, None, key.encode())

    def send_raw(
        self, topic: Topic | Changelog, value: bytes | None, key: bytes | None = None, partition: int | None = None
    ) -> None:
        """Send bytes as they are (tables, tests, and records that are not ours); the key decides where no partition is given."""
        try:
            future = self._producer.send(topic_name(self._settings, topic), value=value, key=key, partition=partition)
        except MessageSizeTooLargeError as error:
            size = f"a record of {len(value or b'')} bytes for {topic.name}"
            raise RecordError(size, wanted="what the broker takes (message.max.bytes)", todo="send less in one record") from error
        except KafkaError as error:
            raise unavailable(self._settings, error) from error
        with self._lock:
            self._sent.append(future)
            if len(self._sent) > _KEPT_FUTURES:
                self._sent = [one for one in self._sent if not one.succeeded()]

    def dead_letter(self, letter: DeadLetter) -> None:
        """Put a record that cannot be used where somebody will find it."""
        self.send(DEAD_LETTERS, letter)

    def flush(self) -> None:
        """Return when everything sent over this publisher is acknowledged.

        Raises:
            UnavailableError: Something was not acknowledged; what was sent since the last flush must be sent again.
        """
        with self._lock:
            sent, self._sent = self._sent, []
        end_s = time.monotonic() + _FLUSH_S
        with answering(self._settings):
            for future in sent:
                future.get(timeout=max(0.0, end_s - time.monotonic()))

    def close(self) -> None:
        """Flush and let go of the connection."""
        self._producer.close(timeout=10)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _connected(settings: Settings) -> KafkaProducer:
    with answering(settings):
        return KafkaProducer(
            bootstrap_servers=settings.bootstrap_servers,
            linger_ms=5,
            delivery_timeout_ms=120_000,
            bootstrap_timeout_ms=int(settings.kafka.wait_s * 1000),
        )


def wall_ms() -> int:
    """Wall clock, UTC, ms."""
    return time.time_ns() // 1_000_000
