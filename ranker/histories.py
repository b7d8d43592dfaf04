"""What every user did lately, as the ranking model reads it: a bounded window per user, a bound on users.

A user's window is a set cut to its newest entries under one total order, so that neither the order in which events arrive nor a
redelivery changes it: replaying the interactions topic from any earlier offset rebuilds the same state.

Threads: `learn_many` from one writer; `of`, `knows`, `some_users` from any thread (a lock is held for one user at a time).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from itertools import islice
from threading import Lock
from typing import TYPE_CHECKING

from cachetools import LRUCache

from contracts.actions import liked
from contracts.records import HistoryItem

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from contracts.records import InteractionEvent

_SLACK = 2  # windows kept per user, so that a ranking whose time lies a little back still finds a full window before it

_Key = tuple[int, str, str, float]  # event_ms, item, action, value: the identity of an interaction and its place in the order
_Window = tuple[tuple[_Key, HistoryItem], ...]


class Histories:
    """Recent interactions per user, newest last.

    Args:
        max_users: Users held; beyond it the one not seen or asked for longest is forgotten.
        length: H, interactions that a ranking reads.
    """

    def __init__(self, max_users: int, length: int) -> None:
        self._length = length
        self._windows: LRUCache[str, _Window] = LRUCache(max_users)
        self._lock = Lock()
        self.newest_ms = 0  # highest event time that was learnt

    def __len__(self) -> int:
        return len(self._windows)

    def learn_many(self, events: Sequence[InteractionEvent]) -> None:
        """Take in interactions, in any order; again has no effect. A mere view is not history. One writer thread."""
        news: dict[str, dict[_Key, HistoryItem]] = defaultdict(dict)
        for event in events:
            said = liked(event.action, event.value)
            if said is not None:
                key = (event.event_ms, event.item, event.action, event.value or 0.0)
                news[event.user][key] = HistoryItem(item=event.item, liked=said)
                self.newest_ms = max(self.newest_ms, event.event_ms)
        for user, entries in news.items():
            with self._lock:
                self._windows[user] = self._newest((*self._windows.get(user, ()), *entries.items()))

    def of(self, user: str, before_ms: int | None = None) -> tuple[HistoryItem, ...]:
        """At most H interactions, oldest first, newest last; empty for an unknown user. Any thread.

        Args:
            user: Whose.
            before_ms: Only what happened before this time, so that a ranking never sees what came after it.
        """
        with self._lock:
            window = self._windows.get(user, ())
        end = len(window) if before_ms is None else bisect_left(window, before_ms, key=lambda entry: entry[0][0])
        return tuple(item for _, item in window[max(0, end - self._length) : end])

    def knows(self, user: str) -> bool:
        """Whether anything is held of this user. Any thread."""
        return user in self._windows

    def some_users(self, n: int) -> list[str]:
        """At most n users, in the order in which they came. Any thread."""
        with self._lock:
            return list(islice(self._windows, n))

    def _newest(self, entries: Iterable[tuple[_Key, HistoryItem]]) -> _Window:
        distinct = dict(entries)
        return tuple((key, distinct[key]) for key in sorted(distinct)[-_SLACK * self._length :])
