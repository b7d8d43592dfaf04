"""Online learning, test-then-train: an impression is scored, by the model as it is and by its frozen twin, then learnt from.

Only the CRM learns. HEIN is frozen inside a version, so prestored vectors stay valid; Dice keeps its statistics too, because
the few items of one ranking are no sample of the stream.

What is learnt and how far the input was read are written together (`OnlineLearner.save`): after kill -9 the reader goes back to
the offsets found there, so nothing is lost, and nothing counts twice.

Shapes: B labelled items of some impressions, d_aug augmented vector.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save
from torch import nn

from contracts.errors import CheckpointError
from ranker.checkpoint import safetensors_metadata, write_atomically
from ranker.crm import build_optimizers
from ranker.features import Features, ItemFeatures, join_batches, rank_features
from ranker.online_quality import OnlineQuality
from ranker.online_state import changed_weights, optimizer_state, restore_optimizers, restore_weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from contracts.records import Impression
    from contracts.settings import Settings
    from ranker.crm import CRM

Vectors = NDArray[np.float32]
MODELS = ("online", "frozen", "served")
STEP_ITEMS = 256  # labelled items per optimiser step: small, so that testing stays close to learning
MAX_SEEN = 50_000  # ranking ids remembered; offsets do the rest, redelivery by `join` comes soon or never
KIND = "online-state"
_TODO = "delete it to start again from the version as trained; the impressions since are then learnt again"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnerState:
    """What a saved state says of itself: which model it belongs to and how far the input was read."""

    version: int
    step: int
    offsets: dict[str, int]


class OnlineLearner:
    """Learns from impressions, one version of a model.

    Args:
        crm: The model that learns; changed in place.
        frozen_crm: The same model as it left offline training; never changed.
        settings: The settings in force.
        vectors_lookup: Augmented vectors (B, d_aug) of items, zeros where there is none.
        item_lookup: An item's prepared features; must answer for unknown ids too.
        version: The model version.
    """

    def __init__(  # noqa: PLR0913 - two models and two lookups, wired in one place
        self,
        crm: CRM,
        frozen_crm: CRM,
        settings: Settings,
        vectors_lookup: Callable[[Sequence[str]], Vectors],
        item_lookup: Callable[[str], ItemFeatures],
        *,
        version: int = 0,
    ) -> None:
        self._settings = settings
        self._vectors_lookup = vectors_lookup
        self._item_lookup = item_lookup
        self._quality = {model: OnlineQuality() for model in MODELS}
        self._seen: dict[str, None] = {}
        self._counts = {"n_impressions": 0, "n_items": 0, "n_repeated": 0, "n_other_version": 0, "n_not_finite": 0}
        self.swap_version(crm, frozen_crm, version=version)

    def swap_version(self, crm: CRM, frozen_crm: CRM, *, version: int) -> None:
        """Go on with a new version: fresh optimisers, step 0; metrics and remembered rankings stay."""
        self.crm, self._frozen = crm.eval(), frozen_crm.eval()
        self.version = version
        self.step = 0
        self._optimizers = build_optimizers(crm, self._settings.train.online_learning_rate)

    @property
    def n_samples(self) -> int:
        """Labelled items learnt from."""
        return self._counts["n_items"]

    def learn_many(self, impressions: Sequence[Impression]) -> None:
        """Test, then learn, in order and in steps of about `STEP_ITEMS` items; impressions learnt before are passed over."""
        waiting: list[Impression] = []
        n_items = 0
        for impression in impressions:
            if impression.ranking in self._seen:
                self._counts["n_repeated"] += 1
                continue
            self._remember(impression.ranking)
            if not impression.items:
                continue
            waiting.append(impression)
            n_items += len(impression.items)
            if n_items >= STEP_ITEMS:
                self._learn(waiting)
                waiting, n_items = [], 0
        if waiting:
            self._learn(waiting)

    def metrics(self) -> dict[str, float]:
        """``auc_online``, ``auc_frozen``, ``auc_served`` and so on (see `OnlineQuality.metrics`), and counts."""
        found = {f"{name}_{model}": value for model in MODELS for name, value in self._quality[model].metrics().items()}
        return found | {name: float(count) for name, count in self._counts.items()}

    def save(self, path: Path, offsets: Mapping[str, int]) -> None:
        """Write everything that was learnt, with the offsets up to which it was, in one atomic write.

        Args:
            path: A file of its own.
            offsets: Next offset to read, by partition, as the caller names them.
        """
        arrays = changed_weights(self.crm, self._frozen)
        steps, moments = optimizer_state(self._optimizers)
        arrays |= moments
        sums: dict[str, dict[str, float]] = {}
        for model, quality in self._quality.items():
            sums[model], kept = quality.state()
            arrays |= {f"quality.{model}.{name}": array for name, array in kept.items()}
        state = {
            "version": self.version,
            "step": self.step,
            "offsets": dict(offsets),
            "counts": self._counts,
            "sums": sums,
            "seen": list(self._seen),
            "optimizer_steps": steps,
        }
        write_atomically(path, save(arrays, metadata={KIND: json.dumps(state)}))

    def restore(self, path: Path) -> dict[str, int]:
        """Go on where `save` left off: weights, optimisers, metrics and counts. Only on a new learner.

        Returns:
            The offsets to read from.

        Raises:
            CheckpointError: If the file is damaged or belongs to another version or shape; the learner is then as new.
        """
        content, state = _read(path)
        if state["version"] != self.version:
            raise CheckpointError(
                f"{path} of version {state['version']}",
                wanted=f"version {self.version}",
                todo="load that version's checkpoint first, or delete the file to start from the new version",
            )
        try:
            arrays = load(content)
            restore_weights(self.crm, self._frozen, arrays)
            restore_optimizers(self._optimizers, state["optimizer_steps"], arrays)
            for model, quality in self._quality.items():
                kept = {name: arrays[f"quality.{model}.{name}"] for name in ("bins", "window")}
                quality.restore(state["sums"][model], kept)
        except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
            self._start_again()
            raise CheckpointError(f"{path}: {error}", wanted="the state of online learning", todo=_TODO) from error
        self.step = state["step"]
        self._counts |= state["counts"]
        self._seen = dict.fromkeys(state["seen"])
        return dict(state["offsets"])

    def _learn(self, impressions: list[Impression]) -> None:
        features, users, items = self._tensors(impressions)
        labels = np.array([item.label for impression in impressions for item in impression.items], np.float32)
        logits = self.crm(features, users, items)  # (B,)
        loss = nn.functional.binary_cross_entropy_with_logits(logits, torch.from_numpy(labels))
        if not torch.isfinite(loss):  # one broken vector must not destroy the weights
            self._counts["n_not_finite"] += len(labels)
            return
        with torch.inference_mode():
            frozen = self._frozen(features, users, items).sigmoid().numpy()  # (B,)
        self._test(impressions, labels, logits.detach().sigmoid().numpy(), frozen)
        for optimizer in self._optimizers:
            optimizer.zero_grad()
        torch.autograd.backward(loss)
        for optimizer in self._optimizers:
            optimizer.step()
        self._counts["n_impressions"] += len(impressions)
        self._counts["n_items"] += len(labels)

    def _test(self, impressions: list[Impression], labels: Vectors, online: Vectors, frozen: Vectors) -> None:
        start = 0
        for impression in impressions:
            part = slice(start, start := start + len(impression.items))
            served = np.array([item.score for item in impression.items], np.float64)
            for model, scores in (("online", online[part]), ("frozen", frozen[part]), ("served", served)):
                self._quality[model].update(labels[part], scores)

    def _tensors(self, impressions: list[Impression]) -> tuple[Features, torch.Tensor, torch.Tensor]:
        """Features with U = B, user vectors (B, d_aug) from the snapshots, item vectors (B, d_aug)."""
        config = self.crm.config
        parts, users = [], []
        for impression in impressions:
            items = [item.item for item in impression.items]
            parts.append(rank_features(impression.user, impression.snapshot.history, items, self._item_lookup, config.features))
            users.append(np.broadcast_to(self._user_vector(impression), (len(items), config.d_aug)))
        names = [item.item for impression in impressions for item in impression.items]
        vectors = np.array(self._vectors_lookup(names), np.float32)  # (B, d_aug); a copy: the caller's matrix goes on changing
        return join_batches(parts), torch.from_numpy(np.concatenate(users)), torch.from_numpy(vectors)

    def _user_vector(self, impression: Impression) -> Vectors:
        """The snapshot's, or the default where there was none or it is of another version."""
        raw, d_aug = impression.snapshot.user_vector, self.crm.config.d_aug
        if impression.version != self.version:
            self._counts["n_other_version"] += 1
            raw = None
        if raw is None or len(raw) != 4 * d_aug:
            return np.zeros(d_aug, np.float32)
        return np.frombuffer(raw, "<f4")

    def _start_again(self) -> None:
        """Undo a restore that broke off half way."""
        self.crm.load_state_dict(self._frozen.state_dict())
        self._optimizers = build_optimizers(self.crm, self._settings.train.online_learning_rate)
        self._quality = {model: OnlineQuality() for model in MODELS}

    def _remember(self, ranking: str) -> None:
        self._seen[ranking] = None
        if len(self._seen) > MAX_SEEN:
            del self._seen[next(iter(self._seen))]


def read_state(path: Path) -> LearnerState | None:
    """Which model a saved state belongs to and how far the input was read; None if there is no file.

    Raises:
        CheckpointError: If the file is damaged.
    """
    if not path.exists():
        return None
    _, state = _read(path)
    return LearnerState(version=state["version"], step=state["step"], offsets=state["offsets"])


def _read(path: Path) -> tuple[bytes, dict[str, Any]]:
    try:
        content = path.read_bytes()
        return content, json.loads(safetensors_metadata(content)[KIND])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}", wanted="the state of online learning", todo=_TODO) from error
