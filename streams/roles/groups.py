"""A consumer group over kafka-python for roles that are too fast for faust, or need offsets of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Self

from kafka import ConsumerRebalanceListener, OffsetAndMetadata, TopicPartition
from kafka.coordinator.base import MemberState
from kafka.errors import (
    CommitFailedError,
    IllegalGenerationError,
    RebalanceInProgressError,
    UnknownMemberIdError,
)

from contracts.settings import Settings
from contracts.topics import Topic
from streams.broker import answering, open_consumer, unavailable
from streams.messages import RawRecord, raw_records
from streams.topics import group, topic_name

_METADATA_MS = 10_000  # a leader that did not know a topic shares it out at the next look, not five minutes later


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # kafka-python has no types
    """Notes that the group went on without this member: what it had may have been another's meanwhile."""

    was_out = False

    def on_partitions_revoked(self, revoked: object) -> None:
        """Nothing: whoever has state has written it before it polls."""

    def on_partitions_assigned(self, assigned: object) -> None:
        """Nothing: `Group.partitions` says it."""

    def on_partitions_lost(self, lost: object) -> None:  # noqa: ARG002 - kafka-python names it
        """The group took this member for dead."""
        self.was_out = True


class Group:
    """A member of a role's consumer group. Nothing is committed but what `commit` is told.

    Args:
        settings: Where the broker is.
        role: Names the group.
        topics: What to read; the same partitions of each go to the same member.
        max_records: In one `poll`.
    """

    def __init__(self, settings: Settings, role: str, topics: Sequence[Topic], max_records: int = 1000) -> None:
        self._settings = settings
        self._topics = {topic_name(settings, topic): topic for topic in topics}
        self._listener = _Listener()
        self._consumer = open_consumer(
            settings,
            max_records=max_records,
            group_id=group(settings, role),
            session_timeout_ms=10_000,
            heartbeat_interval_ms=2_000,
            metadata_max_age_ms=_METADATA_MS,
        )
        with answering(settings):
            for name in self._topics:  # the group's leader shares out what it knows: ask before it may become that
                if not self._consumer.partitions_for_topic(name):
                    raise unavailable(settings, LookupError(f"topic {name} is missing: run `reki topics create`"))
            self._consumer.subscribe(list(self._topics), listener=self._listener)

    def poll(self, timeout_ms: int = 200) -> list[RawRecord]:
        """The next messages, in the order of each partition."""
        self._end_joining()
        with answering(self._settings):
            batches = self._consumer.poll(timeout_ms=timeout_ms)
        return raw_records(batches, self._topics)

    def _end_joining(self) -> None:
        """Have a join that a poll began and did not wait for be taken up by the next one.

        kafka-python 3.0.12 forgets it where a change of the topics' metadata had set it off: it then takes the member for joined,
        which reads nothing, sends no heartbeats, and is taken for dead. No public method asks for a join.
        """
        if self._consumer.group_metadata().state is MemberState.REBALANCING:
            self._consumer._coordinator.request_rejoin()  # noqa: SLF001 - see above

    def partitions(self) -> set[int]:
        """The partition numbers that are this member's now."""
        return {partition.partition for partition in self._consumer.assignment()}

    def was_out(self) -> bool:
        """Whether the group went on without this member since the last call; state of its partitions is then out of date."""
        was_out, self._listener.was_out = self._listener.was_out, False
        return was_out

    def hold(self, topic: Topic, *, held: bool) -> None:
        """Read no more of a topic for now, or go on; what is not read waits on the broker."""
        name = topic_name(self._settings, topic)
        mine = [partition for partition in self._consumer.assignment() if partition.topic == name]
        (self._consumer.pause if held else self._consumer.resume)(*mine)

    def at_end(self) -> bool:
        """Whether every assigned partition is read to its end, as far as the last poll saw."""
        assigned = self._consumer.assignment()
        return all(self._consumer.highwater(p) in {None, self._consumer.position(p)} for p in assigned)

    def commit(self, offsets: Mapping[tuple[Topic, int], int]) -> bool:
        """Commit next offsets by (topic, partition); False where the partitions went to another member meanwhile."""
        named = {
            TopicPartition(topic_name(self._settings, topic), partition): OffsetAndMetadata(offset, "", -1)
            for (topic, partition), offset in offsets.items()
        }
        with answering(self._settings):
            try:
                self._consumer.commit(named)
            except (CommitFailedError, RebalanceInProgressError, IllegalGenerationError, UnknownMemberIdError):
                self._listener.was_out = True
                return False
        return True

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def next_offsets(messages: Sequence[RawRecord]) -> dict[tuple[Topic, int], int]:
    """What to commit after these messages."""
    offsets: dict[tuple[Topic, int], int] = {}
    for message in messages:
        key = (message.topic, message.partition)
        offsets[key] = max(offsets.get(key, 0), message.offset + 1)
    return offsets
