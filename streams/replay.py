"""Plays a data set into Kafka in event-time order, at a multiple of event time, and goes on where a killed run stopped.

The position stands in a file that is written after each flush, so an event is sent at least once: after a kill -9 the events
since the last flush are sent again, and every stage downstream is idempotent.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from contracts.errors import DatasetError
from contracts.ports import Publisher
from contracts.records import InteractionEvent
from contracts.topics import IMPORTED, INTERACTIONS, ITEMS
from streams.datasets.dataset import Dataset, Event

FLUSH_EVERY: Final = 1_000  # events sent again at most after a kill, and held in the producer's buffer


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How far a replay has come: the number of events acknowledged, and whether the imported knowledge is."""

    source: str
    imported: bool = False
    n_events: int = 0


class PositionFile:
    """Keeps a `Position` in a file, replaced as a whole.

    Args:
        folder: Where; made if missing.
        dataset: Name of the data set; gives the file's name.
        source: The folder that it is read from; a position of another source does not count.
    """

    def __init__(self, folder: Path, dataset: str, source: Path) -> None:
        self.path = folder / f"{dataset}.json"
        self._source = hashlib.sha256(str(source.resolve()).encode()).hexdigest()[:16]

    def load(self) -> Position:
        """The position kept, or the beginning.

        Raises:
            DatasetError: The file is damaged.
        """
        if not self.path.exists():
            return self.start()
        try:
            kept = json.loads(self.path.read_text())
            position = Position(source=str(kept["source"]), imported=bool(kept["imported"]), n_events=int(kept["n_events"]))
        except (ValueError, KeyError, TypeError) as error:
            todo = "delete the file, or use --from-start"
            raise DatasetError(f"{self.path} ({error!r})", wanted="a replay's position", todo=todo) from error
        return position if position.source == self._source else self.start()

    def start(self) -> Position:
        """The beginning."""
        return Position(source=self._source)

    def save(self, position: Position) -> None:
        """Keep a position; a kill leaves the old or the new one."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        beside = self.path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(position)) + "\n")
        beside.replace(self.path)


@dataclass(slots=True)
class Sent:
    """What a replay did, by topic name, in this run; ``skipped`` was sent by an earlier run."""

    records: Counter[str] = field(default_factory=Counter)
    skipped: int = 0
    first_ms: int | None = None
    last_ms: int | None = None


class Replay:
    """Sends a data set's events.

    Args:
        publisher: Where to.
        positions: Where the position is kept.
        speed: Multiple of event time; 0: as fast as the broker takes it.
        clock: Seconds, monotonic.
        sleep: Waits seconds.
    """

    def __init__(
        self,
        publisher: Publisher,
        positions: PositionFile,
        *,
        speed: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._publisher = publisher
        self._positions = positions
        self._speed = speed
        self._clock = clock
        self._sleep = sleep

    def run(
        self,
        dataset: Dataset,
        *,
        limit: int | None = None,
        from_start: bool = False,
        progress: Callable[[int], None] = lambda _: None,
    ) -> Sent:
        """Send imported knowledge, then every event not sent yet.

        Args:
            dataset: What to send.
            limit: Stop after this many interactions of the data set.
            from_start: Send everything again.
            progress: Called with the number of events passed over or sent.

        Raises:
            DatasetError: A file is damaged; what came before it is sent.
            UnavailableError: The broker does not answer; run again to go on.
        """
        position = self._positions.start() if from_start else self._positions.load()
        sent = Sent(skipped=position.n_events)
        if not position.imported:
            for knowledge in dataset.imported():
                self._publisher.send(IMPORTED, knowledge)
                sent.records[IMPORTED.name] += 1
            position = self._keep(position, imported=True, n_events=position.n_events)
        events = dataset.events(limit)
        progress(sum(1 for _ in islice(events, position.n_events)))
        for event in self._paced(events):
            send_event(self._publisher, event)
            n_sent = sent.records.total() - sent.records[IMPORTED.name] + 1
            at_ms = event_time_ms(event)
            sent.records[topic_of(event)] += 1
            sent.first_ms = at_ms if sent.first_ms is None else sent.first_ms
            sent.last_ms = at_ms
            progress(1)
            if n_sent % FLUSH_EVERY == 0:
                position = self._keep(position, imported=True, n_events=sent.skipped + n_sent)
        n_sent = sent.records.total() - sent.records[IMPORTED.name]
        self._keep(position, imported=True, n_events=sent.skipped + n_sent)
        return sent

    def _keep(self, position: Position, *, imported: bool, n_events: int) -> Position:
        self._publisher.flush()
        kept = Position(source=position.source, imported=imported, n_events=n_events)
        self._positions.save(kept)
        return kept

    def _paced(self, events: Iterator[Event]) -> Iterator[Event]:
        first_ms: int | None = None
        start_s = self._clock()
        for event in events:
            if self._speed > 0:
                at_ms = event_time_ms(event)
                first_ms = at_ms if first_ms is None else first_ms
                wait_s = start_s + (at_ms - first_ms) / 1000 / self._speed - self._clock()
                if wait_s > 0:
                    self._publisher.flush()
                    self._sleep(wait_s)
            yield event


def send_event(publisher: Publisher, event: Event) -> None:
    """Send an item or an interaction to its topic."""
    publisher.send(INTERACTIONS if isinstance(event, InteractionEvent) else ITEMS, event)


def topic_of(event: Event) -> str:
    """Name of the topic that an event belongs to."""
    return INTERACTIONS.name if isinstance(event, InteractionEvent) else ITEMS.name


def event_time_ms(event: Event) -> int:
    """Event time of an item or an interaction."""
    return event.event_ms if isinstance(event, InteractionEvent) else event.published_ms


def position_file(home: Path, dataset: str, source: Path) -> PositionFile:
    """The position file of a data set under the home folder."""
    return PositionFile(home / "replay", dataset, source)
