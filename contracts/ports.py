"""The ports: what a stage needs from outside, as protocols. One implementation is chosen in `streams.wiring`.

Shapes: B texts or rows, d_text encoder size, d_aug size of an augmented vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from contracts.codec import Record
from contracts.records import Knowledge, KnowledgeRequest, Tier
from contracts.topics import Topic

Matrix = NDArray[np.float32]


class TextEncoder(Protocol):
    """A frozen text encoder. Equal texts give equal vectors, whatever else is in the batch (to 1e-5)."""

    @property
    def name(self) -> str:
        """Name and runtime, as it travels with every vector."""
        ...

    @property
    def dim(self) -> int:
        """d_text."""
        ...

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors of unit length, (B, d_text) float32, in the order of ``texts``."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VectorRow:
    """One row of a vector collection. ``document`` is JSON that travels with the vector (factor texts), or empty."""

    subject: str
    vector: Matrix  # (d,)
    tier: Tier
    as_of_ms: int
    trigger_ms: int = 0
    source_hash: str = ""
    text_hash: str = ""
    document: str = ""


class VectorStore(Protocol):
    """One collection of vectors by subject. One writer per collection; every write is an upsert by subject.

    All methods raise `contracts.errors.UnavailableError` where the store does not answer in time.
    """

    @property
    def dim(self) -> int:
        """Length of every vector in the collection."""
        ...

    def upsert(self, rows: Sequence[VectorRow]) -> None:
        """Write rows, last one per subject wins. Raises `VectorError` for a wrong size, NaN or infinity (nothing is written)."""
        ...

    def fetch(self, subjects: Sequence[str]) -> dict[str, VectorRow]:
        """Rows by subject; what is not there is absent. Sees every earlier upsert."""
        ...

    def delete(self, subjects: Sequence[str]) -> None:
        """Forget subjects; unknown ones are ignored."""
        ...

    def scan(self, batch: int = 1000) -> Iterator[list[VectorRow]]:
        """Every row, in batches, each subject once."""
        ...

    def search(self, vector: Matrix, k: int, kind: str) -> list[tuple[str, float]]:
        """The k nearest subjects of a kind (item, user, cluster) by inner product, best first: (subject, score)."""
        ...

    def count(self) -> int:
        """Number of rows."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class KnowledgeBackend(Protocol):
    """Something that turns a request into knowledge: a language model, or the subject's own attributes."""

    @property
    def tier(self) -> Tier:
        """The tier of what it makes: where better knowledge stands already, it need not be asked."""
        ...

    def known(self, request: KnowledgeRequest) -> Knowledge | None:
        """An answer that is there without asking, such as a kept one; None where there is none."""
        ...

    async def ready(self) -> None:
        """Return when a request would be sent at once: what is asked later waits here, not in the backend."""
        ...

    async def extract(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge for one subject.

        Raises:
            AnswerError: The answer is not what the scenario asks for, also after the one retry.
            UnavailableError: The model server does not answer, after retries; nothing was lost.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class Publisher(Protocol):
    """Sends records to topics, keyed as the topic says."""

    def send(self, topic: Topic, record: Record) -> None:
        """Send one record; buffered. Blocks when the buffer is full (back-pressure)."""
        ...

    def tombstone(self, topic: Topic, key: str) -> None:
        """Send a deletion for a key of a compacted topic."""
        ...

    def flush(self) -> None:
        """Return when everything sent so far is acknowledged. Raises `UnavailableError` otherwise."""
        ...
