"""river's k-means with its two slow or blind spots filled in: the search for the nearest centre, and the first centres.

C centres.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from river.cluster import KMeans

from extractor.projection import DIM

if TYPE_CHECKING:
    from contracts.ports import Matrix

RATE: Final = 0.02  # of a centre towards a new vector, once it is the mean of 50; 0.005 to 0.05: the same inertia within 1 %


class Centres(KMeans):
    """Incremental k-means: the nearest centre moves towards the vector, which river does; who is nearest, numpy says.

    The answer is river's own (a test compares them). river's search is a loop over every number of every centre: with it,
    100 centres learn 1,500 vectors/s, here 41,000; 400 centres 400 and 30,000 (``benchmarks/bench_clusters.py``).

    A centre is the mean of what it learnt until there are 50 vectors, and forgets from then on (Sculley, 2010, with a floor).

    Args:
        n_clusters: At most. There are none at first: `open` makes them.
    """

    def __init__(self, n_clusters: int) -> None:
        super().__init__(n_clusters=n_clusters, halflife=RATE, seed=0)
        self.centers.clear()
        self._rows = np.zeros((n_clusters, DIM))
        self._half_squares = np.zeros(n_clusters)
        self._n_learnt: list[int] = []

    @property
    def matrix(self) -> NDArray[np.float64]:
        """(C, 32)."""
        return self._rows[: len(self.centers)]

    @property
    def full(self) -> bool:
        """Whether there are as many as there may be."""
        return len(self.centers) == len(self._rows)

    def n_learnt(self, row: int) -> int:
        """Vectors that one centre learnt."""
        return self._n_learnt[row]

    def has(self, vector: Matrix) -> bool:
        """Whether a centre stands right there: it would not become two."""
        return bool((self.matrix == vector).all(axis=1).any())

    def open(self, vector: Matrix, n_learnt: int = 1) -> int:
        """A new centre at a vector (32,), and its row."""
        row = len(self.centers)
        self.centers[row] = defaultdict(float, enumerate(vector.tolist()))
        self._n_learnt.append(n_learnt)
        self._follow(row)
        return row

    def learn(self, vector: Matrix) -> int:
        """Move the centre nearest to a vector (32,); its row."""
        x = dict(enumerate(vector.tolist()))
        self.halflife = max(RATE, 1 / (self._n_learnt[self.predict_one(x)] + 1))  # river lets it be changed between vectors
        row: int = self.learn_predict_one(x)  # type: ignore[no-untyped-call]  # as above
        self._n_learnt[row] += 1
        self._follow(row)
        return row

    def predict_one(self, x: dict[Any, float]) -> int:
        """The row of the nearest centre; river's learning asks for it."""
        vector = np.fromiter(x.values(), float, DIM)
        n_centres = len(self.centers)
        return int((self._rows[:n_centres] @ vector - self._half_squares[:n_centres]).argmax())

    def _follow(self, row: int) -> None:
        self._rows[row] = np.fromiter(self.centers[row].values(), float, DIM)
        self._half_squares[row] = 0.5 * self._rows[row] @ self._rows[row]
