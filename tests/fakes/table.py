"""A table that holds its partitions at once, without a broker."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class FakeTable:
    """Stands in for `streams.roles.tables.Table`: what is put is packed at once, so that nothing can be changed behind its back.

    Attributes:
        packed: By partition and key.
        n_writes: Calls of `write`.
    """

    def __init__(self, pack: Callable[[Any], bytes], unpack: Callable[[bytes], Any], partitions: int = 2) -> None:
        self.packed: dict[int, dict[str, bytes]] = {number: {} for number in range(partitions)}
        self.n_writes = 0
        self._pack = pack
        self._unpack = unpack

    @property
    def partitions(self) -> list[int]:
        return list(self.packed)

    def get(self, partition: int, key: str) -> Any:
        packed = self.packed.get(partition, {}).get(key)
        return None if packed is None else self._unpack(packed)

    def put(self, partition: int, key: str, value: Any) -> None:
        if value is None:
            self.packed[partition].pop(key, None)
        else:
            self.packed[partition][key] = self._pack(value)

    def items(self, partition: int) -> Iterator[tuple[str, Any]]:
        return iter([(key, self._unpack(packed)) for key, packed in self.packed.get(partition, {}).items()])

    def write(self) -> None:
        self.n_writes += 1

    def drop(self, partitions: set[int]) -> None:
        for partition in partitions:
            self.packed.pop(partition, None)

    def recover(self, partitions: set[int]) -> None:
        for partition in partitions:
            self.packed[partition] = {}
