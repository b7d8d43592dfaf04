"""A text encoder without a model: a text's vector is drawn from its hash. It counts, and fails on demand."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from contracts.ports import Matrix


class HashEncoder:
    """Unit vectors that depend on the text alone.

    Attributes:
        encoded: Every text that was asked for, in order.
        fail_after: How many more calls are answered before one raises `KeyboardInterrupt`, as a kill would; None: all.
        spoil: Put into the first vector of every answer, if not None.
    """

    def __init__(self, name: str = "fake/hash", dim: int = 8) -> None:
        self.name = name
        self.dim = dim
        self.encoded: list[str] = []
        self.fail_after: int | None = None
        self.spoil: float | None = None

    def encode(self, texts: Sequence[str]) -> Matrix:
        """Vectors (B, d_text)."""
        if self.fail_after is not None:
            if self.fail_after == 0:
                raise KeyboardInterrupt
            self.fail_after -= 1
        self.encoded += texts
        vectors = np.array([self.vector(text) for text in texts], np.float32)
        if self.spoil is not None:
            vectors[0, 0] = self.spoil
        return vectors

    def vector(self, text: str) -> Matrix:
        """What a text gets, (d_text,)."""
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
        drawn = np.random.default_rng(seed).standard_normal(self.dim).astype(np.float32)
        return np.asarray(drawn / np.linalg.norm(drawn), np.float32)
