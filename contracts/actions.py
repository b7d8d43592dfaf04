"""What an action says about taste: the one place where an interaction becomes a label."""

from __future__ import annotations

from contracts.records import Action

LIKED_ABOVE = 3.0  # MovieLens protocol of KAR and REKI: a rating above 3 is positive

_LIKED: dict[Action, bool | None] = {
    "click": True,
    "read": True,
    "like": True,
    "purchase": True,
    "share": True,
    "skip": False,
    "dislike": False,
    "view": None,
    "rate": None,
}


def liked(action: Action, value: float | None) -> bool | None:
    """Whether the user liked the item: None where the action does not say (a mere view).

    Args:
        action: What the user did.
        value: The rating for ``rate`` (stars); ignored for the others.
    """
    if action == "rate":
        return None if value is None else value > LIKED_ABOVE
    return _LIKED[action]
