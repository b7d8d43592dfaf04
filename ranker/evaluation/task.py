"""What an offline evaluation reads, as columns: samples, users, items and who is tested. It knows no data set.

Protocol (KAR, arXiv 2306.10933, and REKI, arXiv 2408.10520, on MovieLens-1M): a user's earliest interactions, the prefix, were
used to write knowledge; they are history and never samples. Every later interaction is a sample, with the up to 30 interactions
before it as history. Users are split, not interactions: a test user is unseen. The order inside a user is exact, so a history may
hold interactions of the same second as its sample; it never holds the sample or anything after it.

Shapes: S samples, U users, M items, H history, P prefix, L lists, K items of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranker.features import DISLIKED, LIKED, PAD

Part = Literal["train", "validation", "test"]
PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")  # the number of a part is its place here

HISTORY: Final = 30  # of a sample, and the longest prefix; arms read the last 5 or all 30
LIST_SIZE: Final = 10
SMOOTHING: Final = 10.0  # samples of the mean label that every item starts with in the initial ranking; never tuned

Ints = NDArray[np.int32]
Codes = NDArray[np.int8]
_Value = TypeVar("_Value", bound=np.generic)
Pairs = tuple[tuple[str, str], ...]  # (name, value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lists:
    """Lists to re-rank, in the initial order: the best by the initial ranking first."""

    samples: NDArray[np.int64]  # (L, K) samples of one user
    first: NDArray[np.int64]  # (L,) the earliest sample of each list: its history is the list's, so none knows a label of it
    scores: NDArray[np.float64]  # (L, K) of the initial ranking, descending


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationTask:
    """One data set under the protocol. Samples are grouped by user and in the user's order inside.

    Histories hold item rows, oldest first, 0 behind the last: what `ranker.samples.Samples.history` holds.
    """

    name: str
    licence: str
    data_hash: str  # of the raw files and of the code that read them

    user: Ints  # (S,) 0..U-1
    item: Ints  # (S,) row 1..M; row 0 is padding
    history: Ints  # (S, 30) item rows
    history_liked: Codes  # (S, 30) `LIKED`, `DISLIKED`, 0 padding
    label: NDArray[np.float32]  # (S,)
    event_ms: NDArray[np.int64]  # (S,)
    position: Ints  # (S,) place in the user's whole sequence, the prefix counted

    users: tuple[str, ...]  # (U,) ids
    part_of_user: Codes  # (U,) index into `PARTS`
    demographics: tuple[Pairs, ...]  # (U,)
    n_prefix: Ints  # (U,)
    prefix: Ints  # (U, 30) item rows, oldest first, 0 behind the last
    prefix_liked: Codes  # (U, 30)

    items: tuple[str, ...]  # (M,) ids; the item of row r is items[r - 1], and so for the next two
    titles: tuple[str, ...]  # (M,)
    attributes: tuple[Mapping[str, tuple[str, ...]], ...]  # (M,)

    def __len__(self) -> int:
        return len(self.label)

    def part(self, name: Part) -> NDArray[np.int64]:
        """The samples of a part, in order: (n,)."""
        return np.flatnonzero(self.part_of_user[self.user] == PARTS.index(name))

    def lists(self, part: Part, size: int = LIST_SIZE) -> Lists:
        """Each user's samples in order, cut into consecutive lists; what is left at a user's end is dropped.

        Args:
            part: Whose users.
            size: K, samples in a list.
        """
        index = self.part(part)
        users = self.user[index]
        starts = np.flatnonzero(np.r_[True, users[1:] != users[:-1]]) if len(index) else np.zeros(0, np.int64)
        ends = np.append(starts[1:], len(index))
        firsts = [np.arange(start, end - size + 1, size) for start, end in zip(starts, ends, strict=False)]
        first = index[np.concatenate([np.zeros(0, np.int64), *firsts])]  # (L,)
        samples = first[:, None] + np.arange(size)  # (L, K) a user's samples lie side by side
        scores = self.initial_scores()[samples]  # (L, K)
        order = np.lexsort((self.item[samples], -scores), axis=1)  # ties by item: the user's own order is not to be seen
        return Lists(
            samples=np.take_along_axis(samples, order, axis=1), first=first, scores=np.take_along_axis(scores, order, axis=1)
        )

    def initial_scores(self) -> NDArray[np.float64]:
        """The initial ranking of re-ranking lists, (S,): how much the training users like the item.

        The item's mean label over the samples of the training users, smoothed by `SMOOTHING` samples of the mean label. A
        training user's own samples of the item are left out, or the initial order of a training list would know its labels and
        that of a test list would not. Nothing of validation or test users goes in.
        """
        inside = self.part_of_user[self.user] == PARTS.index("train")  # (S,)
        rows = len(self.items) + 1
        mean = float(self.label[inside].mean()) if inside.any() else 0.5
        total = np.bincount(self.item[inside], self.label[inside], rows)[self.item]  # (S,)
        count = np.bincount(self.item[inside], minlength=rows)[self.item]  # (S,)
        _, pair = np.unique(self.user[inside].astype(np.int64) * rows + self.item[inside], return_inverse=True)
        total[inside] -= np.bincount(pair, self.label[inside])[pair]
        count[inside] -= np.bincount(pair)[pair]
        scores: NDArray[np.float64] = (total + SMOOTHING * mean) / (count + SMOOTHING)
        return scores


def recent(rows: Ints, codes: Codes, n: int) -> tuple[Ints, Codes]:
    """The last ``n`` of each history, oldest first, 0 behind the last.

    Args:
        rows: (B, H) item rows.
        codes: (B, H) what the user said.
        n: At most H.

    Returns:
        Both as (B, n).
    """
    length = (rows != PAD).sum(axis=1)
    columns = np.maximum(length - n, 0)[:, None] + np.arange(n)  # (B, n)
    inside = columns < length[:, None]
    columns = np.minimum(columns, rows.shape[1] - 1)
    last_rows = np.where(inside, np.take_along_axis(rows, columns, axis=1), PAD)
    return last_rows, np.where(inside, np.take_along_axis(codes, columns, axis=1), PAD).astype(np.int8)


def codes_of(labels: NDArray[np.bool_]) -> Codes:
    """What a history says of labels: `LIKED` or `DISLIKED`."""
    return np.where(labels, LIKED, DISLIKED).astype(np.int8)


def windows(starts: NDArray[np.int64], ends: NDArray[np.int64], values: NDArray[_Value], n: int) -> NDArray[_Value]:
    """Rows of at most the last ``n`` of ``values[start:end]``, oldest first, 0 behind the last.

    Args:
        starts: (B,) first of each slice.
        ends: (B,) one behind the last of each.
        values: (N,).
        n: Width.

    Returns:
        (B, n), of the type of ``values``.
    """
    first = np.maximum(starts, ends - n)
    length = ends - first
    out = np.zeros((len(starts), n), values.dtype)
    for column in range(n):  # by column: all at once would take an index of eight bytes a cell
        there = column < length
        out[there, column] = values[first[there] + column]
    return out
