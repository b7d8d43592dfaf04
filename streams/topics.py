"""Topics on a broker: their names, their creation with the right partitions and retention, and how far a group is behind."""

from __future__ import annotations

from typing import Any

from kafka import TopicPartition
from kafka.errors import TopicAlreadyExistsError

from contracts.settings import Settings
from contracts.topics import CHANGELOGS, MODELS, TOPICS, Changelog, Topic
from streams.broker import admin, answering, open_consumer

_HOUR_MS = 3600 * 1000
_ALL: tuple[Topic | Changelog, ...] = (*TOPICS, *CHANGELOGS)


def topic_name(settings: Settings, topic: Topic | Changelog) -> str:
    """The topic's name on the broker, with the prefix of the settings."""
    return f"{settings.kafka.prefix}{topic.name}"


def group(settings: Settings, role: str) -> str:
    """The consumer group of a role (of a faust one: its app id too)."""
    return f"{settings.kafka.prefix}reki-{role}"


def create_topics(settings: Settings) -> list[str]:
    """Create what is missing; returns the names created. A topic that exists is left as it is."""
    created: list[str] = []
    with admin(settings) as client:
        existing = set(client.list_topics())
        for topic in _ALL:
            name = topic_name(settings, topic)
            if name in existing:
                continue
            spec = {
                "num_partitions": 1 if topic is MODELS else settings.kafka.partitions,
                "replication_factor": settings.kafka.replication,
                "configs": _configs(topic, settings),
            }
            try:
                client.create_topics({name: spec}, wait_for_metadata=True)
            except TopicAlreadyExistsError:
                continue  # another process was faster
            created.append(name)
    return created


def _configs(topic: Topic | Changelog, settings: Settings) -> dict[str, str]:
    configs = {"message.timestamp.type": "LogAppendTime"}  # the broker's clock: `trigger_ms` and far-future checks stand on it
    if isinstance(topic, Changelog):
        return configs | {"cleanup.policy": "compact"}
    match topic.kept:
        case "compacted":
            return configs | {"cleanup.policy": "compact"}
        case "by time":
            return configs | {"retention.ms": str(settings.kafka.retention_hours * _HOUR_MS)}
        case "long":
            return configs | {"retention.ms": "-1"}


def missing_topics(settings: Settings) -> list[str]:
    """Names of topics that are not there yet."""
    with admin(settings) as client:
        existing = set(client.list_topics())
    return [name for topic in _ALL if (name := topic_name(settings, topic)) not in existing]


def end_offsets(settings: Settings, topics: tuple[Topic, ...]) -> dict[Any, int]:
    """The next offset of every partition of some topics, by TopicPartition."""
    consumer = open_consumer(settings)
    try:
        with answering(settings):
            partitions = [
                TopicPartition(topic_name(settings, topic), partition)
                for topic in topics
                for partition in sorted(consumer.partitions_for_topic(topic_name(settings, topic)) or ())
            ]
            return dict(consumer.end_offsets(partitions)) if partitions else {}
    finally:
        consumer.close()


def n_records(settings: Settings, topic: Topic) -> int:
    """Records ever written to a topic (compaction does not lower it)."""
    return sum(end_offsets(settings, (topic,)).values())


def lag(settings: Settings, role: str, topics: tuple[Topic, ...], ends: dict[Any, int] | None = None) -> dict[str, int]:
    """Records of each topic that a role has not yet committed as done; up to ``ends`` (of `end_offsets`), or up to now."""
    with admin(settings) as client:
        committed = client.list_group_offsets(group(settings, role)).get(group(settings, role), {})
    ends = end_offsets(settings, topics) if ends is None else ends
    behind = {topic.name: 0 for topic in topics}
    for partition, end in ends.items():
        done = committed[partition].offset if partition in committed else 0
        behind[partition.topic.removeprefix(settings.kafka.prefix)] += max(0, end - max(0, done))
    return behind
