"""Who is asked about first: traffic x staleness, in three bands. The one place where the formula stands; higher goes first.

==========  ==========  ===============================================================================
subject     priority    within the band
==========  ==========  ===============================================================================
cluster     above 200   given by whoever follows the clusters: one answer serves many
item        100 to 200  ``200 - 100 (1 - f) 10 / (10 + t)``; freshness ``f = 1 / (1 + age in hours)``
user        0 to 99     ``99 x / (10 + x)`` with ``x = t s``
==========  ==========  ===============================================================================

``t`` is the traffic: interactions, of which one loses half of its weight in a day of event time. ``s`` is the staleness of a
user: the share of the kept history that no knowledge covers, 1 where there is none. A new item that nobody has met yet goes by
its age alone; traffic brings an older one towards the freshest. Where x or t is 10, half of the way is gone (`HALF_WAY`).
"""

from __future__ import annotations

from typing import Final

HALF_LIFE_MS: Final = 86_400_000
HALF_WAY: Final = 10.0  # interactions: a user at the default of plan.interactions_per_request, all of them in a day
CLUSTERS_ABOVE: Final = 200.0
_HOUR_MS: Final = 3_600_000
_MAX_USER: Final = 99.0


def traffic_after(traffic: float, traffic_ms: int, event_ms: int) -> tuple[float, int]:
    """Traffic with one interaction more, and the time it holds for. The order of two events makes no difference but rounding.

    Args:
        traffic: What it was, 0.0 where there was none.
        traffic_ms: The time it held for.
        event_ms: When the interaction was; it may be earlier than ``traffic_ms``.
    """
    now_ms = max(traffic_ms, event_ms)
    return traffic * _weight(now_ms - traffic_ms) + _weight(now_ms - event_ms), now_ms


def traffic_at(traffic: float, traffic_ms: int, now_ms: int) -> float:
    """What is left of the traffic at a moment; before the time it holds for, all of it.

    Args:
        traffic: What it was (`traffic_after`).
        traffic_ms: The time it held for.
        now_ms: The moment.
    """
    return traffic * _weight(max(0, now_ms - traffic_ms))


def item_priority(age_ms: int, traffic: float) -> float:
    """Of a new or changed item, 100 to 200.

    Args:
        age_ms: Since it was published; below 0 counts as 0.
        traffic: Of the item (`traffic_at`).
    """
    freshness = 1 / (1 + max(0, age_ms) / _HOUR_MS)
    return CLUSTERS_ABOVE - 100 * (1 - freshness) * HALF_WAY / (HALF_WAY + traffic)


def user_priority(traffic: float, staleness: float) -> float:
    """Of a user, 0 to 99.

    Args:
        traffic: Of the user (`traffic_after`).
        staleness: Share of the history that no knowledge covers, 0 to 1.
    """
    product = traffic * staleness
    return _MAX_USER * product / (HALF_WAY + product)


def _weight(age_ms: int) -> float:
    return float(0.5 ** (age_ms / HALF_LIFE_MS))
