"""All partitions of one topic, from offsets that the reader keeps itself: for the one trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from contracts.settings import Settings
from contracts.topics import Topic
from streams.messages import RawRecord, raw_records
from streams.topics import topic_name, unavailable


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
        try:
            self._consumer = KafkaConsumer(
                bootstrap_servers=settings.bootstrap_servers,
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                max_poll_records=500,
                bootstrap_timeout_ms=int(settings.kafka.wait_s * 1000),
            )
            partitions = [TopicPartition(name, number) for number in sorted(self._consumer.partitions_for_topic(name) or ())]
            self._consumer.assign(partitions)
            for partition in partitions:
                if str(partition.partition) in offsets:
                    self._consumer.seek(partition, offsets[str(partition.partition)])
                else:
                    self._consumer.seek_to_beginning(partition)
        except KafkaError as error:
            raise unavailable(settings, error) from error

    def poll(self, timeout_ms: int = 200) -> list[RawRecord]:
        """The next messages, in the order of each partition."""
        try:
            batches = self._consumer.poll(timeout_ms=timeout_ms)
        except KafkaError as error:
            raise unavailable(self._settings, error) from error
        return raw_records(batches, self._topics)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
