"""Rankings x interactions -> labelled impressions: what closes the loop.

One `ImpressionJoiner` per partition, fed in offset order.

What an impression says is a function of the two logs alone, not of how they were interleaved:

* An interaction counts for the ranking it names if it is by the ranking's user, on one of its items, less than ``window_ms``
  after it (clocks may differ by ``lateness_ms``), and stands in the interactions log before that log's own watermark (the
  highest event time so far, less ``lateness_ms``) reached the window's end. Others are late, and counted.
* A record moves its log's watermark to the broker's time of the record, plus ``lateness_ms``, at most: one clock that is a day
  ahead must not close every window. The broker's time stands in the log, so a second reading comes to the same.
* A ranking closes when that watermark reaches its window's end, or with the interaction that labels its last unlabelled item.
* A ranking counts if it stands in the rankings log before that log's watermark reached its window's end. Of several with one id
  (and so one time: they answer one request) the first counts.
* An item is taken as looked at if it, or one below it, has an event, a mere view included ("skip above": Joachims et al., SIGIR
  2005). Such an item without a label is a 0; items below the last one with an event are left out, since nothing says that they
  were seen: as zeros they would teach the model its own order. A ranking without any event gives no impression (``unseen``).

`low_watermarks` names offsets from which a new joiner comes to the same impressions. A watermark is a maximum over the past, so
not every offset will do: only records higher than all before them, from which the maximum is the true one again (`_Log`).

Two things depend on more than the logs, and are counted: `advance` (wall-clock time for an idle partition; after a restart the
same ranking may close by the log, with more labels), and the bound ``max_open``, beyond which the oldest ranking closes early and
the oldest interactions without a ranking are dropped.

Threads: one.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
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
    unseen: int = 0  # rankings without any event: no impression
    labelled: int = 0  # interactions that set a label
    late_interactions: int = 0  # after their ranking's window had closed
    late_rankings: int = 0  # after their window had closed, or an id that was already there
    unmatched: int = 0  # by another user, on another item, outside the window, or naming a ranking that never came
    closed_early: int = 0  # by the bound
    closed_idle: int = 0  # by the wall clock
    dropped: int = 0  # interactions waiting for their ranking, by the bound


class _Log:
    """One log's progress: next offset, highest event time (bounded), and the records that were higher than all before them."""

    def __init__(self) -> None:
        self.next_offset = 0
        self.max_ms = _NEVER
        self._highs: list[int] = []  # offsets, ascending

    def move(self, offset: int, event_ms: int, latest_ms: int | None) -> None:
        """One record on; it moves the maximum to ``latest_ms`` at most."""
        self.next_offset = offset + 1
        event_ms = event_ms if latest_ms is None else min(event_ms, latest_ms)
        if event_ms > self.max_ms:
            self.max_ms = event_ms
            self._highs.append(offset)
            if len(self._highs) > _HIGHS_KEPT:
                self._highs = self._highs[::2]

    def resume_at(self, needed: int) -> int:
        """The last offset at or before ``needed`` (not before the first read) from which the maximum comes out the same."""
        return self._highs[bisect_right(self._highs, needed) - 1]

    def forget_before(self, offset: int) -> None:
        self._highs = self._highs[bisect_left(self._highs, offset) :]


