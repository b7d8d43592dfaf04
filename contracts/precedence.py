"""Which of two pieces of knowledge about one subject stands: the rule behind every idempotent write."""

from __future__ import annotations

from typing import Final

from contracts.records import Tier
from contracts.subjects import split_subject

TIER_RANK: Final[dict[Tier, int]] = {"attributes": 0, "collective": 1, "individual": 2}


def supersedes(subject: str, new: tuple[Tier, int, str], old: tuple[Tier, int, str] | None) -> bool:
    """Whether ``new`` replaces ``old``; both are (tier, as_of_ms, source_hash or "").

    An item whose content changed: the newer content wins, whatever its tier. Otherwise the better tier wins, then the newer one;
    the same again does not (a redelivered record is a no-op).
    """
    if old is None:
        return True
    new_tier, new_ms, new_hash = new
    old_tier, old_ms, old_hash = old
    kind, _ = split_subject(subject)
    if kind == "item" and new_hash and old_hash and new_hash != old_hash:
        return new_ms > old_ms
    return (TIER_RANK[new_tier], new_ms) > (TIER_RANK[old_tier], old_ms)
