"""All partitions of one topic, from offsets that the reader keeps itself: for the one trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from kafka import TopicPartition

from contracts.settings import Settings
from contracts.topics import Topic
from streams.broker import answering, open_consumer
from streams.messages import RawRecord, raw_records
from streams.topics import topic_name


class WholeTopic:
    """Reads a topic, raw.

    Args:
        settings: Where the broker is.
        topic: What to read.
        offsets: Next offset by partition number (as text); the beginning where not given.
    """

    def __init__(self, settings: Settings, topic: Topic, offsets: Mapping[str, int]) -> None:
        self._settings = settings
        name = topic_name(settings, topic)
        self._topics = {name: topic}
        self._consumer = open_consumer(settings, max_records=500)
        with answering(settings):
            partitions = [TopicPartition(name, number) for number in sorted(self._consumer.partitions_for_topic(name) or ())]
            self._consumer.assign(partitions)
            for partition in partitions:
                if str(partition.partition) in offsets:
                    self._consumer.seek(partition, offsets[str(partition.partition)])
                else:
                    self._consumer.seek_to_beginning(partition)

    def poll(self, timeout_ms: int = 200) -> list[RawRecord]:
        """The next messages, in the order of each partition."""
        with answering(self._settings):
            batches = self._consumer.poll(timeout_ms=timeout_ms)
        return raw_records(batches, self._topics)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
