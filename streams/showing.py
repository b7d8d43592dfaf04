"""What is known of one subject, and what stood before: what `reki knowledge show` prints.

Items and users are read from the vector store, where the text stands beside its vector; clusters have no vector and are read off
their compacted topic, which holds their earlier versions until it is compacted.
"""

from __future__ import annotations

import msgspec

from contracts.errors import RecordError
from contracts.precedence import supersedes
from contracts.records import Knowledge, Tier
from contracts.settings import Settings
from contracts.subjects import split_subject
from contracts.topics import CLUSTER_KNOWLEDGE
from hein.documents import MAX_VERSIONS, Document, Version, read_document
from streams.tail import Tail
from streams.wiring import knowledge_store


def known(settings: Settings, subject: str) -> Document | None:
    """The knowledge that stands for a subject, with its versions; None where there is none.

    Raises:
        ValueError: It is no subject.
        UnavailableError: The vector store or the broker does not answer.
        RecordError: What the store holds of it cannot be read.
    """
    kind, _ = split_subject(subject)
    return _of_cluster(settings, subject) if kind == "cluster" else _stored(settings, subject)


def _stored(settings: Settings, subject: str) -> Document | None:
    store = knowledge_store(settings)
    try:
        row = store.fetch([subject]).get(subject)
    finally:
        store.close()
    if row is None:
        return None
    try:
        return read_document(row.document)
    except msgspec.DecodeError as error:
        raise RecordError(
            f"a document of {subject} that cannot be read ({error})",
            wanted="the knowledge that encode wrote beside the vector",
            todo="send the subject again: its next knowledge replaces the row",
        ) from error


def _of_cluster(settings: Settings, subject: str) -> Document | None:
    stands: Knowledge | None = None
    versions: tuple[Version, ...] = ()
    with Tail(settings, [CLUSTER_KNOWLEDGE]) as tail:
        for one in tail.to_end():
            if one.key != subject:
                continue
            if not isinstance(one.record, Knowledge):
                stands, versions = None, ()
            elif supersedes(subject, _key(one.record), _key(stands) if stands else None):
                versions = (Version.of(stands), *versions)[:MAX_VERSIONS] if stands else ()
                stands = one.record
    return Document(**msgspec.structs.asdict(stands), versions=versions) if stands else None


def _key(made: Knowledge) -> tuple[Tier, int, str]:
    return made.tier, made.as_of_ms, made.source_hash
