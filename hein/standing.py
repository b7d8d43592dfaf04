"""Which records of a batch are to be written: the rule of `contracts.precedence`, against what the store holds.

Both stages need it: a record that supersedes is written, the one that stands already (a redelivery after a crash between the
write and the send) is sent again from the store, an older one is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, Protocol, TypeVar

from contracts.ports import VectorRow
from contracts.precedence import supersedes
from contracts.records import Tier

Key = tuple[Tier, int, str]


class Dated(Protocol):
    """What knowledge and its vectors have in common."""

    @property
    def subject(self) -> str:
        """``kind:id``."""

    @property
    def tier(self) -> Tier:
        """How the knowledge was made."""

    @property
    def as_of_ms(self) -> int:
        """Event time that the knowledge is of."""

    @property
    def source_hash(self) -> str:
        """Hash of what it was made from."""


R = TypeVar("R", bound=Dated)


@dataclass(frozen=True, slots=True)
class Standing(Generic[R]):
    """The one record of a subject that stands after the batch: ``new`` to write, ``known`` in the store already."""

    record: R
    state: Literal["new", "known"]


def standing(records: Iterable[R], stored: Mapping[str, VectorRow]) -> tuple[list[Standing[R]], int]:
    """What stands after these records, taken one after the other.

    Args:
        records: As they came.
        stored: The store's rows of their subjects, as far as there are any.

    Returns:
        One entry per subject whose record stands, in the order of those records; and the number of records that are older
        than what stands, or the same again.
    """
    keys: dict[str, Key] = {subject: _key(row) for subject, row in stored.items()}
    stands: dict[str, Standing[R]] = {}
    n_dropped = 0
    for record in records:
        subject, key = record.subject, _key(record)
        if supersedes(subject, key, keys.get(subject)):
            state: Literal["new", "known"] = "new"
        elif key == keys[subject] and subject not in stands:
            state = "known"
        else:
            n_dropped += 1
            continue
        n_dropped += stands.pop(subject, None) is not None
        keys[subject] = key
        stands[subject] = Standing(record, state)
    return list(stands.values()), n_dropped


def _key(of: Dated | VectorRow) -> Key:
    return (of.tier, of.as_of_ms, of.source_hash)
