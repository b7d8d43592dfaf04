"""knowledge-requests (and imported-knowledge) -> ask -> knowledge.

A request is committed when it is in the table of subjects, not when it is answered: from there it waits in one queue with all
others, the most urgent first, and a worker that starts again asks what had no answer. Answers about clusters go to
cluster-knowledge, which every extract worker reads. An empty value on knowledge-requests is a removal: it goes on to `knowledge`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

import msgspec
from prometheus_client import Gauge

from contracts.codec import encode
from contracts.errors import RecordError, VectorError
from contracts.records import Cluster, DeadLetter, EncodedKnowledge, Knowledge, KnowledgeRequest
from contracts.settings import Collective, Settings
from contracts.subjects import Kind, split_subject
from contracts.topics import CLUSTER_KNOWLEDGE, CLUSTERS, DEAD_LETTERS, ENCODINGS, EXTRACTED, IMPORTED, KNOWLEDGE, REQUESTS, Topic
from extractor.extraction import Extraction, ExtractionFailure, Removal, Said
from extractor.subject_state import Subject
from streams.agents.batches import Output
from streams.edge import Admitted, read
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher, wall_ms
from streams.retrying import retrying_until
from streams.roles.groups import Group
from streams.roles.steps import Steps
from streams.roles.tables import Table
from streams.tail import Tail

if TYPE_CHECKING:
    from extractor.asking import Asking
    from extractor.membership import Membership
    from extractor.scenario import Scenario

log = logging.getLogger(__name__)

WAITING = Gauge("reki_extract_waiting", "requests that wait for the language model")
UNDER_WAY = Gauge("reki_extract_under_way", "requests that the language model works on")

_POLL_MS: Final = 50  # how long an answer may lie before it is sent
_BATCH: Final = 500
_MAX_BYTES: Final = 400_000  # of a request or an import: a subject's entry holds one of each, below Kafka's message limit


class SubjectTable:
    """The table of subjects as `extractor.extraction.States`: a new subject lies on the partition that is being read."""

    def __init__(self, table: Table[Subject]) -> None:
        self._table = table
        self.here = -1

    def get(self, subject: str) -> Subject | None:
        """What is kept of a subject, on whichever of this worker's partitions."""
        return next((state for p in self._table.partitions if (state := self._table.get(p, subject)) is not None), None)

    def put(self, subject: str, state: Subject | None) -> None:
        """Keep it where it is, or on the partition that is being read."""
        known = (p for p in self._table.partitions if self._table.get(p, subject) is not None)
        self._table.put(next(known, self.here), subject, state)

    def partition(self, subject: str) -> int:
        """Where a subject lies; -1: nowhere."""
        return next((p for p in self._table.partitions if self._table.get(p, subject) is not None), -1)


