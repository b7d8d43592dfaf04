"""Offline training: HEIN and the CRM together on one loss, from point-in-time samples (REKI, section 3.4).

The last tenth by time is held out, scored once and never trained on; what it says travels in the manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from contracts.errors import DatasetError, RekiError
from hein.network import HEIN, HeinConfig, StreamRegularisation, training_precision
from hein.processor import read_processor
from ranker.crm import CRM, CRMConfig, JointModel, build_optimizers
from ranker.precision import fast_products
from ranker.quality import quality

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from contracts.settings import Settings
    from ranker.samples import Batch, Samples

VALIDATION = 0.1
_SCORING_BATCH = 4_096
_MIN_BATCH = 2  # Dice standardises over the batch


class TrainingError(RekiError):
    """Training went wrong: the loss is not a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """Where a training run stands: after ``step`` of ``n_steps``, with the mean loss since the last report."""

    epoch: int
    step: int
    n_steps: int
    loss: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainedVersion:
    """A trained model, in eval mode, and what the held-out tenth says of it (auc, gauc, logloss)."""

    joint: JointModel
    metrics: dict[str, float]
    n_samples: int


def build_joint(settings: Settings, d_text: int, *, base: bool = False) -> JointModel:
    """A new HEIN and CRM with random weights.

    Args:
        settings: The settings in force.
        d_text: Size of the encoder's vectors.
        base: Without knowledge: the CRM alone.
    """
    crm = CRM(CRMConfig.of(settings, base=base))
    if base:
        return JointModel(crm, None)
    sizes = settings.hein
    config = HeinConfig(
        d_text=d_text,
        d_hidden=sizes.d_hidden,
        d_aug=sizes.d_aug,
        n_shared=sizes.n_shared,
        n_dedicated=sizes.n_dedicated,
        user=StreamRegularisation(dropout=sizes.user_dropout),
        item=StreamRegularisation(dropout=sizes.item_dropout),
    )
    return JointModel(crm, HEIN(config, training_precision(read_processor())))


def train_offline(
    samples: Samples,
    matrix: NDArray[np.float32],
    settings: Settings,
    progress: Callable[[Progress], None] | None = None,
    *,
    base: bool = False,
) -> TrainedVersion:
    """Train a new version. The same samples, settings and seed give the same weights (on one thread).

    Args:
        samples: In time order, as `SampleLog.build` gives them.
        matrix: (N, d_text) encoder vectors, ``samples.matrix``.
        settings: The settings in force.
        progress: Told about every hundredth step and the last.
        base: Without knowledge.

    Raises:
        DatasetError: If there are too few samples.
        TrainingError: If the loss becomes NaN or infinite.
    """
    if not base and matrix.shape[1] == 0:
        raise DatasetError("no knowledge vectors", wanted="at least one encoded subject", todo="wait for the encode role")
    training, held_out = samples.split(VALIDATION, by="time")
    if len(training) < _MIN_BATCH:
        raise DatasetError(f"{len(samples)} samples", wanted=f"at least {_MIN_BATCH + 1}", todo="send more interactions")
    torch.set_num_threads(settings.train.threads)
    with torch.random.fork_rng(devices=[]):  # dropout and initial weights, without touching the caller's generator
        torch.manual_seed(settings.train.seed)
        joint = build_joint(settings, matrix.shape[1], base=base)
        vectors = torch.from_numpy(matrix)
        with fast_products():
            _fit(joint, training, vectors, settings, progress)
    joint.eval()
    metrics = {} if len(held_out) == 0 else quality(held_out.user_number, held_out.label, predict(joint, held_out, vectors))
    return TrainedVersion(joint=joint, metrics=metrics, n_samples=len(training))


def predict(joint: JointModel, samples: Samples, matrix: torch.Tensor) -> NDArray[np.float32]:
    """Probabilities, (B,). The model must be in eval mode."""
    with torch.inference_mode():
        parts = []
        for start in range(0, len(samples), _SCORING_BATCH):
            batch = samples.batch(slice(start, start + _SCORING_BATCH))
            parts.append(joint(batch.features, batch.user_rows, batch.item_rows, matrix).sigmoid())
        scores: NDArray[np.float32] = torch.cat(parts).numpy()
    return scores


def train_step(
    joint: JointModel, optimizers: Sequence[torch.optim.Optimizer], batch: Batch, matrix: torch.Tensor
) -> torch.Tensor:
    """One step on one batch; the loss before it, () detached, so that nobody waits for it on an accelerator."""
    for optimizer in optimizers:
        optimizer.zero_grad()
    logits = joint(batch.features, batch.user_rows, batch.item_rows, matrix)  # (B,)
    loss = nn.functional.binary_cross_entropy_with_logits(logits, batch.label)
    torch.autograd.backward(loss)
    for optimizer in optimizers:
        optimizer.step()
    return loss.detach()


def _fit(
    joint: JointModel,
    training: Samples,
    matrix: torch.Tensor,
    settings: Settings,
    progress: Callable[[Progress], None] | None,
) -> None:
    rng = np.random.default_rng(settings.train.seed)
    optimizers = build_optimizers(joint, settings.train.learning_rate)
    batch_size = max(settings.train.batch, _MIN_BATCH)
    n_steps = settings.train.epochs * len(_batches(np.arange(len(training)), batch_size))
    step, losses = 0, torch.zeros(())
    every = max(n_steps // 100, 1)
    joint.train()
    for epoch in range(settings.train.epochs):
        for index in _batches(rng.permutation(len(training)), batch_size):
            batch = training.batch(index)
            losses += train_step(joint, optimizers, batch, matrix)
            step += 1
            if step % every == 0 or step == n_steps:
                mean = float(losses) / (step % every or every)
                check_loss(mean, step)
                losses.zero_()
                if progress is not None:
                    progress(Progress(epoch=epoch, step=step, n_steps=n_steps, loss=mean))


def check_loss(loss: float, step: int) -> None:
    """Stop at a loss that is no number.

    Raises:
        TrainingError: It is NaN or infinite.
    """
    if not np.isfinite(loss):
        raise TrainingError(
            f"a loss of {loss} at step {step}",
            wanted="a finite loss",
            todo="lower the learning rate, or look for NaN in the knowledge vectors",
        )


def _batches(order: NDArray[np.integer], size: int) -> list[NDArray[np.integer]]:
    """Batches of ``size``; a last one too small for Dice is left out (another permutation has it elsewhere)."""
    parts = [order[start : start + size] for start in range(0, len(order), size)]
    return [part for part in parts if len(part) >= _MIN_BATCH]
