"""The demo from start to summary: start, import, first part, train, second part with rankings, drain, count."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import httpx

from contracts.errors import UnavailableError
from contracts.records import ItemEvent
from contracts.settings import Settings, environment_of
from contracts.topics import IMPORTED
from streams.datasets.dataset import Dataset, Event
from streams.datasets.news import NewsSample
from streams.demo import reading
from streams.demo.asking import Asking
from streams.demo.draining import Drain, behind
from streams.demo.plays import Answer, Ask, NewsPlay, Play, RecordedPlay
from streams.demo.stage import Stage
from streams.demo.summary import Told, gather
from streams.manifests import manifests
from streams.progress import bar
from streams.publisher import KafkaPublisher, wall_ms
from streams.replay import send_event, topic_of

FLUSH_EVERY: Final = 1_000
CHECK_EVERY: Final = 100  # rankings between two looks at how far the roles are behind
MAX_BEHIND: Final = 400  # records: the stream waits until the roles have come closer than this
_LEARNT_S: Final = 90.0  # how long the train role may take for the last impressions


def play_of(dataset: Dataset, limit: int | None, settings: Settings) -> Play:
    """How a data set is played."""
    if isinstance(dataset, NewsSample):
        return NewsPlay(dataset)
    return RecordedPlay(dataset, limit, settings.join.window_ms // 2)


@dataclass(slots=True)
class _Notes:
    """What is measured on the way."""

    sent: Counter[str] = field(default_factory=Counter)
    items: set[str] = field(default_factory=set)
    took_s: dict[str, float] = field(default_factory=dict)
    second_part_ms: int = 0

    @contextmanager
    def timed(self, what: str) -> Iterator[None]:
        """Note how long something takes."""
        start = time.monotonic()
        yield
        self.took_s[what] = round(time.monotonic() - start, 1)


class Demo:
    """One run on a stage that stands.

    Args:
        stage: Where everything runs.
        dataset: What is played.
        play: How.
        report: Told of progress, one line each.
    """

    def __init__(self, stage: Stage, dataset: Dataset, play: Play, report: Callable[[str], None]) -> None:
        self._stage = stage
        self._settings = stage.settings
        self._dataset = dataset
        self._play = play
        self._report = report
        self._notes = _Notes()
        self._drain = Drain(partial(behind, stage.settings))

    def run(self) -> dict[str, Any]:
        """Everything; returns the summary.

        Raises:
            UnavailableError: Something does not answer, or stands still.
        """
        notes = self._notes
        with KafkaPublisher(self._settings) as publisher:
            with notes.timed("first part"):
                self._import(publisher)
                self._send_first(publisher)
            with notes.timed("its knowledge"):
                self._await_drained("knowledge and vectors of the first part")
            with notes.timed("training"):
                self._train()
            notes.second_part_ms = wall_ms()
            client = httpx.Client(base_url=self._stage.page, timeout=30)
            with notes.timed("second part"), client:
                asking = Asking(client, publisher.flush)
                self._send_second(publisher, asking)
        with notes.timed("draining"):
            self._await_drained("knowledge and vectors of the second part")
            self._await_learnt()
        told = Told(
            dataset=self._dataset.name,
            licence=self._dataset.licence,
            simulated=self._dataset.simulated,
            sent=notes.sent,
            n_items=len(notes.items),
            asked_ms=asking.took_ms,
            n_retried=asking.n_retried,
            second_part_ms=notes.second_part_ms,
            start_s=self._stage.start_s,
            took_s=notes.took_s,
        )
        return gather(self._settings, told, self._stage.processes())

    def _import(self, publisher: KafkaPublisher) -> None:
        with bar("import knowledge", None) as progress:
            for n, knowledge in enumerate(self._play.imported(), 1):
                publisher.send(IMPORTED, knowledge)
                self._notes.sent[IMPORTED.name] += 1
                progress(1)
                if n % FLUSH_EVERY == 0:
                    publisher.flush()
            publisher.flush()

    def _send_first(self, publisher: KafkaPublisher) -> None:
        with bar("first part", self._play.n_first()) as progress:
            for n, event in enumerate(self._play.first(), 1):
                self._send(publisher, event)
                progress(1)
                if n % FLUSH_EVERY == 0:
                    publisher.flush()
            publisher.flush()

    def _send_second(self, publisher: KafkaPublisher, asking: Asking) -> None:
        def ask(question: Ask) -> Answer:
            if asking.took_ms and len(asking.took_ms) % CHECK_EVERY == 0:
                self._drain.until(MAX_BEHIND)
            return asking(question)

        with bar("second part: rankings and reactions", self._play.n_second()) as progress:
            for event in self._play.second(ask):
                self._send(publisher, event)
                progress(1)
            publisher.flush()

    def _send(self, publisher: KafkaPublisher, event: Event) -> None:
        send_event(publisher, event)
        self._notes.sent[topic_of(event)] += 1
        if isinstance(event, ItemEvent):
            self._notes.items.add(event.item)

    def _await_drained(self, what: str) -> None:
        most = done = 0
        with bar(what, None) as progress:

            def report(left: int) -> None:
                nonlocal most, done
                most = max(most, left)
                progress(most - left - done)
                done = most - left

            self._drain.until(0, report)

    def _train(self) -> None:
        self._report("training version 1 on the first part")
        command = [sys.executable, "-P", "-m", "streams.cli.main", "train", "--json"]
        environment = {**os.environ, **environment_of(self._settings)}
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)  # noqa: S603 - our own
        if done.returncode:
            raise UnavailableError(f"`reki train` ended with {done.returncode}", wanted="a model", todo="see what it says above")
        version = max(manifest.version for manifest in manifests(self._settings))
        self._report(f"waiting for the ranker to take version {version}")
        self._stage.await_version(version)

    def _await_learnt(self) -> None:
        """Wait until the train role has published what it learnt from all impressions; it says how many."""
        deadline = time.monotonic() + _LEARNT_S
        while time.monotonic() < deadline:
            n_impressions, _ = reading.served_quality(self._settings)
            latest = max(manifests(self._settings), key=lambda m: (m.version, m.step))
            if latest.metrics.get("n_impressions", 0.0) >= n_impressions:
                return
            time.sleep(2)
        self._report("the train role has not yet learnt from every impression; its figures are of those it has")
