"""The live state behind ranking and online training: catalogue, histories, prestored vectors, the model in force.

One tail in one thread writes it all. The vectors changelog is read from its end, and a version's vectors are booted from Milvus:
augment stores a vector before it announces it, so what was announced before the tail began is found by the boot.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

from contracts.errors import CheckpointError, VectorError
from contracts.ports import VectorStore
from contracts.records import AugmentedVector, InteractionEvent, ItemEvent, ModelManifest
from contracts.settings import Settings
from contracts.topics import INTERACTIONS, ITEMS, MODELS, VECTORS, Topic
from ranker.bundle import Bundle, BundleHolder
from ranker.catalogue import Catalogue
from ranker.checkpoint import load_crm
from ranker.features import FeatureConfig
from ranker.histories import Histories
from ranker.vectors import VectorMatrix
from streams.retrying import retrying_until
from streams.tail import Tail, Tailed

log = logging.getLogger(__name__)

OpenStore = Callable[[str, int], VectorStore]


class Live:
    """What a ranker or a trainer knows, kept up to date.

    Args:
        settings: The settings in force.
        open_to_boot: Opens a version's collection, (name, dim) -> store, to read all of it.
        open_to_ask: Opens it to read single rows within a short deadline.
        steps: Whether online steps are followed too; a trainer makes them itself.
    """

    name = "live-state"

    def __init__(self, settings: Settings, open_to_boot: OpenStore, open_to_ask: OpenStore, *, steps: bool) -> None:
        self._settings = settings
        self._open_to_boot = open_to_boot
        self._open_to_ask = open_to_ask
        self._steps = steps
        self.catalogue = Catalogue(FeatureConfig.of(settings.model))
        self.histories = Histories(settings.rank.max_users, settings.model.history)
        self.holder = BundleHolder()
        self.caught_up = threading.Event()
        self._retired: set[int] = set()
        self._ready: dict[int, ModelManifest] = {}

    def missing(self) -> str:
        """What a ranking still waits for."""
        if not self.caught_up.is_set():
            return "reading items, interactions and models"
        return "" if self.holder.current else "no model version is ready: run `reki train`"

    def run(self, stop: threading.Event) -> None:
        """Follow the topics."""
        topics: list[Topic] = [ITEMS, VECTORS, MODELS, *([INTERACTIONS] if self._steps else [])]
        with Tail(self._settings, topics, from_end=[VECTORS]) as tail:
            while not stop.is_set():
                self.take(retrying_until(stop)(tail.poll, 50), stop)
                if not self.caught_up.is_set() and tail.caught_up():
                    self._use_latest(stop)
                    self.caught_up.set()

    def take(self, batch: Sequence[Tailed], stop: threading.Event) -> None:
        """Take in some records."""
        interactions: list[InteractionEvent] = []
        models = False
        for one in batch:
            match one.record:
                case ItemEvent():
                    self.catalogue.apply(one.record)
                case None if one.topic is ITEMS:
                    self.catalogue.apply(ItemEvent(item=one.key, published_ms=0, removed=True))
                case InteractionEvent():
                    interactions.append(one.record)
                case AugmentedVector():
                    self._vector(one.record)
                case None if one.topic is VECTORS and self.holder.current:
                    self.holder.current.vectors.drop(one.key)
                case ModelManifest():
                    models = True
                    self._manifest(one.record)
                case _:
                    pass
        if interactions:
            self.histories.learn_many(interactions)
        if models and self.caught_up.is_set():
            self._use_latest(stop)

    def _vector(self, record: AugmentedVector) -> None:
        bundle = self.holder.current
        if bundle is not None and record.version == bundle.version:
            try:
                bundle.vectors.apply(record)
            except VectorError as error:
                log.warning("passed over a vector of %s: %s", record.subject, error)

    def _manifest(self, manifest: ModelManifest) -> None:
        if manifest.state == "ready":
            self._retired.discard(manifest.version)
            self._ready[manifest.version] = manifest
        elif manifest.state == "retired":
            self._retired.add(manifest.version)
            self._ready.pop(manifest.version, None)

    def _use_latest(self, stop: threading.Event) -> None:
        """Put the newest ready version in force; keep the one in force where the new one cannot be loaded."""
        if not self._ready:
            return
        manifest = self._ready[max(self._ready)]
        current = self.holder.current
        try:
            if current is None or current.version != manifest.version:
                for attempt in retrying_until(stop):
                    with attempt:
                        self._install(manifest)
            elif self._steps:
                self.holder.swap_step(load_crm(self._settings.checkpoints, manifest), manifest)
        except CheckpointError as error:
            log.warning("version %d step %d passed over: %s", manifest.version, manifest.step, error)

    def _install(self, manifest: ModelManifest) -> None:
        crm = load_crm(self._settings.checkpoints, manifest)
        asked = self._open_to_ask(manifest.collection, manifest.d_aug)
        asked.count()  # connects now: the deadline of a miss is far too short for that
        vectors = VectorMatrix(manifest.d_aug, asked, self._settings.rank.miss_timeout_s, version=manifest.version)
        booted = self._open_to_boot(manifest.collection, manifest.d_aug)
        vectors.boot(booted.scan())
        booted.close()
        self.catalogue.prepare(crm.config.features)  # before the bundle: no request is to wait for the hashing
        old = self.holder.current
        self.holder.install(Bundle(crm=crm, vectors=vectors, manifest=manifest))
        if old is not None:
            old.vectors.close()
        log.info("version %d step %d in force: %d vectors", manifest.version, manifest.step, len(vectors))
