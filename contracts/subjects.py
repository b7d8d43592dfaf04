"""Subjects: what knowledge is about. On the wire ``kind:id``, for example ``item:n001`` or ``user:u42``."""

from __future__ import annotations

from typing import Literal, cast

Kind = Literal["item", "user", "cluster"]


def item_subject(item: str) -> str:
    """The subject of an item id."""
    return f"item:{item}"


def user_subject(user: str) -> str:
    """The subject of a user id."""
    return f"user:{user}"


def split_subject(subject: str) -> tuple[Kind, str]:
    """Kind and id of a subject: ``"item:a:b"`` -> ``("item", "a:b")``.

    Raises:
        ValueError: If there is no known kind in front.
    """
    kind, colon, ident = subject.partition(":")
    if not colon or not ident or kind not in {"item", "user", "cluster"}:
        raise ValueError(f"got subject {subject!r}; wanted item:ID, user:ID or cluster:ID")
    return cast(Kind, kind), ident
