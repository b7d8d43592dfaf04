"""Sends records: the one producer of a process (kafka-python; idempotent, acknowledged by all replicas)."""

from __future__ import annotations

import time
from typing import Self

from kafka import KafkaProducer
from kafka.errors import KafkaError

from contracts.codec import Record, encode, key_of
from contracts.records import DeadLetter
from contracts.settings import Settings
from contracts.topics import DEAD_LETTERS, Topic
from streams.topics import topic_name, unavailable

_FLUSH_S = 60.0


class KafkaPublisher:
    """A `contracts.ports.Publisher` over Kafka. Thread-safe.

    Args:
        settings: Where the broker is, and the topics' prefix.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failed: Exception | None = None
        try:
            self._producer = KafkaProducer(
                bootstrap_servers=settings.bootstrap_servers,
                linger_ms=5,
                delivery_timeout_ms=120_000,
                bootstrap_timeout_ms=int(settings.kafka.wait_s * 1000),
            )
        except KafkaError as error:
            raise unavailable(settings, error) from error

    def send(self, topic: Topic, record: Record) -> None:
        """Send one record, keyed as the topic says; buffered."""
        self.send_raw(topic, encode(topic, record), key_of(topic, record))

    def tombstone(self, topic: Topic, key: str) -> None:
        """Send a deletion for a key of a compacted topic."""
        self.send_raw(topic, None, key.encode())

    def send_raw(self, topic: Topic, value: bytes | None, key: bytes | None = None) -> None:
        """Send bytes as they are (tests, and records that are not ours)."""
        try:
            future = self._producer.send(topic_name(self._settings, topic), value=value, key=key)
        except KafkaError as error:
            raise unavailable(self._settings, error) from error
        future.add_errback(self._on_failure)

    def dead_letter(self, letter: DeadLetter) -> None:
        """Put a record that cannot be used where somebody will find it."""
        self.send(DEAD_LETTERS, letter)

    def flush(self) -> None:
        """Return when everything sent so far is acknowledged.

        Raises:
            UnavailableError: Something was not acknowledged; what was sent since the last flush must be sent again.
        """
        try:
            self._producer.flush(timeout=_FLUSH_S)
        except KafkaError as error:
            raise unavailable(self._settings, error) from error
        failed, self._failed = self._failed, None
        if failed is not None:
            raise unavailable(self._settings, failed) from failed

    def close(self) -> None:
        """Flush and let go of the connection."""
        self._producer.close(timeout=10)

    def _on_failure(self, error: Exception) -> None:
        self._failed = error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def wall_ms() -> int:
    """Wall clock, UTC, ms."""
    return time.time_ns() // 1_000_000