class Extract:
    """The extract role's loop.

    Args:
        settings: Where the broker is, and bounds.
        scenario: What is asked.
        asking: The language model's queue; None: attributes are all there is.
        publisher: Where knowledge goes.
    """

    name = "extract"

    def __init__(self, settings: Settings, scenario: Scenario, asking: Asking | None, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._asking = asking
        self._publisher = publisher
        self._table: Table[Subject] = Table(
            settings, EXTRACTED, publisher, msgspec.msgpack.encode, msgspec.msgpack.Decoder(Subject).decode
        )
        self._states = SubjectTable(self._table)
        self._membership = _membership(settings.collective) if asking is not None else None
        self.stage = Extraction(settings.extract, scenario, self._states, asking, self._membership)
        self._working = threading.Event()

    def missing(self) -> str:
        """Not ready until partitions are assigned and their tables are there."""
        return "" if self._working.is_set() else "joining its group and reading its table"

    def run(self, stop: threading.Event) -> None:
        """Extract until told to stop."""
        steps = Steps("extract", self._publisher, [self._table], stop)
        take = {REQUESTS: self._request, IMPORTED: self._import}
        topics: list[Topic] = [REQUESTS, IMPORTED, *([ENCODINGS] if self._membership else [])]
        with ExitStack() as opened:
            if self._asking is not None:
                self._asking.start()
                opened.callback(self._asking.close)
            clusters = opened.enter_context(Tail(self._settings, [CLUSTERS, CLUSTER_KNOWLEDGE])) if self._membership else None
            while clusters is not None and not clusters.caught_up() and not stop.is_set():
                steps.add(self._read(clusters, stop, 50))
            member = opened.enter_context(Group(self._settings, "extract", topics, _BATCH))
            while not stop.is_set():
                messages = retrying_until(stop)(member.poll, _POLL_MS)
                steps.follow(member, lambda partition: steps.add(self._arrived(partition)), self._gone)
                if member.partitions():
                    self._working.set()
                if clusters is not None:
                    steps.add(self._read(clusters, stop))
                steps.take((one for one in messages if one.topic is not ENCODINGS), take)
                steps.add(self._encodings(messages))
                steps.add(self._answers())
                steps.add(self._outputs(self.stage.stand_ins(time.monotonic())))
                steps.finish(member, [one for one in messages if one.topic is not ENCODINGS or not self.stage.n_unplaced])
                self._hold_back(member)

    def _request(self, one: Admitted) -> Iterable[Output]:
        self._here(one.raw)
        if not isinstance(one.record, KnowledgeRequest):
            return self._outputs(self.stage.removed(one.key))
        return self._outputs(self.stage.requested(one.record, one.raw.offset, time.monotonic()))

    def _import(self, one: Admitted) -> Iterable[Output]:
        self._here(one.raw)
        imported = one.record if isinstance(one.record, Knowledge) else None
        return self._outputs(self.stage.imported(one.key, imported, one.raw.at_ms))

    def _here(self, raw: RawRecord) -> None:
        """Come to the partition of a record that goes into the table.

        Raises:
            RecordError: It is so long that an entry of two such would not go into the changelog.
        """
        if raw.value is not None and len(raw.value) > _MAX_BYTES:
            raise RecordError(f"{len(raw.value)} bytes", wanted=f"at most {_MAX_BYTES}", todo="send less text in one record")
        self._states.here = raw.partition

    def _encodings(self, messages: Sequence[RawRecord]) -> Iterable[Output]:
        """Where subjects are now; bad records are dead-lettered by augment, here they are passed over."""
        outputs: list[Output] = []
        for message in messages:
            record = read(message) if message.topic is ENCODINGS else None
            if isinstance(record, EncodedKnowledge):
                with suppress(VectorError, ValueError):
                    outputs += self._outputs(self.stage.encoded(record))
        return outputs

    def _answers(self) -> Iterable[Output]:
        if self._asking is None:
            return []
        WAITING.set(self._asking.n_waiting)
        UNDER_WAY.set(self._asking.n_under_way)
        return [output for answer in self._asking.answers() for output in self._outputs(self.stage.answered(answer))]

    def _read(self, clusters: Tail, stop: threading.Event, wait_ms: int = 0) -> list[Output]:
        """Follow the clusters: where they are, and what is said of them."""
        assert self._membership is not None
        outputs: list[Output] = []
        moved = False
        for one in retrying_until(stop)(clusters.poll, wait_ms):
            if isinstance(one.record, Cluster):
                moved |= self._moved(one.record)
            elif one.topic is CLUSTERS:
                self._membership.removed(one.key)
            elif one.topic is CLUSTER_KNOWLEDGE:
                self._membership.said(one.key, one.record if isinstance(one.record, Knowledge) else None)
                outputs += self._outputs(self.stage.cluster_said(one.key))
        return [*outputs, *self._outputs(self.stage.clusters_moved())] if moved else outputs

    def _moved(self, cluster: Cluster) -> bool:
        """Take a cluster in; one that cannot be used is the cluster role's to write again."""
        assert self._membership is not None
        try:
            self._membership.moved(cluster)
        except (VectorError, ValueError) as error:
            log.warning("passed over %s: %s", cluster.subject, error)
            return False
        return True

    def _outputs(self, said: Sequence[Said]) -> list[Output]:
        outputs: list[Output] = []
        for one in said:
            match one:
                case Knowledge():
                    outputs.append((_topic(one.subject), one))
                case Removal():
                    outputs.append((_topic(one.subject), one.subject))
                case ExtractionFailure():
                    outputs.append((DEAD_LETTERS, self._dead_letter(one)))
        return outputs

    def _dead_letter(self, failure: ExtractionFailure) -> DeadLetter:
        subject = failure.request.subject
        log.warning("dead letter: %s: %s", subject, failure.reason)
        return DeadLetter(
            topic=REQUESTS.name,
            partition=self._states.partition(subject),
            offset=failure.offset,
            stage="extract",
            reason=failure.reason[:2000],
            at_ms=wall_ms(),
            key=subject.encode(),
            value=encode(REQUESTS, failure.request),
        )

    def _arrived(self, partition: int) -> list[Output]:
        now_s = time.monotonic()
        return [
            output
            for subject, state in self._table.items(partition)
            for output in self._outputs(self.stage.arrived(subject, state, now_s))
        ]

    def _gone(self, partition: int) -> None:
        for subject, state in self._table.items(partition):
            self.stage.gone(subject, state)

    def _hold_back(self, member: Group) -> None:
        """Read no more requests than can be held; the others wait on Kafka."""
        if self._asking is not None:
            member.hold(REQUESTS, held=self._asking.n_waiting >= self._settings.extract.max_waiting)


def _membership(settings: Collective) -> Membership | None:
    """None where nobody clusters: numpy stays out of the role then."""
    clusters: dict[Kind, int] = {"item": settings.item_clusters, "user": settings.user_clusters}
    kinds = [kind for kind, n in clusters.items() if n]
    if not kinds:
        return None
    from extractor.membership import Membership

    return Membership(kinds)


def _topic(subject: str) -> Topic:
    return CLUSTER_KNOWLEDGE if split_subject(subject)[0] == "cluster" else KNOWLEDGE
