"""The document that stands beside an encoder vector: the knowledge as text, and what stood for its subject before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from contracts.ports import VectorRow
from contracts.precedence import supersedes
from contracts.records import Knowledge, Tier
from hein.stores.rows import MAX_DOCUMENT_BYTES

MAX_VERSIONS: Final = 10
MAX_SUMMARY_CHARS: Final = 200
_CUT: Final = 64  # characters of a factor that always stay
_json: Final = msgspec.json.Encoder()


class Version(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of knowledge that stood once, without its factor texts; ``summary`` has at most 200 characters."""

    tier: Tier
    as_of_ms: int
    trigger_ms: int = 0
    model: str = ""
    prompt_version: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    summary: str = ""

    @classmethod
    def of(cls, made: Knowledge) -> Version:
        """What is kept of a piece of knowledge."""
        return cls(
            tier=made.tier,
            as_of_ms=made.as_of_ms,
            trigger_ms=made.trigger_ms,
            model=made.model,
            prompt_version=made.prompt_version,
            tokens_in=made.tokens_in,
            tokens_out=made.tokens_out,
            summary=made.summary[:MAX_SUMMARY_CHARS],
        )


class Document(Knowledge, frozen=True, kw_only=True):
    """Knowledge with the last ten pieces that stood before it, newest first. Reads as plain `Knowledge` too."""

    versions: tuple[Version, ...] = ()


class _Past(msgspec.Struct):
    """What the history needs of a document; the rest is skipped."""

    model: str = ""
    prompt_version: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    summary: str = ""
    versions: tuple[Version, ...] = ()


_documents: Final = msgspec.json.Decoder(Document)
_pasts: Final = msgspec.json.Decoder(_Past)


def read_document(text: str) -> Document:
    """The document of a row; one that was written before there were versions has none.

    Raises:
        msgspec.DecodeError: It is none.
    """
    return _documents.decode(text)


def write_document(made: Knowledge, versions: tuple[Version, ...]) -> tuple[str, bool]:
    """The document for a row, and whether its factor texts were cut to fit: the oldest versions go first.

    Args:
        made: What stands.
        versions: What stood before it, newest first.
    """
    document = Document(**msgspec.structs.asdict(made), versions=versions[:MAX_VERSIONS])
    raw = _json.encode(document)
    while len(raw) > MAX_DOCUMENT_BYTES and document.versions:
        document = msgspec.structs.replace(document, versions=document.versions[:-1])
        raw = _json.encode(document)
    longest = max(map(len, made.factors.values()), default=0)
    is_cut = len(raw) > MAX_DOCUMENT_BYTES
    while len(raw) > MAX_DOCUMENT_BYTES and longest > _CUT:
        longest //= 2
        factors = {factor: text[:longest] for factor, text in made.factors.items()}
        raw = _json.encode(msgspec.structs.replace(document, factors=factors))
    return raw.decode(), is_cut


def versions_before(records: Iterable[Knowledge], row: VectorRow | None) -> tuple[Version, ...]:
    """What stood before that which stands after these records, newest first, at most ten: however they are cut into batches.

    Args:
        records: Of one subject, as they came.
        row: What the store holds of it.
    """
    before, stands = _stood(row) if row is not None else ((), None)
    key = (row.tier, row.as_of_ms, row.source_hash) if row is not None else None
    for record in records:
        new = record.tier, record.as_of_ms, record.source_hash
        if supersedes(record.subject, new, key):
            before = (stands, *before)[:MAX_VERSIONS] if stands else before
            stands, key = Version.of(record), new
    return before


def _stood(row: VectorRow) -> tuple[tuple[Version, ...], Version]:
    """The versions that a row carries, and what it holds as one more."""
    try:
        past = _pasts.decode(row.document)
    except msgspec.DecodeError:  # empty or damaged: a history is not worth holding up what is new
        past = _Past()
    stands = Version(
        tier=row.tier,
        as_of_ms=row.as_of_ms,
        trigger_ms=row.trigger_ms,
        model=past.model,
        prompt_version=past.prompt_version,
        tokens_in=past.tokens_in,
        tokens_out=past.tokens_out,
        summary=past.summary[:MAX_SUMMARY_CHARS],
    )
    return past.versions, stands
