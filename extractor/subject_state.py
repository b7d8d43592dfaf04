"""What extraction keeps of a subject, and what a request, an import and an answer mean beside it. Pure functions."""

from __future__ import annotations

import msgspec

from contracts.records import Knowledge, KnowledgeRequest, Tier
from contracts.subjects import split_subject

Standing = tuple[Tier, int, str]
"""What decides between two answers about one subject: tier, as_of_ms, source_hash (`contracts.precedence`)."""


def standing(made: Knowledge) -> Standing:
    """What decides about an answer."""
    return made.tier, made.as_of_ms, made.source_hash


class Subject(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What extraction keeps of a subject.

    ``asked`` is its last request, from ``offset`` of its partition, with its text only as long as a better answer than what
    stands may need it. ``said`` is the summary of what stands where a language model wrote it, for the next update.
    """

    imported: Knowledge | None = None
    asked: KnowledgeRequest | None = None
    offset: int = -1
    waiting: bool = False
    stands: Standing | None = None
    said: str = ""
    cluster: str = ""


def usable_import(request: KnowledgeRequest, imported: Knowledge) -> bool:
    """Whether imported knowledge answers this request.

    A user's must not have seen anything later than the request (leak guard). An item's must be about this very content, or not
    say what it was made from.
    """
    if imported.subject != request.subject:
        return False
    if split_subject(request.subject)[0] == "user":
        return imported.as_of_ms <= request.as_of_ms
    return imported.source_hash in {"", request.source_hash}


def dated(request: KnowledgeRequest, offset: int, before: Subject) -> KnowledgeRequest:
    """A request about changed content, dated after what stands.

    A cluster's text bears the date at which the cluster was asked about, and the change may have lain on Kafka until after that.
    """
    if before.stands is None or before.stands[0] != "collective" or offset < before.offset:
        return request
    if split_subject(request.subject)[0] != "item" or request.source_hash == before.stands[2]:
        return request
    return msgspec.structs.replace(request, as_of_ms=max(request.as_of_ms, before.stands[1] + 1))


def is_cluster(subject: str) -> bool:
    """Whether a subject is a cluster, about which nothing is known but what its members are."""
    return split_subject(subject)[0] == "cluster"


def has_text(state: Subject) -> bool:
    """Whether there is still what a tier below could be made from."""
    return state.asked is not None and (state.asked.item is not None or bool(state.asked.history))
