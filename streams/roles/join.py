"""rankings x interactions -> labelled impressions.

There is no state store: the committed offsets are those from which the same state comes out again. One exception: an impression
that an idle partition's wall clock closed may come once more after a restart, closed by the log and with more labels
(`ranker.joining`, ``JoinCounts.closed_idle``); so there is a commit after such an impression too.
"""

from __future__ import annotations

import logging
import threading
import time

from prometheus_client import Gauge

from contracts.records import Impression, InteractionEvent, Ranking
from contracts.settings import Settings
from contracts.topics import IMPRESSIONS, INTERACTIONS, RANKINGS, Topic
from ranker.joining import ImpressionJoiner
from streams.edge import Admitted, admit, read
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.roles.groups import Group

log = logging.getLogger(__name__)

OPEN = Gauge("reki_open_rankings", "rankings whose window has not closed", ["partition"])


class Join:
    """The join role's loop.

    Args:
        settings: Window, lateness, bound.
        publisher: Where impressions go.
    """

    name = "join"

    def __init__(self, settings: Settings, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._publisher = publisher
        self._joiners: dict[int, ImpressionJoiner] = {}
        self._unpublished: list[Impression] = []  # closed, but not yet known to be in the log
        self._assigned = threading.Event()

    def missing(self) -> str:
        """Not ready until partitions are assigned."""
        return "" if self._assigned.is_set() else "waiting for partitions"

    def run(self, stop: threading.Event) -> None:
        """Join until told to stop."""
        last_news_s = time.monotonic()
        with Group(self._settings, "join", [RANKINGS, INTERACTIONS]) as member:
            while not stop.is_set():
                messages = retrying_until(stop)(member.poll)
                self._follow(member.partitions())
                if messages:
                    last_news_s = time.monotonic()
                elif member.at_end():
                    idle_ms = int((time.monotonic() - last_news_s) * 1000)
                    for joiner in self._joiners.values():
                        joiner.advance(idle_ms)
                for attempt in retrying_until(stop):
                    with attempt:
                        self._step(messages, member)

    def _step(self, messages: list[RawRecord], member: Group) -> None:
        """Join some messages; again after an error is harmless: the joiners pass over offsets that they have seen."""
        for one in admit("join", (m for m in messages if m.topic is RANKINGS), self._publisher):
            self._add(one)
        for message in messages:
            if message.topic is INTERACTIONS:
                self._add_interaction(message)
        offsets: dict[tuple[Topic, int], int] = {}
        for partition, joiner in self._joiners.items():
            self._unpublished.extend(joiner.closed())
            OPEN.labels(partition).set(joiner.n_open)
            for topic, low in zip((RANKINGS, INTERACTIONS), joiner.low_watermarks(), strict=True):
                if low is not None:
                    offsets[topic, partition] = low
        is_news = bool(messages or self._unpublished)
        for impression in self._unpublished:
            self._publisher.send(IMPRESSIONS, impression)
        self._publisher.flush()
        self._unpublished.clear()
        if is_news and not member.commit(offsets):
            log.info("partitions moved to another worker; it starts from the last commit")

    def _add(self, one: Admitted) -> None:
        if isinstance(one.record, Ranking):
            self._joiners[one.raw.partition].add_ranking(one.raw.offset, one.record, one.raw.at_ms)

    def _add_interaction(self, message: RawRecord) -> None:
        """Interactions are dead-lettered by plan, their owner; here a bad one is passed over."""
        record = read(message)
        if isinstance(record, InteractionEvent):
            self._joiners[message.partition].add_interaction(message.offset, record, message.at_ms)

    def _follow(self, partitions: set[int]) -> None:
        """Fresh joiners for partitions that came: the group reads them from their last commit."""
        if partitions:
            self._assigned.set()
        for gone in self._joiners.keys() - partitions:
            del self._joiners[gone]
        join = self._settings.join
        for new in partitions - self._joiners.keys():
            self._joiners[new] = ImpressionJoiner(join.window_ms, join.lateness_ms, join.max_open)
