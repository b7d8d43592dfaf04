"""A vector store in a dict: for tests and examples, and the plain statement of what every store must do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from contracts.ports import Matrix, VectorRow
from contracts.subjects import split_subject
from hein.stores.rows import checked, vector_checked


class MemoryVectorStore:
    """`contracts.ports.VectorStore` in this process's memory; gone with the process.

    Args:
        dim: d, the length of every vector.
    """

    def __init__(self, dim: int) -> None:
        self._dim = dim
        self._rows: dict[str, VectorRow] = {}

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return self._dim

    def upsert(self, rows: Sequence[VectorRow]) -> None:
        """Write rows, last one per subject wins."""
        for row in checked(rows, self._dim):
            self._rows[row.subject] = replace(row, vector=row.vector.astype(np.float32))

    def fetch(self, subjects: Sequence[str]) -> dict[str, VectorRow]:
        """Rows by subject; what is not there is absent."""
        return {subject: _copy(self._rows[subject]) for subject in subjects if subject in self._rows}

    def delete(self, subjects: Sequence[str]) -> None:
        """Forget subjects; unknown ones are ignored."""
        for subject in subjects:
            self._rows.pop(subject, None)

    def scan(self, batch: int = 1000) -> Iterator[list[VectorRow]]:
        """Every row, in batches, each subject once."""
        rows = list(self._rows.values())
        for start in range(0, len(rows), batch):
            yield [_copy(row) for row in rows[start : start + batch]]

    def search(self, vector: Matrix, k: int, kind: str) -> list[tuple[str, float]]:
        """The k nearest subjects of a kind by inner product, best first."""
        query = vector_checked(vector, self._dim)
        rows = [row for row in self._rows.values() if split_subject(row.subject)[0] == kind]
        scored = [(row.subject, float(row.vector @ query)) for row in rows]
        return sorted(scored, key=lambda pair: -pair[1])[:k]

    def count(self) -> int:
        """Number of rows."""
        return len(self._rows)

    def close(self) -> None:
        """Nothing to let go of."""


def _copy(row: VectorRow) -> VectorRow:
    return replace(row, vector=row.vector.copy())
