"""rank-requests -> rankings. The same scorer answers over HTTP; both ways a ranking goes to `rankings`, where join finds it."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import msgspec

from contracts.errors import RankRequestError, RecordError
from contracts.ports import VectorStore
from contracts.records import Knowledge, Ranking, RankRequest
from contracts.settings import Settings
from contracts.topics import RANK_REQUESTS, RANKINGS
from ranker.scoring import Scorer
from streams.edge import admit, dead_letter
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.roles.groups import Group, next_offsets
from streams.roles.live import Live

_knowledge = msgspec.json.Decoder(Knowledge)


class Rank:
    """The rank role's loop over Kafka.

    Args:
        settings: The settings in force.
        scorer: Answers requests.
        live: Says when there is something to answer with.
        publisher: Where rankings go.
    """

    name = "rank-requests"

    def __init__(self, settings: Settings, scorer: Scorer, live: Live, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._scorer = scorer
        self._live = live
        self._publisher = publisher
        self._answered = publisher.own()

    def missing(self) -> str:
        """Nothing of its own: `Live` says what a ranking waits for."""
        return ""

    def run(self, stop: threading.Event) -> None:
        """Answer until told to stop. Requests wait on Kafka until a version is ready."""
        while not stop.is_set() and self._live.missing():
            stop.wait(0.2)
        if stop.is_set():
            return
        with Group(self._settings, "rank", [RANK_REQUESTS], max_records=100) as member:
            while not stop.is_set():
                messages = retrying_until(stop)(member.poll)
                if not messages:
                    continue
                for attempt in retrying_until(stop):
                    with attempt:
                        self._answer(messages)
                        member.commit(next_offsets(messages))

    def publish(self, rankings: Sequence[Ranking]) -> None:
        """Put rankings that were answered over HTTP where join finds them; returns when they are safe. The outbox's thread."""
        for ranking in rankings:
            self._answered.send(RANKINGS, ranking)
        self._answered.flush()

    def _answer(self, messages: Sequence[RawRecord]) -> None:
        for one in admit("rank", messages, self._publisher):
            if isinstance(one.record, RankRequest):
                try:
                    self._publisher.send(RANKINGS, self._scorer.rank(one.record))
                except (RankRequestError, RecordError) as error:
                    dead_letter("rank", one.raw, str(error), self._publisher)
        self._publisher.flush()


def knowledge_of(store: VectorStore, subjects: Sequence[str]) -> dict[str, Knowledge]:
    """What is known of some subjects, for the page: the documents beside their vectors."""
    rows = store.fetch(subjects)
    return {subject: _knowledge.decode(row.document) for subject, row in rows.items() if row.document}
