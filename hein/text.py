"""What the encoder reads of a piece of knowledge. One place, because the same words must give the same vector everywhere."""

from __future__ import annotations

import hashlib

from contracts.records import Knowledge


def knowledge_text(knowledge: Knowledge) -> str:
    r"""The summary, then one line ``factor: text`` per factor, by name: the order in which a model answered does not matter.

    Blank parts are left out, so knowledge that says nothing is the empty text.

    >>> knowledge_text(Knowledge(subject="item:1", factors={"tone": "dry", "genre": "satire"}, summary="A farce.",
    ...     tier="individual", backend="openai", scenario="news", prompt_version="1", model="m", as_of_ms=0))
    'A farce.\ngenre: satire\ntone: dry'
    """
    lines = [f"{factor}: {text.strip()}" for factor, text in sorted(knowledge.factors.items()) if text.strip()]
    summary = knowledge.summary.strip()
    return "\n".join([summary, *lines] if summary else lines)


def text_hash(text: str) -> str:
    """128 bits of BLAKE2 of a text, as hex: equal for equal texts only."""
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
