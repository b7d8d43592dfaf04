"""Clusters of items or users, learnt one vector at a time: river's k-means on the projected encoder vectors.

river draws its first centres at random. On MovieLens-1M (items' attributes, and a language model's texts about users) that leaves
18 and 8 of 100 clusters with members, one of them with nearly all. Here vectors of the stream become the first centres, one for
every ``min_members`` vectors, so that few subjects make few clusters: all 100 have members, the largest 5 and 3 %, and the mean
squared distance to the nearest centre is 5 and 4 % above that of Lloyd's algorithm over all vectors at once
(``benchmarks/bench_clusters.py --quality``).

B vectors, C centres.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from contracts.records import Cluster
from extractor.assignment import MemberKind, centre_of, cluster_subject, nearest_rows, split_cluster
from extractor.centres import Centres

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from contracts.ports import Matrix
    from contracts.records import Tier
    from contracts.settings import Collective

ClusterReason = Literal["new_cluster", "moved_cluster", "grown_cluster"]

CANDIDATES: Final = 4  # times `members_shown`: kept per cluster, since the nearest of today are not those of tomorrow
MAX_MEMBERS: Final = 500_000  # as `plan.max_vectors`; about 300 bytes each


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A cluster that is to be asked about. ``members`` are subjects, the nearest to the centre first, more than a prompt shows.

    ``staleness`` is how much of what was said of the cluster is out of date: 1 where nothing was said yet.
    """

    cluster: Cluster
    reason: ClusterReason
    staleness: float
    members: tuple[str, ...]


class _Place(NamedTuple):
    row: int
    seen: int  # hash of the vector learnt last; 0 where it was placed without learning


