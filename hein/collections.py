"""Names of the vector collections. Apart from the stages, so that a light role can name one without importing torch."""

from __future__ import annotations


def knowledge_collection(prefix: str) -> str:
    """The collection of encoder vectors; they do not depend on a model version."""
    return f"{prefix}knowledge"


def augmented_collection(prefix: str, version: int) -> str:
    """The collection of the augmented vectors of one model version: ``augmented_v<n>``."""
    return f"{prefix}augmented_v{version}"
