"""What every vector store asks of a row before it writes: the same refusals, whichever store runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from contracts.errors import VectorError
from contracts.ports import Matrix, VectorRow

MAX_DOCUMENT_BYTES: Final = 65_535  # Milvus: the longest VARCHAR
MAX_HASH_BYTES: Final = 256


def checked(rows: Sequence[VectorRow], dim: int) -> list[VectorRow]:
    """The rows to write: the last one of each subject.

    Args:
        rows: As the caller gave them.
        dim: d, the length that every vector must have.

    Raises:
        VectorError: If any vector has another size or holds NaN or infinity, or a text is too long; nothing may be written then.
    """
    for row in rows:
        vector_checked(row.vector, dim, f"of {row.subject}")
        if len(row.document.encode()) > MAX_DOCUMENT_BYTES:
            raise VectorError(
                f"a document of {len(row.document.encode())} bytes with {row.subject}",
                wanted=f"at most {MAX_DOCUMENT_BYTES} bytes",
                todo="shorten it",
            )
        if max(len(row.source_hash.encode()), len(row.text_hash.encode())) > MAX_HASH_BYTES:
            raise VectorError(f"an overlong hash with {row.subject}", wanted=f"at most {MAX_HASH_BYTES} bytes", todo="shorten it")
    return list({row.subject: row for row in rows}.values())


def vector_checked(vector: Matrix, dim: int, of: str = "to search for") -> Matrix:
    """The vector, (d,) float32.

    Raises:
        VectorError: If it has another size or holds NaN or infinity.
    """
    if vector.shape != (dim,):
        raise VectorError(
            f"a vector of shape {vector.shape} {of}", wanted=f"({dim},)", todo="use the encoder and version it is for"
        )
    if not np.isfinite(vector).all():
        raise VectorError(f"NaN or infinity in the vector {of}", wanted="finite numbers", todo="look at the model that made it")
    return vector.astype(np.float32, copy=False)