class Clustering:
    """The clusters of one kind in one space.

    Args:
        kind: What its members are.
        n_clusters: At most.
        settings: When a cluster is asked about.
        space: Of `extractor.projection.space`; vectors of another space must not be given.
        first_number: Of the first cluster: numbers are not used again for another space, because knowledge hangs on them.
        max_members: Subjects remembered; beyond it the one heard of longest ago is no longer counted.
    """

    def __init__(  # noqa: PLR0913 two of them have defaults and are keywords
        self,
        kind: MemberKind,
        n_clusters: int,
        settings: Collective,
        space: str,
        *,
        first_number: int = 0,
        max_members: int = MAX_MEMBERS,
    ) -> None:
        self.kind = kind
        self.space = space
        self._settings = settings
        self._kept = CANDIDATES * settings.members_shown
        self._max_members = max_members
        self._first_number = first_number
        self._centres = Centres(n_clusters)
        self._rows: list[_Row] = []
        self._members: OrderedDict[str, _Place] = OrderedDict()
        self._changed: set[int] = set()
        self._n_learnt = 0

    def __len__(self) -> int:
        """Number of clusters so far."""
        return len(self._rows)

    @property
    def n_members(self) -> int:
        """Subjects that are remembered."""
        return len(self._members)

    @property
    def next_number(self) -> int:
        """The lowest number above all in use."""
        return max((row.number for row in self._rows), default=self._first_number - 1) + 1

    def restore(self, clusters: Iterable[Cluster]) -> list[str]:
        """Take over clusters as `changed` gave them; before anything is learnt. Their members are not in there: `place` them.

        Args:
            clusters: Of this kind and space.

        Returns:
            Subjects that are too many for ``n_clusters``: they are gone.

        Raises:
            ValueError: A cluster of another kind or space.
            VectorError: A centre is not one of this projection.
        """
        left_over = []
        for cluster in sorted(clusters, key=lambda one: split_cluster(one.subject)):
            kind, number = split_cluster(cluster.subject)
            if (kind, cluster.space) != (self.kind, self.space):
                raise ValueError(f"got {cluster.subject} in {cluster.space}; wanted {self.kind} in {self.space}")
            centre = centre_of(cluster.centre)
            if self._centres.full:
                left_over.append(cluster.subject)
                continue
            self._centres.open(centre, cluster.n_learnt)
            asked = centre_of(cluster.asked_centre) if cluster.asked_centre else None
            self._rows.append(_Row(number, as_of_ms=cluster.as_of_ms, asked_centre=asked, asked_n=cluster.asked_n_members))
            self._n_learnt += cluster.n_learnt
        return left_over

    def place(self, subjects: Sequence[str], vectors: Matrix) -> None:
        """Count subjects as members of the cluster nearest to their vectors; nothing is learnt. For the start, after `restore`.

        Args:
            subjects: B of them; those who are members already stay where they are.
            vectors: (B, 32).
        """
        if not self._rows or not len(subjects):
            return
        rows = nearest_rows(vectors, self._centres.matrix.astype(np.float32))
        for subject, row, vector in zip(subjects, rows.tolist(), vectors, strict=True):
            if subject not in self._members and vector.any():
                self._join(subject, _Place(row, 0), vector)

    def learn_many(self, subjects: Sequence[str], vectors: Matrix, as_of_ms: Sequence[int], tiers: Sequence[Tier]) -> None:
        """Move the centres nearest to some vectors, one after the other, and count their subjects as members.

        Passed over: tier ``collective`` (the text is the cluster's own: it would pull the centre to where it stands), the
        vector that was last learnt of the same subject, and zero vectors.

        Args:
            subjects: B of them, of this kind.
            vectors: (B, 32), of this space.
            as_of_ms: Event time of each.
            tiers: How each one's knowledge was made.
        """
        for subject, vector, at_ms, tier in zip(subjects, vectors, as_of_ms, tiers, strict=True):
            if tier == "collective" or not vector.any():
                continue
            seen = hash(vector.tobytes())
            known = self._members.get(subject)
            if known is None or known.seen != seen:
                row = self._learn_one(vector)
                self._rows[row].as_of_ms = max(self._rows[row].as_of_ms, at_ms)
                self._join(subject, _Place(row, seen), vector)

    def forget(self, subjects: Iterable[str]) -> None:
        """Take subjects out of their clusters (their items were removed); the centres stay."""
        for subject in subjects:
            self._leave(subject)

    def changed(self) -> list[Cluster]:
        """Every cluster that is not as the last call gave it."""
        rows, self._changed = sorted(self._changed), set()
        return [self._cluster(row) for row in rows]

    def clusters(self) -> list[Cluster]:
        """Every cluster as it is now."""
        return [self._cluster(row) for row in range(len(self._rows))]

    def due(self) -> list[Due]:
        """The clusters to be asked about now: new ones, and those that moved or grew since `asked`."""
        found = []
        matrix = self._centres.matrix
        spread = _mean_distance(matrix)
        for number, row in enumerate(self._rows):
            if row.n_members < self._settings.min_members:
                continue
            reason, staleness = self._reason(row, matrix[number], spread)
            members = self._nearest_members(number) if reason else ()
            if reason and members:
                found.append(Due(cluster=self._cluster(number), reason=reason, staleness=staleness, members=members))
        return found

    def asked(self, due: Due, as_of_ms: int) -> None:
        """Note that a cluster was asked about as `due` gave it; `changed` tells it with the next call.

        Args:
            due: What was asked.
            as_of_ms: Of the request: the next one about this cluster must be newer to replace the answer.
        """
        number = next(n for n, row in enumerate(self._rows) if cluster_subject(self.kind, row.number) == due.cluster.subject)
        row = self._rows[number]
        row.asked_centre = centre_of(due.cluster.centre)
        row.asked_n = due.cluster.n_members
        row.as_of_ms = max(row.as_of_ms, as_of_ms)
        self._changed.add(number)

    def _learn_one(self, vector: Matrix) -> int:
        if self._opens(vector):
            row = self._centres.open(vector)
            self._rows.append(_Row(self.next_number))
        else:
            row = self._centres.learn(vector)
        self._n_learnt += 1
        self._changed.add(row)
        return row

    def _opens(self, vector: Matrix) -> bool:
        is_time = self._n_learnt >= len(self._rows) * self._settings.min_members
        return is_time and not self._centres.full and not self._centres.has(vector)

    def _join(self, subject: str, place: _Place, vector: Matrix) -> None:
        self._leave(subject)
        self._members[subject] = place
        row = self._rows[place.row]
        row.n_members += 1
        self._changed.add(place.row)
        row.near[subject] = vector
        if len(row.near) > 2 * self._kept:  # sorted once in a while, not with every vector
            row.near = dict(_by_distance(row.near, self._centres.matrix[place.row])[: self._kept])
        if len(self._members) > self._max_members:
            self._leave(next(iter(self._members)))

    def _leave(self, subject: str) -> None:
        place = self._members.pop(subject, None)
        if place is not None:
            row = self._rows[place.row]
            row.n_members -= 1
            row.near.pop(subject, None)
            self._changed.add(place.row)

    def _nearest_members(self, number: int) -> tuple[str, ...]:
        """Candidates whose nearest centre this still is, the nearest first."""
        matrix = self._centres.matrix
        near = _by_distance(self._rows[number].near, matrix[number])
        if not near:
            return ()
        rows = nearest_rows(np.stack([vector for _, vector in near]), matrix.astype(np.float32))
        return tuple(subject for (subject, _), row in zip(near, rows.tolist(), strict=True) if row == number)[: self._kept]

    def _reason(self, row: _Row, centre: NDArray[np.float64], spread: float) -> tuple[ClusterReason | None, float]:
        if row.asked_centre is None:
            return "new_cluster", 1.0
        moved = float(np.linalg.norm(centre - row.asked_centre)) / spread
        if moved >= self._settings.moved:
            return "moved_cluster", min(1.0, moved)
        if row.n_members >= self._settings.grown * row.asked_n:
            return "grown_cluster", 1 - row.asked_n / row.n_members
        return None, 0.0

    def _cluster(self, number: int) -> Cluster:
        row = self._rows[number]
        return Cluster(
            subject=cluster_subject(self.kind, row.number),
            centre=self._centres.matrix[number].astype("<f4").tobytes(),
            space=self.space,
            n_learnt=self._centres.n_learnt(number),
            n_members=row.n_members,
            as_of_ms=row.as_of_ms,
            asked_centre=b"" if row.asked_centre is None else row.asked_centre.astype("<f4").tobytes(),
            asked_n_members=row.asked_n,
        )


@dataclass(slots=True)
class _Row:
    """What is known of one cluster besides its centre. ``near``: candidates for a prompt, subjects and their vectors (32,)."""

    number: int
    n_members: int = 0
    as_of_ms: int = 0
    asked_centre: Matrix | None = None
    asked_n: int = 0
    near: dict[str, Matrix] = field(default_factory=dict)


def _by_distance(near: Mapping[str, Matrix], centre: NDArray[np.float64]) -> list[tuple[str, Matrix]]:
    if not near:
        return []
    distances = np.linalg.norm(np.stack(list(near.values())) - centre, axis=1)
    pairs = list(near.items())
    return [pairs[place] for place in np.argsort(distances, kind="stable")]


def _mean_distance(centres: NDArray[np.float64]) -> float:
    """Of two different centres (C, 32); 1, the length of the vectors, where there are no two."""
    if len(centres) < 2:  # noqa: PLR2004 a distance needs two
        return 1.0
    squares = np.einsum("cd,cd->c", centres, centres)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * centres @ centres.T, 0))  # (C, C)
    return max(float(distances.sum()) / (len(centres) * (len(centres) - 1)), 1e-9)
