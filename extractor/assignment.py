"""Which cluster a vector belongs to: what every worker needs of the clusters, without the library that learns them.

B vectors, C clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.errors import VectorError
from contracts.subjects import Kind, split_subject
from extractor.projection import DIM

if TYPE_CHECKING:
    from contracts.ports import Matrix
    from contracts.records import Cluster

MemberKind = Literal["item", "user"]
KINDS: Final[tuple[MemberKind, ...]] = ("item", "user")


def cluster_subject(kind: MemberKind, number: int) -> str:
    """The subject of a cluster.

    >>> cluster_subject("item", 3)
    'cluster:item-3'
    """
    return f"cluster:{kind}-{number}"


def split_cluster(subject: str) -> tuple[MemberKind, int]:
    """What a cluster is of, and its number: ``"cluster:item-3"`` -> ``("item", 3)``.

    Raises:
        ValueError: It is no cluster's subject.
    """
    of, ident = split_subject(subject)
    kind, _, number = ident.partition("-")
    if of != "cluster" or kind not in KINDS or not number.isdecimal():
        raise ValueError(f"got subject {subject!r}; wanted cluster:item-NUMBER or cluster:user-NUMBER")
    return kind, int(number)


def centre_of(raw: bytes) -> Matrix:
    """A centre as a record carries it, (32,) float32.

    Raises:
        VectorError: It has another size, or NaN or infinity in it.
    """
    if len(raw) != 4 * DIM:
        raise VectorError(f"a centre of {len(raw)} bytes", wanted=f"{DIM} float32", todo="have the cluster role write it again")
    centre = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    if not np.isfinite(centre).all():
        raise VectorError("a centre with NaN or infinity", wanted="finite numbers", todo="have the cluster role write it again")
    return centre


def nearest_rows(vectors: Matrix, centres: Matrix) -> NDArray[np.intp]:
    """The row of the nearest centre of each vector, by Euclidean distance; the first one among equals.

    Args:
        vectors: (B, 32).
        centres: (C, 32), at least one.
    """
    closeness: Matrix = vectors @ centres.T - 0.5 * np.einsum("cd,cd->c", centres, centres)  # (B, C)
    rows: NDArray[np.intp] = closeness.argmax(axis=1)  # (B,)
    return rows


@dataclass(frozen=True, slots=True)
class _Table:
    subjects: tuple[str, ...]  # C of them
    centres: Matrix  # (C, 32)


class Assignment:
    """The centres as last heard of, by kind and space."""

    def __init__(self) -> None:
        self._clusters: dict[str, tuple[str, Matrix]] = {}  # by subject: space and centre
        self._tables: dict[tuple[Kind, str], _Table] = {}  # built when asked for

    def __len__(self) -> int:
        """Number of clusters."""
        return len(self._clusters)

    @property
    def dim(self) -> int:
        """Length of the vectors that `nearest` takes."""
        return DIM

    def apply(self, cluster: Cluster) -> None:
        """Take over the newest state of a cluster.

        Raises:
            ValueError: Its subject is no cluster's.
            VectorError: Its centre is not one of this projection.
        """
        kind, _ = split_cluster(cluster.subject)
        centre = centre_of(cluster.centre)
        self.remove(cluster.subject)
        self._clusters[cluster.subject] = cluster.space, centre
        self._tables.pop((kind, cluster.space), None)

    def remove(self, subject: str) -> None:
        """Forget a cluster; an unknown one is ignored."""
        known = self._clusters.pop(subject, None)
        if known is not None:
            self._tables.pop((split_cluster(subject)[0], known[0]), None)

    def knows(self, kind: Kind, space: str) -> bool:
        """Whether there are clusters of this kind and space."""
        return bool(self._table(kind, space).subjects)

    def nearest(self, kind: Kind, vectors: Matrix, space: str) -> list[str]:
        """The subject of the nearest cluster of each vector; empty where no cluster of this kind and space is known.

        Args:
            kind: What the vectors are of; there are no clusters of clusters.
            vectors: (B, 32), as `extractor.projection.project` gives them. A zero vector has no neighbours.
            space: Theirs, of `extractor.projection.space`.
        """
        table = self._table(kind, space)
        if not table.subjects or not len(vectors):
            return [""] * len(vectors)
        rows = nearest_rows(vectors, table.centres)
        return [table.subjects[row] if vector.any() else "" for row, vector in zip(rows.tolist(), vectors, strict=True)]

    def _table(self, kind: Kind, space: str) -> _Table:
        table = self._tables.get((kind, space))
        if table is None:
            here = (subject for subject, (where, _) in self._clusters.items() if where == space)
            subjects = tuple(sorted((one for one in here if split_cluster(one)[0] == kind), key=split_cluster))
            centres = np.array([self._clusters[subject][1] for subject in subjects], dtype=np.float32).reshape(-1, DIM)  # (C, 32)
            table = self._tables[kind, space] = _Table(subjects, centres)
        return table
