"""impressions -> test, then learn -> models.

What was learnt and how far was read are saved together, so kill -9 loses nothing and repeats nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contracts.errors import CheckpointError
from contracts.records import Impression, ModelManifest
from contracts.settings import Settings
from contracts.subjects import item_subject
from contracts.topics import IMPRESSIONS, MODELS
from ranker.bundle import Bundle
from ranker.checkpoint import as_trained, load_crm, read_manifest, save_step, version_folder
from ranker.features import ItemFeatures
from ranker.online import OnlineLearner, read_state
from streams.edge import admit
from streams.messages import RawRecord
from streams.publisher import KafkaPublisher
from streams.retrying import retrying_until
from streams.roles.live import Live
from streams.roles.whole_topic import WholeTopic

log = logging.getLogger(__name__)


class Train:
    """The train role's loop. One trainer reads all impressions; another one on the same folder would learn everything twice.

    Args:
        settings: The settings in force.
        live: Catalogue, vectors and the version in force, kept by its own thread.
        publisher: Where manifests go.
    """

    name = "train"

    def __init__(self, settings: Settings, live: Live, publisher: KafkaPublisher) -> None:
        self._settings = settings
        self._live = live
        self._publisher = publisher
        self._learner: OnlineLearner | None = None
        self._manifest: ModelManifest | None = None
        self._bundle: Bundle | None = None  # what `_manifest` came with; another thread swaps the one in force at any time
        self._offsets: dict[str, int] = {}
        self._unsaved = 0
        self._saved_s = time.monotonic()

    def missing(self) -> str:
        """A trainer without a model waits for one; that is no fault of its own."""
        return "" if self._live.caught_up.is_set() else "reading items and models"

    def run(self, stop: threading.Event) -> None:
        """Learn until told to stop."""
        while not stop.is_set() and self._live.holder.current is None:
            stop.wait(0.2)
        if stop.is_set():
            return
        self._follow_version()
        with WholeTopic(self._settings, IMPRESSIONS, self._offsets) as impressions:
            while not stop.is_set():
                messages = retrying_until(stop)(impressions.poll)
                for attempt in retrying_until(stop):
                    with attempt:
                        self._step(messages)
        self._save()

    def _step(self, messages: Sequence[RawRecord]) -> None:
        if self._is_swapped():
            self._save()
            self._follow_version()
        learner = self._learner
        assert learner is not None
        fresh = [m for m in messages if m.offset >= self._offsets.get(str(m.partition), 0)]  # again after an error: once
        admitted = admit("train", fresh, self._publisher)
        learner.learn_many([one.record for one in admitted if isinstance(one.record, Impression)])
        for message in fresh:
            self._offsets[str(message.partition)] = message.offset + 1
        self._unsaved += len(fresh)
        if self._unsaved and time.monotonic() - self._saved_s >= self._settings.train.publish_every_s:
            self._save()

    def _save(self) -> None:
        """Save what was learnt, then tell the rankers."""
        self._publisher.flush()  # dead letters first: their offsets are about to count as done
        self._saved_s = time.monotonic()
        if self._learner is None or self._manifest is None or not self._unsaved:
            return
        self._learner.step += 1
        self._learner.save(self._state_file(self._manifest.version), self._offsets)
        manifest = save_step(
            self._settings.checkpoints,
            self._learner.crm,
            self._manifest,
            step=self._learner.step,
            metrics=self._manifest.metrics | self._learner.metrics(),
            n_samples=self._learner.n_samples,
            keep=self._settings.train.keep,
        )
        self._publisher.send(MODELS, manifest)
        self._publisher.flush()
        self._unsaved = 0  # not before: what the rankers were not told is told with the next try

    def _is_swapped(self) -> bool:
        """Whether other vectors are in force than those we learn with: of another version, or booted again after a rollback."""
        current = self._live.holder.current
        return current is not None and self._bundle is not None and current.vectors is not self._bundle.vectors

    def _follow_version(self) -> None:
        """Start from the version in force, or go on where a killed trainer had saved."""
        bundle = self._live.holder.current
        assert bundle is not None
        zero = as_trained(bundle.manifest)
        if self._learner is None:
            self._learner = self._resumed(zero)
        if self._learner.version != zero.version:
            crm, frozen = (load_crm(self._settings.checkpoints, zero) for _ in range(2))
            self._learner.swap_version(crm, frozen, version=zero.version)
            self._learner.save(self._state_file(zero.version), self._offsets)  # killed now, it must not read all of them again
        self._manifest, self._bundle = zero, bundle
        self._unsaved = int(self._learner.step > bundle.manifest.step)  # saved, and killed before the rankers were told
        log.info("learning from version %d step %d on", zero.version, self._learner.step)

    def _resumed(self, zero: ModelManifest) -> OnlineLearner:
        """The learner as saved last, of this version or of the newest one before it; a new one where nothing was saved."""
        for version in range(zero.version, 0, -1):
            path = self._state_file(version)
            try:
                manifest = zero if version == zero.version else read_manifest(self._settings.checkpoints, version)
                if manifest is not None and read_state(path) is not None:
                    learner = self._learner_of(as_trained(manifest))
                    self._offsets = learner.restore(path)
                    return learner
            except CheckpointError as error:
                log.error("what was learnt on version %d is lost: %s", version, error)  # noqa: TRY400 says it all
        return self._learner_of(zero)

    def _learner_of(self, zero: ModelManifest) -> OnlineLearner:
        crm, frozen = (load_crm(self._settings.checkpoints, zero) for _ in range(2))
        return OnlineLearner(crm, frozen, self._settings, self._vectors, self._item_features, version=zero.version)

    def _state_file(self, version: int) -> Path:
        return self._settings.checkpoints / version_folder(version) / "online.safetensors"

    def _vectors(self, items: Sequence[str]) -> NDArray[np.float32]:
        """(B, d_aug) vectors of items, of the learner's version, zeros where there is none."""
        assert self._bundle is not None
        return self._bundle.vectors.lookup([item_subject(item) for item in items]).matrix

    def _item_features(self, item: str) -> ItemFeatures:
        """An item as the learner's model reads it."""
        assert self._learner is not None
        return self._live.catalogue.lookup_for(self._learner.crm.config.features)(item)
