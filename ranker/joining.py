"""Rankings x interactions -> labelled impressions: what closes the loop. One `ImpressionJoiner` per partition, fed in offset order.

What an impression says is a function of the two logs alone, not of how they were interleaved:

* An interaction counts for the ranking it names if it is by the ranking's user, on one of its items, less than ``window_ms`` after it
  (clocks may differ by ``lateness_ms``), and stands in the interactions log before that log's own watermark (the highest event
  time so far, less ``lateness_ms``) reached the window's end. Others are late, and counted.
* A ranking closes when that watermark reaches its window's end, or with the interaction that labels its last unlabelled item.
* A ranking counts if it stands in the rankings log before that log's watermark reached its window's end; the first of an id counts.

`low_watermarks` names offsets from which a new joiner comes to the same impressions. A watermark is a maximum over the past, so not every
offset will do: only records higher than all before them, from which the maximum is the true one again (`_Highs`).

Two things depend on more than the logs, and are counted: `advance` (wall-clock time for an idle partition), and the bound ``max_open``, beyond
which the oldest ranking closes early and the oldest interactions without a ranking are dropped.

Threads: one.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from contracts.actions import liked
from contracts.records import Impression, LabelledItem

if TYPE_CHECKING:
    from contracts.records import InteractionEvent, Ranking

_NEVER = -1
_HIGHS_KEPT = 10_000  # per log; beyond it every second one goes, and a restart reads a little more


@dataclass(slots=True)
class JoinCounts:
    """What an `ImpressionJoiner` counts since it was made."""

    impressions: int = 0
    labelled: int = 0  # interactions that set a label
    late_interactions: int = 0  # after their ranking's window had closed
    late_rankings: int = 0  # after their window had closed, or an id that was already there
    unmatched: int = 0  # by another user, on another item, outside the window, or naming a ranking that never came
    closed_early: int = 0  # by the bound
    dropped: int = 0  # interactions waiting for their ranking, by the bound


class _Highs:
    """One log's progress: next offset, highest event time, and the records that were higher than all before them."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.max_ms = _NEVER
        self._highs: list[int] = []  # offsets, ascending

    def move(self, offset: int, event_ms: int) -> None:
        self.next_offset = offset + 1
        if event_ms > self.max_ms:
            self.max_ms = event_ms
            self._highs.append(offset)
            if len(self._highs) > _HIGHS_KEPT:
                self._highs = self._highs[::2]

    def resume_at(self, needed: int) -> int:
        """The last record at or before ``needed`` from which the maximum comes out the same; forgets those before it."""
        at = bisect_right(self._highs, needed)
        if at == 0:
            return min(needed, self.next_offset)
        self._highs = self._highs[at - 1 :]
        return self._highs[0]


@dataclass(slots=True)
class _Open:
    offset: int
    ranking: Ranking
    end_ms: int
    labels: dict[str, float | None] = field(default_factory=dict)
    unlabelled: int = 0
    needs: int | None = None  # offset of the first interaction that set a label
    closed: bool = False
    returned: bool = False

    def impression(self) -> Impression:
        ranking = self.ranking
        items = tuple(
            LabelledItem(item=scored.item, label=self.labels[scored.item] or 0.0, score=scored.score, position=position)
            for position, scored in enumerate(ranking.items)
        )
        return Impression(
            ranking=ranking.ranking,
            user=ranking.user,
            items=items,
            version=ranking.version,
            step=ranking.step,
            event_ms=ranking.event_ms,
            snapshot=ranking.snapshot,
        )


@dataclass(slots=True)
class _Waiting:
    offset: int
    event: InteractionEvent
    watermark_ms: int  # of the interactions log before it


