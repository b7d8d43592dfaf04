"""A role's state by key: in memory, and in a compacted changelog from which whoever gets its partitions next comes back.

A table is partitioned as the topic that its role follows, by number: the state of a key lies on the partition that its records
come from. The order that makes a crash harmless: results are acknowledged, then `Table.write` has been acknowledged, then offsets
are committed. As with Kafka Streams' at-least-once, a worker that was taken for dead and writes once more can put an older value
behind a newer one; `streams.roles.groups.Group` takes its partitions away at the next poll.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

from contracts.settings import Settings
from contracts.topics import Changelog
from streams.broker import whole_log
from streams.publisher import KafkaPublisher
from streams.topics import topic_name

log = logging.getLogger(__name__)

T = TypeVar("T")


class Table(Generic[T]):
    """One table of one worker. Values are kept packed; those changed since the last `write` are kept as they are.

    Args:
        settings: Where the broker is.
        changelog: Its topic.
        publisher: Its writes are flushed with this one.
        pack: A value as bytes.
        unpack: The inverse.
    """

    def __init__(
        self,
        settings: Settings,
        changelog: Changelog,
        publisher: KafkaPublisher,
        pack: Callable[[T], bytes],
        unpack: Callable[[bytes], T],
    ) -> None:
        self._settings = settings
        self._changelog = changelog
        self._publisher = publisher
        self._pack = pack
        self._unpack = unpack
        self._packed: dict[int, dict[str, bytes]] = {}  # by partition
        self._changed: dict[tuple[int, str], T | None] = {}

    def get(self, partition: int, key: str) -> T | None:
        """The value of a key; None where there is none, or the partition is not this worker's."""
        if (partition, key) in self._changed:
            return self._changed[partition, key]
        packed = self._packed.get(partition, {}).get(key)
        return None if packed is None else self._unpack(packed)

    def put(self, partition: int, key: str, value: T | None) -> None:
        """Change a value (None: forget it); safe after the next `write`. Nothing happens where the partition has gone."""
        if partition in self._packed:
            self._changed[partition, key] = value

    def items(self, partition: int) -> Iterator[tuple[str, T]]:
        """All keys and values of a partition."""
        keys = {*self._packed.get(partition, ()), *(key for where, key in self._changed if where == partition)}
        for key in keys:
            value = self.get(partition, key)
            if value is not None:
                yield key, value

    @property
    def partitions(self) -> Collection[int]:
        """What is this worker's."""
        return self._packed.keys()

    def write(self) -> None:
        """Put every change into the changelog; returns when it is acknowledged.

        Raises:
            UnavailableError: It was not; call again.
        """
        if not self._changed:
            return
        packed = {where: None if value is None else self._pack(value) for where, value in self._changed.items()}
        for (partition, key), value in packed.items():
            self._publisher.send_raw(self._changelog, value, key.encode(), partition)
        self._publisher.flush()
        for (partition, key), value in packed.items():
            if value is None:
                self._packed[partition].pop(key, None)
            else:
                self._packed[partition][key] = value
        self._changed.clear()

    def drop(self, partitions: Collection[int]) -> None:
        """Forget partitions, unwritten changes too: they are another worker's."""
        for partition in partitions:
            self._packed.pop(partition, None)
        self._changed = {where: value for where, value in self._changed.items() if where[0] not in partitions}

    def recover(self, partitions: Collection[int]) -> None:
        """Read partitions back from the changelog.

        Raises:
            UnavailableError: The broker does not answer; call again.
        """
        found: dict[int, dict[str, bytes]] = {partition: {} for partition in partitions}
        name = topic_name(self._settings, self._changelog)
        for message in whole_log(self._settings, name, partitions):
            values = found[message.partition]
            if message.value is None:
                values.pop(message.key.decode(), None)
            else:
                values[message.key.decode()] = message.value
        self._packed |= found
        log.info("%s: %d entries of partitions %s", name, sum(map(len, found.values())), sorted(partitions))
