"""Reads whole topics without a group: how a ranker, a trainer or an offline training run sees the same state as everybody else.

A tail never writes dead letters: every topic has one owner stage that does (docs/architecture.md); a tail counts what it cannot
read and goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

from kafka import TopicPartition
from prometheus_client import Counter

from contracts.codec import Record
from contracts.errors import RecordError
from contracts.settings import Settings
from contracts.topics import Topic
from streams.broker import answering, open_consumer, unavailable
from streams.messages import raw_records, record_of
from streams.topics import topic_name

log = logging.getLogger(__name__)

UNREADABLE = Counter("reki_unreadable_records", "records that a tail passed over; their owner stage dead-letters them", ["topic"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Tailed:
    """One record as read. ``record`` is None for a tombstone; ``at_ms`` is the broker's wall clock."""

    topic: Topic
    key: str
    record: Record | None
    partition: int
    offset: int
    at_ms: int


class Tail:
    """A group-less reader of all partitions of some topics, in batches.

    Args:
        settings: Where the broker is.
        topics: What to read.
        from_end: Topics of which only records written from now on matter.
        positions: Offsets by (topic name, partition) to start from, where others than the beginning.

    Raises:
        UnavailableError: The broker does not answer, or a topic is missing.
    """

    def __init__(
        self,
        settings: Settings,
        topics: Sequence[Topic],
        *,
        from_end: Collection[Topic] = (),
        positions: dict[tuple[str, int], int] | None = None,
    ) -> None:
        self._settings = settings
        self._topics = {topic_name(settings, topic): topic for topic in topics}
        self._consumer = open_consumer(settings)
        with answering(settings):
            self._partitions = self._assign(from_end, positions or {})
            self._ends: dict[Any, int] = dict(self._consumer.end_offsets(self._partitions))

    def _assign(self, from_end: Collection[Topic], positions: dict[tuple[str, int], int]) -> list[Any]:
        partitions: list[Any] = []
        for name in self._topics:
            found = self._consumer.partitions_for_topic(name)
            if not found:
                raise unavailable(self._settings, LookupError(f"topic {name} is missing: run `reki topics create`"))
            partitions += [TopicPartition(name, partition) for partition in sorted(found)]
        self._consumer.assign(partitions)
        for partition in partitions:
            topic = self._topics[partition.topic]
            if topic in from_end:
                self._consumer.seek_to_end(partition)
                self._consumer.position(partition)  # fixes the offset now, not at the first poll
            elif (topic.name, partition.partition) in positions:
                self._consumer.seek(partition, positions[topic.name, partition.partition])
            else:
                self._consumer.seek_to_beginning(partition)
        return partitions

    def poll(self, timeout_ms: int = 200) -> list[Tailed]:
        """The next records in the order of each partition; empty when there are none within the time-out.

        Raises:
            UnavailableError: The broker has gone; polling again may help.
        """
        with answering(self._settings):
            batches = self._consumer.poll(timeout_ms=timeout_ms)
        tailed: list[Tailed] = []
        for message in raw_records(batches, self._topics):
            try:
                record = record_of(message)
            except RecordError as error:
                UNREADABLE.labels(message.topic.name).inc()
                log.debug("passed over %s[%d]@%d: %s", message.topic.name, message.partition, message.offset, error)
                continue
            tailed.append(
                Tailed(
                    topic=message.topic,
                    key=message.key_text,
                    record=record,
                    partition=message.partition,
                    offset=message.offset,
                    at_ms=message.at_ms,
                )
            )
        return tailed

    def caught_up(self) -> bool:
        """Whether everything that was there when the tail was opened has been read."""
        return all(self._consumer.position(partition) >= end for partition, end in self._ends.items())

    def positions(self) -> dict[tuple[str, int], int]:
        """The next offset to be read, by (topic, partition)."""
        return {(self._topics[p.topic].name, p.partition): self._consumer.position(p) for p in self._partitions}

    def to_end(self, progress: Callable[[int], None] | None = None) -> Iterator[Tailed]:
        """Every record up to what was there when the tail was opened."""
        while not self.caught_up():
            batch = self.poll()
            yield from batch
            if progress is not None:
                progress(len(batch))

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