class ImpressionJoiner:
    """Joins one partition.

    Args:
        window_ms: Event time after a ranking in which interactions count.
        lateness_ms: Event time by which records of one log may arrive out of order.
        max_open: Bound on open rankings, and on interactions that wait for theirs.
    """

    def __init__(self, window_ms: int, lateness_ms: int, max_open: int) -> None:
        self.counts = JoinCounts()
        self._window_ms = window_ms
        self._lateness_ms = lateness_ms
        self._max_open = max_open
        self._rankings_log = _Highs()
        self._interactions_log = _Highs()
        self._rankings: dict[str, _Open] = {}  # in offset order; closed ones until nothing can name them again
        self._n_open = 0
        self._ends: list[tuple[int, int, str]] = []  # heap of (end_ms, offset, ranking)
        self._waiting: dict[str, list[_Waiting]] = {}  # by a ranking that is not here yet
        self._waiting_order: deque[tuple[int, str]] = deque()  # (offset, ranking), oldest first
        self._ready: list[_Open] = []
        self._idle_watermark_ms = _NEVER

    def add_ranking(self, offset: int, ranking: Ranking) -> None:
        """The next record of the rankings log; an offset that was already seen has no effect."""
        log = self._rankings_log
        if offset < log.next_offset:
            return
        late = self._watermark(log) >= ranking.event_ms + self._window_ms or ranking.ranking in self._rankings
        log.move(offset, ranking.event_ms)
        if late or not ranking.items:
            self.counts.late_rankings += late
            return
        opened = _Open(offset=offset, ranking=ranking, end_ms=ranking.event_ms + self._window_ms)
        opened.labels = {scored.item: None for scored in ranking.items}
        opened.unlabelled = len(opened.labels)
        self._rankings[ranking.ranking] = opened
        self._n_open += 1
        heappush(self._ends, (opened.end_ms, offset, ranking.ranking))
        for waiting in self._waiting.pop(ranking.ranking, ()):
            self._label(opened, waiting)
        self._keep_bounds()

    def add_interaction(self, offset: int, event: InteractionEvent) -> None:
        """The next record of the interactions log; an offset that was already seen has no effect."""
        log = self._interactions_log
        if offset < log.next_offset:
            return
        arrived = _Waiting(offset=offset, event=event, watermark_ms=self._watermark(log))
        log.move(offset, event.event_ms)
        if event.ranking is None or liked(event.action, event.value) is None:
            return
        known = self._rankings.get(event.ranking)
        if known is not None:
            self._label(known, arrived)
        elif self._could_still_come(event):
            self._waiting.setdefault(event.ranking, []).append(arrived)
            self._waiting_order.append((offset, event.ranking))
            self._keep_bounds()
        else:
            self.counts.late_interactions += 1

    def advance(self, wall_idle_ms: int) -> None:
        """Let wall-clock time pass: both logs are read to their ends, and nothing came for ``wall_idle_ms``."""
        newest_ms = max(self._rankings_log.max_ms, self._interactions_log.max_ms)
        if newest_ms != _NEVER:
            self._idle_watermark_ms = max(self._idle_watermark_ms, newest_ms + wall_idle_ms - self._lateness_ms)

    def closed(self) -> list[Impression]:
        """Impressions that closed since the last call, the earliest window first. Publish them before `low_watermarks` is committed."""
        watermark_ms = max(self._watermark(self._interactions_log), self._idle_watermark_ms)
        while self._ends and self._ends[0][0] <= watermark_ms:
            _, offset, name = heappop(self._ends)
            known = self._rankings.get(name)
            if known is not None and known.offset == offset:
                self._close(known)
        done, self._ready = sorted(self._ready, key=lambda one: (one.end_ms, one.offset)), []
        for one in done:
            one.returned = True
        self.counts.impressions += len(done)
        self._forget()
        return [one.impression() for one in done]

    def low_watermarks(self) -> tuple[int, int]:
        """Offsets (rankings, interactions) from which a new joiner comes to the same state: commit them after what `closed` returned is published."""
        needed = min((one.offset for one in self._rankings.values() if not one.returned), default=self._rankings_log.next_offset)
        low_rankings = self._rankings_log.resume_at(needed)
        needs = [one.needs for one in self._rankings.values() if one.needs is not None and one.offset >= low_rankings]
        needs.extend(waiting[0].offset for waiting in self._waiting.values())
        low_interactions = self._interactions_log.resume_at(min(needs, default=self._interactions_log.next_offset))
        return low_rankings, low_interactions
