"""Keeps the augmented vectors of every model version: activates, backfills, announces, retires.

A version is announced as "ready" only when every subject known has its row in its collection. Two ways lead there and they
overlap, so that no subject falls between: encodings that arrive after the version was activated are augmented by the agent; all
that were stored before are in the `knowledge` collection (encode stores before it announces), which the backfill reads after
the activation.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence

import msgspec

from contracts.errors import CheckpointError
from contracts.ports import VectorStore
from contracts.records import AugmentedVector, EncodedKnowledge, ModelManifest
from contracts.settings import Settings
from contracts.topics import MODELS, VECTORS
from hein.augmenting import Augmenting
from ranker.checkpoint import load_hein, write_manifest
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.tail import Tail

log = logging.getLogger(__name__)

OpenStore = Callable[[str, int], VectorStore]  # collection, dim


class Versions:
    """The model versions that augment works for. `run` is its loop; `augment_many` is called by the agent, from another thread.

    Args:
        settings: Where checkpoints are.
        knowledge: The collection of encoder vectors.
        open_store: Opens a version's collection.
        drop_collection: Forgets a version's collection.
        publisher: Where vectors and manifests go.
    """

    name = "augment-versions"

    def __init__(
        self,
        settings: Settings,
        knowledge: VectorStore,
        open_store: OpenStore,
        drop_collection: Callable[[str], None],
        publisher: KafkaPublisher,
    ) -> None:
        self._settings = settings
        self._knowledge = knowledge
        self._open_store = open_store
        self._drop_collection = drop_collection
        self._publisher = publisher
        self._active: dict[int, Augmenting] = {}
        self._stores: dict[int, VectorStore] = {}  # of the active ones
        self._past: Counter[str] = Counter()  # what those that are gone have counted
        self._collections: dict[int, str] = {}
        self._ready = 0
        self._writing = threading.Lock()  # one writer per collection: the agent or the backfill
        self._counting = threading.Lock()  # one moment only: a scrape must not wait for a backfill
        self._loaded = threading.Event()

    def missing(self) -> str:
        """Not ready until the models that exist are loaded."""
        return "" if self._loaded.is_set() else "reading the model versions"

    def run(self, stop: threading.Event) -> None:
        """Follow the `models` topic."""
        with Tail(self._settings, [MODELS]) as tail:
            manifests: dict[int, ModelManifest] = {}
            while not stop.is_set():
                found = retrying_until(stop)(tail.poll)
                manifests |= {one.record.version: one.record for one in found if isinstance(one.record, ModelManifest)}
                if not tail.caught_up():
                    continue
                for manifest in [manifests[version] for version in sorted(manifests)]:
                    for attempt in retrying_until(stop):
                        with attempt:
                            self._follow(manifest)
                manifests.clear()
                self._loaded.set()

    def augment_many(self, records: Sequence[EncodedKnowledge]) -> list[AugmentedVector]:
        """Augmented vectors of these encodings in every active version, stored. Waits until the versions are known."""
        self._loaded.wait()
        with self._writing:
            return [vector for stage in self._active.values() for vector in stage.augment_many(records)]

    def forget(self, subjects: Sequence[str]) -> None:
        """Drop subjects from every active version."""
        self._loaded.wait()
        with self._writing:
            for stage in self._active.values():
                stage.forget(subjects)

    def counts(self) -> Counter[str]:
        """What became of encodings, over all versions since the start: see `hein.augmenting.Augmenting`."""
        with self._counting:
            return sum(map(_counted, self._active.values()), Counter(self._past))

    def _follow(self, manifest: ModelManifest) -> None:
        version = manifest.version
        if manifest.state == "retired":
            self._let_go(version)
            return
        if version < self._ready or (version in self._active and manifest.state == "ready"):
            return
        try:
            hein = load_hein(self._settings.checkpoints, manifest)
        except CheckpointError as error:
            log.error("version %d cannot be used: %s", version, error)  # noqa: TRY400 the message says it all
            return
        store = self._open_store(manifest.collection, manifest.d_aug)
        self._let_go(version)  # of a try that failed half-way
        with self._writing, self._counting:
            self._active[version] = Augmenting(hein, version, store)
            self._stores[version] = store
            self._collections[version] = manifest.collection
        if manifest.state == "trained":
            self._backfill(manifest)
        self._ready = max(self._ready, version)
        self._retire()

    def _backfill(self, manifest: ModelManifest) -> None:
        n_vectors = 0
        batches = self._active[manifest.version].backfill(self._knowledge)
        while True:
            with self._writing:  # sent inside: a subject that is removed next must not come back by an older vector
                vectors = next(batches, None)
                for vector in vectors or ():
                    self._publisher.send(VECTORS, vector)
            if vectors is None:
                break
            self._publisher.flush()  # now: a failure told to somebody else's flush meanwhile would be lost to this one
            n_vectors += len(vectors)
        ready = msgspec.structs.replace(manifest, state="ready")
        write_manifest(self._settings.checkpoints, ready)
        self._publisher.send(MODELS, ready)
        self._publisher.flush()
        log.info("version %d is ready: %d augmented vectors in %s", manifest.version, n_vectors, manifest.collection)

    def _retire(self) -> None:
        for version in [v for v in self._active if v < self._ready]:
            self._let_go(version)  # rankers have its last vectors; a rollback backfills again
        for version in [v for v in self._collections if v <= self._ready - self._settings.train.keep]:
            self._drop_collection(self._collections.pop(version))

    def _let_go(self, version: int) -> None:
        """Augment for a version no longer, and close its connection."""
        with self._writing:
            if version not in self._active:
                return
            with self._counting:
                self._past += _counted(self._active.pop(version))
            self._stores.pop(version).close()


def _counted(stage: Augmenting) -> Counter[str]:
    return Counter(
        {
            "augmented": stage.n_augmented,
            "reused": stage.n_reused,
            "stale": stage.n_stale,
            "without a stream": stage.n_without_stream,
        }
    )
