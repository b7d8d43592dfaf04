"""Readers before there is a model: the page shows what is popular and what is new, the readers react. Bounded by the page."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final

import numpy as np

from contracts.records import InteractionEvent, ItemEvent
from streams.simulation.readers import DAY_MS, Readers

FRESH_MS: Final = 2 * DAY_MS  # older articles are not offered any more
PAGE: Final = 10  # articles on a page


class FrontPage:
    """The articles of the last 48 hours: half of a page by clicks so far, half by age, then shuffled."""

    def __init__(self, seed: int, items: Sequence[ItemEvent]) -> None:
        self._seed = seed
        self._items = sorted(items, key=lambda item: item.published_ms)
        self._clicks: Counter[str] = Counter()

    def candidates(self, event_ms: int) -> list[str]:
        """Ids of what was published in the last 48 hours, newest first."""
        return [i.item for i in reversed(self._items) if event_ms - FRESH_MS < i.published_ms <= event_ms]

    def page(self, candidates: Sequence[str], n: int = PAGE) -> list[str]:
        """Some of the candidates (newest first), in an order that says nothing about them: so the log is open to learn from."""
        popular = sorted(candidates, key=lambda item: -self._clicks[item])[: n // 2]
        fresh = [item for item in candidates if item not in set(popular)][: n - len(popular)]
        page = popular + fresh
        rng = np.random.default_rng([self._seed, 3, sum(self._clicks.values())])
        return [page[i] for i in rng.permutation(len(page))]

    def count(self, events: Sequence[InteractionEvent]) -> None:
        """Remember the clicks."""
        self._clicks.update(event.item for event in events if event.action == "click")


def open_loop(
    readers: Readers, items: Sequence[ItemEvent], *, seed: int, until_ms: int | None = None
) -> Iterator[ItemEvent | InteractionEvent]:
    """Items as they appear and what readers do with the front page, in event-time order.

    Args:
        readers: Who reads.
        items: What is published, in any order.
        seed: Of the page's order.
        until_ms: Stop before this event time; None: to the end.
    """
    end_ms = readers.to_ms if until_ms is None else until_ms
    front = FrontPage(seed, items)
    ticket = count()  # keeps equal times in the order in which they were made
    pending: list[tuple[int, int, ItemEvent | InteractionEvent]] = []
    for item in items:
        heapq.heappush(pending, (item.published_ms, next(ticket), item))
    visits = readers.visits()
    next_visit = next(visits, None)
    while pending or next_visit is not None:
        if next_visit is not None and (not pending or next_visit.event_ms < pending[0][0]):
            shown = front.page(readers.unread(next_visit.user, front.candidates(next_visit.event_ms)))
            reactions = readers.react(next_visit, shown)
            front.count(reactions)
            for reaction in reactions:
                heapq.heappush(pending, (reaction.event_ms, next(ticket), reaction))
            next_visit = next(visits, None)
            continue
        at_ms, _, event = heapq.heappop(pending)
        if at_ms >= end_ms:
            return
        yield event
