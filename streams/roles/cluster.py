"""encodings -> clusters, and requests for the clusters that appeared, moved or grew.

One worker owns the clusters of both kinds: a centre is one state, and two workers would each learn half of it.

**Killed at any moment.** Centres are in the log before the offsets behind them are committed, so what was learnt since is read
and learnt again; killed between the two, the vectors of one ``publish_every_s`` pull their centres twice. A request is in the log
before its cluster is marked as asked about: killed in between, it is sent twice, which is the same work twice. Who is a member is
not in the log: the collection `knowledge` holds every subject with its vector, and is read at the start.

B vectors, d_text encoder size.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from prometheus_client import Counter, Gauge

from contracts.errors import VectorError
from contracts.ports import Matrix, VectorRow, VectorStore
from contracts.records import Cluster, EncodedKnowledge, Knowledge, KnowledgeRequest
from contracts.settings import Settings
from contracts.subjects import split_subject
from contracts.topics import CLUSTERS, ENCODINGS, REQUESTS, Topic
from extractor.assignment import MemberKind, centre_of, split_cluster
from extractor.clustering import Clustering, Due
from extractor.collective import cluster_request
from extractor.projection import project, space
from streams.edge import RECORDS_IN, read
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.roles.groups import Group
from streams.tail import Tail

log = logging.getLogger(__name__)

N_CLUSTERS = Gauge("reki_clusters", "clusters that have a centre", ["kind"])
N_MEMBERS = Gauge("reki_cluster_members", "subjects counted as members of clusters", ["kind"])
ASKED = Counter("reki_cluster_requests", "requests for knowledge of a cluster", ["kind", "reason"])

_SWITCH_AFTER: Final = 50  # vectors of one other encoder in a row: a worker that is still upgrading does not throw clusters away
_knowledge: Final = msgspec.json.Decoder(Knowledge)


class ClusterRole:
    """The cluster role's loop.

    Args:
        settings: How many clusters, when they are asked about, how often they go out.
        store: The collection `knowledge`, only read.
        publisher: Where clusters and requests go.
    """

    name = "cluster"

    def __init__(self, settings: Settings, store: VectorStore, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._store = store
        self._publisher = publisher
        n_clusters: dict[MemberKind, int] = {"item": settings.collective.item_clusters, "user": settings.collective.user_clusters}
        self._n_clusters = {kind: n for kind, n in n_clusters.items() if n}
        self._by_kind: dict[MemberKind, Clustering] = {}
        self._foreign: dict[MemberKind, tuple[str, int]] = {}  # another space, and how many of its vectors came in a row
        self._offsets: dict[tuple[Topic, int], int] = {}  # next to be learnt; what comes again after an error is passed over
        self._committed: dict[tuple[Topic, int], int] = {}
        self._unpublished: dict[str, Cluster | None] = {}  # not yet known to be in the log; None: a tombstone
        self._trigger_ms = 0
        self._published_s = time.monotonic()
        self._assigned = threading.Event()
        self._is_alone = True

    def missing(self) -> str:
        """Not ready until the clusters are read and partitions are assigned."""
        return "" if self._assigned.is_set() else "reading clusters, or waiting for partitions"

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop."""
        for attempt in retrying_until(stop):
            with attempt:
                self._boot(stop)
        with Group(self._settings, "cluster", [ENCODINGS]) as member:
            while not stop.is_set():
                messages = retrying_until(stop)(member.poll)
                self._follow(member.partitions())
                for attempt in retrying_until(stop):
                    with attempt:
                        self._step(messages, member)
            self._publish(member)

    def _boot(self, stop: threading.Event) -> None:
        found: dict[str, Cluster] = {}
        with Tail(self._settings, [CLUSTERS]) as tail:
            for one in tail.to_end():
                if isinstance(one.record, Cluster) and _is_sound(one.record):
                    found[one.key] = one.record
                else:
                    found.pop(one.key, None)
        self._restore(list(found.values()))
        for rows in self._store.scan():
            if stop.is_set():
                return
            self._place(rows)

    def _restore(self, clusters: Sequence[Cluster]) -> None:
        """Go on with the clusters as they were left. Two spaces: a switch was under way, and higher numbers are newer."""
        self._by_kind.clear()
        for kind, n in self._n_clusters.items():
            own = [one for one in clusters if split_cluster(one.subject)[0] == kind]
            if own:
                newest = max(own, key=lambda one: split_cluster(one.subject)[1])
                self._by_kind[kind] = Clustering(kind, n, self._settings.collective, newest.space)
                left_over = self._by_kind[kind].restore([one for one in own if one.space == newest.space])
                gone = [*left_over, *(one.subject for one in own if one.space != newest.space)]
                self._unpublished.update(dict.fromkeys(gone))
        self._unpublished.update({one.subject: None for one in clusters if split_cluster(one.subject)[0] not in self._n_clusters})

    def _place(self, rows: Sequence[VectorRow]) -> None:
        """Count who is there already. A row does not say which encoder made it: after a change of encoder the counts are off."""
        by_kind: dict[MemberKind, dict[str, Matrix]] = defaultdict(dict)
        for row in rows:
            kind = _kind(row.subject)
            if kind in self._by_kind:
                by_kind[kind][row.subject] = row.vector
        for kind, vectors in by_kind.items():
            self._by_kind[kind].place(list(vectors), project(np.stack(list(vectors.values()))))  # (B, d_text) -> (B, 32)

    def _follow(self, partitions: set[int]) -> None:
        """One worker is expected to own all partitions."""
        if partitions:
            self._assigned.set()
        is_alone = not partitions or len(partitions) == self._settings.kafka.partitions
        if self._is_alone and not is_alone:
            log.error(
                "got partitions %s of %s; wanted all %d, because clusters have one owner; run role cluster in one process only. "
                "It goes on with what it has: two owners write over each other's centres",
                sorted(partitions),
                ENCODINGS.name,
                self._settings.kafka.partitions,
            )
        self._is_alone = is_alone

    def _step(self, messages: Sequence[RawRecord], member: Group) -> None:
        self._learn(messages)
        if time.monotonic() - self._published_s >= self._settings.collective.publish_every_s:
            self._publish(member)

    def _learn(self, messages: Sequence[RawRecord]) -> None:
        """Learn some messages, and note how far: the same ones again change nothing."""
        fresh = [m for m in messages if m.offset >= self._offsets.get((m.topic, m.partition), 0)]
        batch: list[EncodedKnowledge] = []
        for message in fresh:
            RECORDS_IN.labels(self.name, message.topic.name).inc()
            record = read(message)  # bad ones are dead-lettered by augment, the topic's owner
            if isinstance(record, EncodedKnowledge):
                batch.append(record)
            elif message.value is None:
                self._learn_records(batch)  # what came before the removal, so that it is removed too
                batch = []
                for clustering in self._by_kind.values():
                    clustering.forget([message.key_text])
            self._offsets[message.topic, message.partition] = message.offset + 1
            self._trigger_ms = max(self._trigger_ms, message.at_ms)
        self._learn_records(batch)

    def _learn_records(self, records: Sequence[EncodedKnowledge]) -> None:
        """Learn records in order, kind by kind and encoder by encoder."""
        runs: dict[tuple[MemberKind, str, int], list[EncodedKnowledge]] = defaultdict(list)
        for record in records:
            kind = _kind(record.subject)
            if kind is not None and kind in self._n_clusters and len(record.vector) % 4 == 0:
                runs[kind, record.encoder, len(record.vector)].append(record)
        for (kind, encoder, _), run in runs.items():
            matrix = np.stack([np.frombuffer(one.vector, dtype="<f4") for one in run])  # (B, d_text)
            sound = np.isfinite(matrix).all(axis=1)
            clustering = self._clustering(kind, space(encoder), len(run))
            if clustering is not None:
                kept = [one for one, is_sound in zip(run, sound, strict=True) if is_sound]
                clustering.learn_many(
                    [one.subject for one in kept],
                    project(matrix[sound]),  # (B, 32)
                    [one.as_of_ms for one in kept],
                    [one.tier for one in kept],
                )

    def _clustering(self, kind: MemberKind, where: str, n_vectors: int) -> Clustering | None:
        """The clusters of a kind, for vectors of this space; None while it is not sure that the encoder was changed."""
        current = self._by_kind.get(kind)
        if current is not None and current.space == where:
            self._foreign.pop(kind, None)
            return current
        if current is not None:
            other, n_before = self._foreign.get(kind, (where, 0))
            n_in_a_row = n_vectors + (n_before if other == where else 0)
            self._foreign[kind] = where, n_in_a_row
            if n_in_a_row < _SWITCH_AFTER:
                return None
            log.warning("the encoder changed from %s to %s: %s clusters are learnt anew", current.space, where, kind)
            self._unpublished.update({one.subject: None for one in current.clusters()})
        first_number = 0 if current is None else current.next_number
        made = Clustering(kind, self._n_clusters[kind], self._settings.collective, where, first_number=first_number)
        self._by_kind[kind] = made
        self._foreign.pop(kind, None)
        return made

    def _publish(self, member: Group) -> None:
        """Requests, then the clusters that changed, then the offsets behind them."""
        self._ask()
        for kind, clustering in self._by_kind.items():
            self._unpublished.update((cluster.subject, cluster) for cluster in clustering.changed())
            N_CLUSTERS.labels(kind).set(len(clustering))
            N_MEMBERS.labels(kind).set(clustering.n_members)
        for subject, cluster in self._unpublished.items():
            if cluster is None:
                self._publisher.tombstone(CLUSTERS, subject)
            else:
                self._publisher.send(CLUSTERS, cluster)
        self._publisher.flush()
        self._unpublished.clear()
        self._published_s = time.monotonic()
        self._commit(member)

    def _commit(self, member: Group) -> None:
        mine = member.partitions()
        offsets = {at: offset for at, offset in self._offsets.items() if at[1] in mine and offset != self._committed.get(at)}
        if not offsets:
            return
        if member.commit(offsets):
            self._committed.update(offsets)
        else:
            log.info("partitions moved to another worker; it starts from the last commit")

    def _ask(self) -> None:
        """Send requests for the clusters that are due, and mark them when the requests are safe."""
        asked: list[tuple[Clustering, Due, KnowledgeRequest]] = []
        for clustering in self._by_kind.values():
            for due in clustering.due():
                request = cluster_request(due, self._documents(due.members), self._settings.collective, self._trigger_ms)
                if request is not None:
                    self._publisher.send(REQUESTS, request)
                    asked.append((clustering, due, request))
        if not asked:
            return
        self._publisher.flush()
        for clustering, due, request in asked:
            clustering.asked(due, request.as_of_ms)
            ASKED.labels(clustering.kind, due.reason).inc()

    def _documents(self, subjects: Sequence[str]) -> dict[str, Knowledge]:
        """What is known of some subjects, by subject; one whose row cannot be read counts as unknown."""
        documents = {}
        for subject, row in self._store.fetch(subjects).items():
            with contextlib.suppress(msgspec.DecodeError):
                documents[subject] = _knowledge.decode(row.document)
        return documents


def _kind(subject: str) -> MemberKind | None:
    kind, _ = split_subject(subject)
    return None if kind == "cluster" else kind


def _is_sound(cluster: Cluster) -> bool:
    """Whether a cluster can be gone on with; the others are learnt anew rather than keep the role from starting."""
    try:
        split_cluster(cluster.subject)
        centre_of(cluster.centre)
        centre_of(cluster.asked_centre or cluster.centre)
    except (ValueError, VectorError) as error:
        log.warning("passed over %s: %s", cluster.subject, error)
        return False
    return True