@dataclass(slots=True, eq=False)
class _Joining:
    """A ranking and the labels of its items so far."""

    offset: int
    ranking: Ranking
    end_ms: int
    last_offset: int  # where this id was seen last: as long as that is read again, the first must be too
    labels: dict[str, float | None]
    unlabelled: int
    viewed: set[str] = field(default_factory=set)  # items with an event that is no label
    needs: int | None = None  # offset of the first interaction that changed something here
    closed: bool = False
    returned: bool = False

    def impression(self) -> Impression | None:
        """Labels down to the last item with an event; None where there is none."""
        ranking = self.ranking
        touched = [n for n, one in enumerate(ranking.items) if self.labels[one.item] is not None or one.item in self.viewed]
        if not touched:
            return None
        items = tuple(
            LabelledItem(item=scored.item, label=self.labels[scored.item] or 0.0, score=scored.score, position=position)
            for position, scored in enumerate(ranking.items[: touched[-1] + 1])
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


@dataclass(frozen=True, slots=True, eq=False)
class _Arrived:
    """An interaction that names a ranking, with the watermark of its log before it."""

    offset: int
    event: InteractionEvent
    ranking: str
    watermark_ms: int


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
        self._rankings_log, self._interactions_log = _Log(), _Log()
        self._rankings: OrderedDict[str, _Joining] = OrderedDict()  # by offset; closed ones too, until no copy can come
        self._ends: list[tuple[int, int, str]] = []  # heap of (end_ms, offset, ranking) of the open ones
        self._n_open = 0
        self._waiting: OrderedDict[int, _Arrived] = OrderedDict()  # by offset; their ranking is not here yet
        self._waiting_for: dict[str, list[int]] = {}
        self._ready: list[_Joining] = []

    @property
    def n_open(self) -> int:
        """Rankings whose window is open."""
        return self._n_open

    @property
    def n_waiting(self) -> int:
        """Interactions that wait for their ranking."""
        return len(self._waiting)

    def add_ranking(self, offset: int, ranking: Ranking, at_ms: int | None = None) -> None:
        """The next record of the rankings log; an offset that was already seen has no effect.

        Args:
            offset: Its place in the log.
            ranking: The record.
            at_ms: The broker's time of it; None: its event time may move the watermark without bound.
        """
        log = self._rankings_log
        if offset < log.next_offset:
            return
        end_ms = ranking.event_ms + self._window_ms
        late = self._watermark(log) >= end_ms
        log.move(offset, ranking.event_ms, self._latest_ms(at_ms))
        known = self._rankings.get(ranking.ranking)
        if known is not None:
            known.last_offset = offset
        if late or known is not None:
            self.counts.late_rankings += 1
            return
        if not ranking.items:
            return
        labels: dict[str, float | None] = dict.fromkeys(scored.item for scored in ranking.items)
        opened = _Joining(
            offset=offset, ranking=ranking, end_ms=end_ms, labels=labels, unlabelled=len(labels), last_offset=offset
        )
        self._rankings[ranking.ranking] = opened
        self._n_open += 1
        heappush(self._ends, (end_ms, offset, ranking.ranking))
        for at in self._waiting_for.pop(ranking.ranking, ()):
            self._label(opened, self._waiting.pop(at))
        self._keep_rankings_bounded()

    def add_interaction(self, offset: int, event: InteractionEvent, at_ms: int | None = None) -> None:
        """The next record of the interactions log; an offset that was already seen has no effect. Arguments: as `add_ranking`."""
        log = self._interactions_log
        if offset < log.next_offset:
            return
        watermark_ms = self._watermark(log)
        log.move(offset, event.event_ms, self._latest_ms(at_ms))
        if event.ranking is None:
            return
        arrived = _Arrived(offset, event, event.ranking, watermark_ms)
        known = self._rankings.get(event.ranking)
        if known is not None:
            self._label(known, arrived)
        elif self._ranking_may_come(event):
            self._waiting[offset] = arrived
            self._waiting_for.setdefault(event.ranking, []).append(offset)
            if len(self._waiting) > self._max_open:
                self._stop_waiting()
                self.counts.dropped += 1
        else:
            self.counts.unmatched += 1

    def advance(self, wall_idle_ms: int) -> None:
        """Let wall-clock time pass: both logs are read to their ends, and nothing came for ``wall_idle_ms``.

        Closes rankings whose window would be over had event time gone on at the pace of the wall clock.
        """
        self._close_until(self._watermark(self._interactions_log))  # these close by the log
        newest_ms = max(self._rankings_log.max_ms, self._interactions_log.max_ms)
        self.counts.closed_idle += self._close_until(newest_ms + wall_idle_ms - self._lateness_ms)

    def closed(self) -> list[Impression]:
        """Impressions that closed since the last call. Publish them before what `low_watermarks` then says is committed."""
        self._close_until(self._watermark(self._interactions_log))
        done = sorted(self._ready, key=lambda one: (one.end_ms, one.offset))
        self._ready = []
        for one in done:
            one.returned = True  # without an impression too: nothing more comes of it
        impressions = [made for one in done if (made := one.impression()) is not None]
        self.counts.impressions += len(impressions)
        self.counts.unseen += len(done) - len(impressions)
        return impressions

    def low_watermarks(self) -> tuple[int | None, int | None]:
        """Offsets (rankings, interactions) from which a new joiner comes to the same state: the smallest still needed.

        None for a log of which nothing was read: there is nothing to commit. Call it right after `closed`, publish, then commit.
        """
        low_rankings = self._low_rankings() if self._rankings_log.next_offset else None
        if not self._interactions_log.next_offset:
            return low_rankings, None
        log = self._interactions_log
        needs = [one.needs for one in self._rankings.values() if one.needs is not None]
        needs.extend(list(self._waiting)[:1])
        low_interactions = log.resume_at(min(needs, default=log.next_offset))
        log.forget_before(low_interactions)
        return low_rankings, low_interactions

    def _low_rankings(self) -> int:
        log = self._rankings_log
        needed = (one.offset for one in self._rankings.values() if not self._is_over(one))
        low = log.resume_at(min(needed, default=log.next_offset))
        for one in reversed(self._rankings.values()):
            if one.offset < low <= one.last_offset:
                low = log.resume_at(one.offset)
        log.forget_before(low)
        self._forget(low)
        return low

    def _watermark(self, log: _Log) -> int:
        return max(log.max_ms - self._lateness_ms, _NEVER)

    def _latest_ms(self, at_ms: int | None) -> int | None:
        return None if at_ms is None else at_ms + self._lateness_ms

    def _label(self, one: _Joining, arrived: _Arrived) -> None:
        event = arrived.event
        if one.closed or arrived.watermark_ms >= one.end_ms:
            self.counts.late_interactions += 1
            return
        in_window = one.ranking.event_ms - self._lateness_ms <= event.event_ms < one.end_ms
        if event.user != one.ranking.user or event.item not in one.labels or not in_window:
            self.counts.unmatched += 1
            return
        before, said = one.labels[event.item], liked(event.action, event.value)
        after = before if said is None else float(bool(before) or said)
        if before == after and (said is not None or event.item in one.viewed):
            return
        one.needs = arrived.offset if one.needs is None else one.needs
        if said is None:
            one.viewed.add(event.item)
            return
        one.labels[event.item] = after
        self.counts.labelled += 1
        one.unlabelled -= before is None
        if not one.unlabelled:
            self._close(one)

    def _close(self, one: _Joining) -> None:
        one.closed = True
        self._n_open -= 1
        self._ready.append(one)

    def _close_until(self, watermark_ms: int) -> int:
        """How many closed."""
        n_closed = 0
        while self._ends and self._ends[0][0] <= watermark_ms:
            n_closed += self._close_first()
        return n_closed

    def _close_first(self) -> bool:
        """Take the window that ends first off the heap, and close it unless its last label already has."""
        _, offset, name = heappop(self._ends)
        one = self._rankings.get(name)
        if one is None or one.offset != offset or one.closed:
            return False
        self._close(one)
        return True

    def _keep_rankings_bounded(self) -> None:
        while self._n_open > self._max_open:
            self.counts.closed_early += self._close_first()
        while len(self._rankings) > 2 * self._max_open:
            _, one = self._rankings.popitem(last=False)
            if not one.closed:
                self._close(one)
                self.counts.closed_early += 1

    def _ranking_may_come(self, event: InteractionEvent) -> bool:
        latest_end_ms = event.event_ms + self._lateness_ms + self._window_ms  # of a ranking that the event could count for
        return self._watermark(self._rankings_log) < latest_end_ms

    def _stop_waiting(self) -> None:
        offset, arrived = self._waiting.popitem(last=False)
        others = self._waiting_for[arrived.ranking]
        others.remove(offset)
        if not others:
            del self._waiting_for[arrived.ranking]

    def _is_over(self, one: _Joining) -> bool:
        """Whether it is published and a copy of it, yet to be read, would be late."""
        return one.returned and one.end_ms <= self._watermark(self._rankings_log)

    def _forget(self, low: int) -> None:
        """Drop what no record can name any more: rankings of which no copy can come, and waiting for such as cannot come."""
        done = [name for name, one in self._rankings.items() if one.last_offset < low and self._is_over(one)]
        for name in done:
            del self._rankings[name]
        while self._waiting and not self._ranking_may_come(next(iter(self._waiting.values())).event):
            self._stop_waiting()
            self.counts.unmatched += 1
