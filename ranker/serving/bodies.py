"""Bodies of requests and answers, decoded and encoded by msgspec: a list of 200 ids is checked in microseconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
from msgspec import Meta, Struct

from contracts.codec import FAR_FUTURE_MS
from contracts.errors import RankRequestError
from contracts.records import MAX_CANDIDATES, MAX_K, HistoryItem, Id, Ms, ScoredItem, Tier, Word

if TYPE_CHECKING:
    from contracts.records import Ranking

MAX_BODY_BYTES = 4 * 1024 * 1024  # 10,000 candidates of 256 bytes, and room
_TODO = "mend the request; docs/architecture.md shows one"

Candidates = Annotated[tuple[Id, ...], Meta(max_length=MAX_CANDIDATES)]


class RankBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/rank``. Without ``request`` an id is made up, without ``event_ms`` it is now by ``rank.clock``."""

    user: Id
    candidates: Candidates
    k: Annotated[int, Meta(ge=1, le=MAX_K)] = 20
    request: Id | None = None
    event_ms: Ms | None = None
    context: Annotated[dict[Word, Word], Meta(max_length=32)] = {}


class ExplainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of ``POST /v1/explain``."""

    user: Id
    candidates: Candidates
    event_ms: Ms | None = None


class RankAnswer(Struct, frozen=True, kw_only=True):
    """Answer of ``POST /v1/rank``: a `contracts.records.Ranking` without what only training needs."""

    ranking: str
    user: str
    items: tuple[ScoredItem, ...]
    version: int
    step: int
    event_ms: int
    took_ms: float
    unknown_user: bool
    user_tier: Tier | None
    user_knowledge_age_ms: int | None
    user_default_vector: bool
    history: tuple[HistoryItem, ...]

    @classmethod
    def of(cls, ranking: Ranking) -> RankAnswer:
        """What of a ranking goes over HTTP."""
        return cls(
            ranking=ranking.ranking,
            user=ranking.user,
            items=ranking.items,
            version=ranking.version,
            step=ranking.step,
            event_ms=ranking.event_ms,
            took_ms=ranking.took_ms,
            unknown_user=ranking.unknown_user,
            user_tier=ranking.user_tier,
            user_knowledge_age_ms=ranking.user_knowledge_age_ms,
            user_default_vector=ranking.user_default_vector,
            history=ranking.snapshot.history,
        )


B = TypeVar("B", RankBody, ExplainBody)


def decode_body(raw: bytes, as_type: type[B], now_ms: int) -> B:
    """The body of a request.

    Args:
        raw: As it came.
        as_type: What it should be.
        now_ms: Wall clock; an event time more than a day after it is refused.

    Raises:
        RankRequestError: With what was got and wanted.
    """
    fields = ", ".join(as_type.__struct_fields__)
    try:
        body = msgspec.json.decode(raw, type=as_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RankRequestError(f"{raw[:80]!r} ({error})", wanted=f"a JSON object of {fields}", todo=_TODO) from error
    if body.event_ms is not None and body.event_ms > now_ms + FAR_FUTURE_MS:
        raise RankRequestError(f"event_ms {body.event_ms}", wanted=f"at most a day after now ({now_ms} ms)", todo=_TODO)
    return body
