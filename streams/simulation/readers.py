"""Simulated readers with latent tastes, position bias and drifting interests. A seed gives the same readers again.

A reader examines position p with probability (1 + p) ** -0.6 and clicks an examined article with the probability that taste and
article give; an examined article without a click is a skip, one not examined leaves no trace. A reaction depends on the
seed, the reader, the visit and what was shown only: not on the order of calls, so a replay gives the same events.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DatasetError
from contracts.records import InteractionEvent
from streams.simulation.tastes import Article, Floats, latents

DAY_MS: Final = 24 * 3600 * 1000
# share of a day's visits by hour, UTC: a morning and an evening peak
RHYTHM: Final = (1, 1, 1, 1, 1, 2, 5, 8, 8, 6, 5, 5, 6, 5, 4, 4, 5, 6, 8, 9, 9, 7, 4, 2)
_EXAMINE: Final = 0.6  # exponent of the position bias
_STEEP, _THRESHOLD = 12.0, 0.4  # of the click probability over the affinity (-1 to 1)
_DRIFT: Final = 0.1  # how far a taste moves towards a new interest in a day
_FAVOURITES: Final = 2  # articles that a taste is the mean of
_PAUSE_MS: Final = 1_500  # between two examined articles


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One reader opens the page."""

    user: str
    event_ms: int
    number: int  # of this reader's visits, from 0


class Readers:
    """Simulated readers of a set of articles.

    Args:
        seed: Of everything random.
        n: How many readers.
        articles: What there is to read; their times span the simulation.
        visits_per_day: Mean over readers; each has an own pace around it.

    Raises:
        DatasetError: There are no articles.
    """

    def __init__(self, seed: int, n: int, articles: Sequence[Article], *, visits_per_day: float = 1.0) -> None:
        if not articles:
            raise DatasetError("no articles", wanted="at least one", todo="give a file of item events")
        self._seed = seed
        self._rng = np.random.default_rng([seed, 0])
        self._rows = {article.item.item: row for row, article in enumerate(articles)}
        self._points = latents(articles)  # (n_articles, d)
        times = [article.item.published_ms for article in articles]
        self.from_ms = min(times) - min(times) % DAY_MS
        self.to_ms = max(times) + 1
        self.n_days = -(-(self.to_ms - self.from_ms) // DAY_MS)
        self.users = tuple(f"reader-{i + 1:04d}" for i in range(n))
        self._index = {user: i for i, user in enumerate(self.users)}
        self._tastes = self._draw_tastes(n)  # (n_days + 1, n, d)
        self._pace = self._rng.lognormal(np.log(visits_per_day) - 0.125, 0.5, n)  # (n,) visits a day
        self._read: dict[str, set[str]] = {}

    def visits(self) -> Iterator[Visit]:
        """Every reader's visits in time order, day by day."""
        hours = np.asarray(RHYTHM) / sum(RHYTHM)
        numbers = dict.fromkeys(self.users, 0)
        for day in range(self.n_days):
            rng = np.random.default_rng([self._seed, 1, day])
            counts: NDArray[np.int64] = rng.poisson(self._pace)
            who = np.repeat(np.arange(len(self.users)), counts)
            at_ms = (rng.choice(24, len(who), p=hours) + rng.random(len(who))) * 3_600_000
            for i in np.argsort(at_ms, kind="stable"):
                event_ms = self.from_ms + day * DAY_MS + int(at_ms[i])
                user = self.users[who[i]]
                if event_ms < self.to_ms:
                    yield Visit(user=user, event_ms=event_ms, number=numbers[user])
                    numbers[user] += 1

    def unread(self, user: str, items: Sequence[str]) -> list[str]:
        """Those of the items that this reader has not clicked yet: what a site would offer."""
        read = self._read.get(user, set())
        return [item for item in items if item not in read]

    def react(self, visit: Visit, shown: Sequence[str], ranking: str | None = None) -> list[InteractionEvent]:
        """What the reader does with the items shown, best first, in time order.

        Args:
            visit: One of `visits`.
            shown: Item ids; those that are not of these articles are never liked.
            ranking: The id of the ranking that showed them, if one did.
        """
        rng = np.random.default_rng([self._seed, 2, self._index[visit.user], visit.number])
        chance = rng.random((2, len(shown)))  # (examine or click, position)
        events: list[InteractionEvent] = []
        for position, item in enumerate(shown):
            if chance[0, position] > (1 + position) ** -_EXAMINE:
                continue
            clicked = chance[1, position] < self.affinity(visit.user, item, visit.event_ms)
            if clicked:
                self._read.setdefault(visit.user, set()).add(item)
            events.append(
                InteractionEvent(
                    user=visit.user,
                    item=item,
                    action="click" if clicked else "skip",
                    event_ms=visit.event_ms + _PAUSE_MS * (position + 1),
                    ranking=ranking,
                )
            )
        return events

    def affinity(self, user: str, item: str, event_ms: int) -> float:
        """Probability that the reader clicks the item once examined."""
        row = self._rows.get(item)
        if row is None:
            return 0.0
        days = min(max((event_ms - self.from_ms) / DAY_MS, 0.0), float(self.n_days))
        day = min(int(days), self.n_days - 1)
        before, after = self._tastes[day : day + 2, self._index[user]]
        taste = before + (days - day) * (after - before)  # (d,)
        closeness = float(self._points[row] @ taste) / float(np.linalg.norm(taste))
        return float(1 / (1 + np.exp(-_STEEP * (closeness - _THRESHOLD))))

    def _draw_tastes(self, n: int) -> Floats:
        first = self._points[self._rng.integers(len(self._points), size=(n, _FAVOURITES))].mean(axis=1)  # (n, d)
        tastes = [first]
        for _ in range(self.n_days):
            new_interest = self._points[self._rng.integers(len(self._points), size=n)]  # (n, d)
            tastes.append((1 - _DRIFT) * tastes[-1] + _DRIFT * new_interest)
        return np.stack(tastes)
