"""What the demo plays: a first part to train on, and a second part that asks for rankings and reacts to them.

News (simulated readers) is closed-loop: a reader reacts to what the ranker showed. A recorded data set cannot react: the items
that a user met anyway are the candidates of one request, and what the user did with them carries the ranking's id.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Final, Protocol

from msgspec.structs import replace

from contracts.records import InteractionEvent, ItemEvent, Knowledge
from streams.datasets.dataset import Dataset, Event
from streams.datasets.news import SEED, NewsSample
from streams.simulation.openloop import PAGE, FrontPage, open_loop
from streams.simulation.readers import DAY_MS

FIRST_DAYS: Final = 3  # of the sample: trained on
MAX_GROUP: Final = 20  # interactions of a recorded user that are one request


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A request for a ranking."""

    user: str
    candidates: tuple[str, ...]
    event_ms: int
    k: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What was shown, best first, and the ranking's id."""

    ranking: str
    items: tuple[str, ...]


Rank = Callable[[Ask], Answer]


class Play(Protocol):
    """Two parts of one stream."""

    def imported(self) -> Iterator[Knowledge]:
        """Knowledge that is there beforehand."""
        ...

    def first(self) -> Iterator[Event]:
        """The part to train on."""
        ...

    def second(self, rank: Rank) -> Iterator[Event]:
        """The rest; asks for rankings on its way. An event is to be sent before the next one is taken."""
        ...

    def n_first(self) -> int | None:
        """How many events the first part has, if known."""
        ...

    def n_second(self) -> int | None:
        """How many events the second part has, if known."""
        ...


class NewsPlay:
    """The sample: three days of a front page, then readers who see what the ranker says.

    Args:
        sample: Articles and answers.
    """

    def __init__(self, sample: NewsSample) -> None:
        self._sample = sample
        self._readers = sample.readers()
        self._split_ms = self._readers.from_ms + FIRST_DAYS * DAY_MS

    def imported(self) -> Iterator[Knowledge]:
        """The answers."""
        return self._sample.imported()

    def first(self) -> Iterator[Event]:
        """Articles, and reactions to a page of popular and new ones."""
        return open_loop(self._readers, self._sample.items, seed=SEED, until_ms=self._split_ms)

    def second(self, rank: Rank) -> Iterator[Event]:
        """For each visit: articles published since, a ranking of the unread ones of the last 48 hours, the reader's reaction."""
        front = FrontPage(SEED, self._sample.items)
        coming = deque(sorted(self._later_items(), key=lambda item: item.published_ms))
        for visit in self._readers.visits():
            if visit.event_ms < self._split_ms:
                continue
            while coming and coming[0].published_ms <= visit.event_ms:
                yield coming.popleft()
            candidates = self._readers.unread(visit.user, front.candidates(visit.event_ms))
            if candidates:
                answer = rank(Ask(user=visit.user, candidates=tuple(candidates), event_ms=visit.event_ms, k=PAGE))
                yield from self._readers.react(visit, answer.items, answer.ranking)
        yield from coming

    def n_first(self) -> int | None:
        """Not known: readers decide as they read."""
        return None

    def n_second(self) -> int | None:
        """Not known."""
        return None

    def _later_items(self) -> Iterator[ItemEvent]:
        return (item for item in self._sample.items if item.published_ms >= self._split_ms)


@dataclass(slots=True)
class _Group:
    """Consecutive interactions of one user that become one request."""

    start_ms: int
    items: list[str] = field(default_factory=list)
    closed: bool = False
    answer: Answer | None = None


class RecordedPlay:
    """A recorded data set: the first half of its interactions to train on, the second half with rankings.

    Args:
        dataset: What to play.
        limit: Interactions in all; None: all.
        span_ms: Event time that one request may span; below the join's window.
    """

    def __init__(self, dataset: Dataset, limit: int | None, span_ms: int) -> None:
        self._dataset = dataset
        self._limit = limit
        self._span_ms = span_ms
        self._n_all = dataset.count(limit)
        self._n_first = self._n_all // 2

    def imported(self) -> Iterator[Knowledge]:
        """LLM texts that come with the data."""
        return self._dataset.imported()

    def first(self) -> Iterator[Event]:
        """The first half of the events."""
        return islice(self._dataset.events(self._limit), self._n_first)

    def second(self, rank: Rank) -> Iterator[Event]:
        """The second half in event-time order, each request just before its first interaction."""
        later = islice(self._dataset.events(self._limit), self._n_first, None)
        for event, group in grouped(later, self._span_ms):
            if group is None or isinstance(event, ItemEvent):
                yield event
                continue
            if group.answer is None:
                candidates = tuple(group.items)
                group.answer = rank(Ask(user=event.user, candidates=candidates, event_ms=event.event_ms, k=len(candidates)))
            yield replace(event, ranking=group.answer.ranking)

    def n_first(self) -> int | None:
        """Events of the first half."""
        return self._n_first

    def n_second(self) -> int | None:
        """Events of the second half."""
        return self._n_all - self._n_first


def grouped(events: Iterator[Event], span_ms: int, max_group: int = MAX_GROUP) -> Iterator[tuple[Event, _Group | None]]:
    """The events as they come, each interaction with its group, which is complete when its first interaction comes out.

    Looks ahead by ``span_ms`` of event time at most: no more is held.
    """
    held: deque[tuple[Event, _Group | None]] = deque()
    open_groups: dict[str, _Group] = {}
    for event in events:
        if isinstance(event, ItemEvent):
            held.append((event, None))
            continue
        group = open_groups.get(event.user)
        if group is None or group.closed or event.event_ms > group.start_ms + span_ms or event.item in group.items:
            if group is not None:
                group.closed = True
            group = open_groups[event.user] = _Group(event.event_ms)
        group.items.append(event.item)
        group.closed = len(group.items) >= max_group
        held.append((event, group))
        while held and _is_out(held[0][1], event.event_ms - span_ms):
            yield _let_out(held, open_groups)
    while held:
        yield _let_out(held, open_groups)


def _is_out(group: _Group | None, before_ms: int) -> bool:
    return group is None or group.closed or group.start_ms < before_ms


def _let_out(held: deque[tuple[Event, _Group | None]], open_groups: dict[str, _Group]) -> tuple[Event, _Group | None]:
    event, group = held.popleft()
    if group is not None and isinstance(event, InteractionEvent):
        group.closed = True
        if open_groups.get(event.user) is group:
            del open_groups[event.user]
    return event, group
