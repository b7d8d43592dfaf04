"""Encoder vectors in 32 dimensions, where clusters are learnt: a fixed random projection, the same on every machine.

Nothing is fitted, so there is nothing to publish and no order of the stream that changes it (Johnson and Lindenstrauss, 1984).
It keeps coarse neighbourhoods, which is what a cluster needs, and loses fine ones. On MovieLens-1M (384-d MiniLM vectors of the
items' attributes, and of a language model's texts about users) 26 and 12 % of the ten nearest stay among the ten nearest, 70 and
44 % among the hundred nearest; and 100 clusters learnt here have 64 and 58 % of what k-means over the 384-d vectors gains over
chance, by the mean cosine of a member to its cluster's mean (``benchmarks/bench_clusters.py --quality``).

B vectors, d_text encoder size.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Final

import numpy as np

from contracts.errors import VectorError

if TYPE_CHECKING:
    from contracts.ports import Matrix

DIM: Final = 32
_SEED: Final = 20_241_008  # any number; another one is another space
_VERSION: Final = "gauss32-1"  # raise it with every change of what `project` gives: it travels with every centre


def space(encoder: str) -> str:
    """The name of what `project` makes of this encoder's vectors: only vectors of one space can be compared.

    >>> space("all-MiniLM-L6-v2/onnx-fp32")
    'all-MiniLM-L6-v2/onnx-fp32>gauss32-1'
    """
    return f"{encoder}>{_VERSION}"


def project(vectors: Matrix) -> Matrix:
    """Unit vectors in the space where clusters live; a zero vector (a text that says nothing) stays zero.

    Args:
        vectors: (B, d_text), of one encoder.

    Returns:
        (B, 32) float32.

    Raises:
        VectorError: Not a matrix, or NaN or infinity in it.
    """
    if vectors.ndim != 2 or not vectors.shape[1] or not np.isfinite(vectors).all():  # noqa: PLR2004 a matrix has two axes
        raise VectorError(f"vectors of shape {vectors.shape}", wanted="(B, d_text) finite numbers", todo="encode the texts again")
    projected: Matrix = vectors.astype(np.float32, copy=False) @ _matrix(vectors.shape[1])  # (B, 32)
    lengths = np.linalg.norm(projected, axis=1, keepdims=True)  # (B, 1)
    units: Matrix = np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 0)
    return units


@cache
def _matrix(d_text: int) -> Matrix:
    """(d_text, 32), entries N(0, 1/32): lengths are kept on average."""
    entries = np.random.Generator(np.random.PCG64(_SEED)).standard_normal((d_text, DIM))
    return (entries / math.sqrt(DIM)).astype(np.float32)
