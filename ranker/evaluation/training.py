"""The training loop of an evaluation, the same for every model, arm and task: validation after each epoch, the best one kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import torch

from ranker.crm import build_optimizers
from ranker.evaluation.results import EpochResult
from ranker.offline import check_loss
from ranker.precision import fast_products

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.task import Part

_REPORTS_PER_EPOCH: Final = 50


class Problem(Protocol):
    """What the loop trains: a model with its samples."""

    @property
    def module(self) -> nn.Module:
        """What is trained; HEIN stands in it under the name ``hein``."""
        ...

    @property
    def chosen_by(self) -> str:
        """The validation metric by which the best epoch is chosen; higher is better."""
        ...

    def batches(self, draw: np.random.Generator) -> list[NDArray[np.integer]]:
        """The batches of one epoch, in an order drawn by ``draw``."""
        ...

    def loss(self, index: NDArray[np.integer]) -> Tensor:
        """Loss of one batch, () with gradient."""
        ...

    def quality(self, part: Part) -> dict[str, float]:
        """Metrics of a part; the module is in eval mode."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What training gave; the module holds the weights of the best epoch and is in eval mode."""

    epochs: list[EpochResult]
    best_epoch: int
    train_s: float
    n_steps: int


def fit(problem: Problem, recipe: Recipe, seed: int, progress: Callable[[float], None] | None = None) -> Fitted:
    """Train until validation no longer gets better. The same problem, recipe and seed give the same weights on one thread.

    Args:
        problem: What to train. Only its validation part is looked at.
        recipe: How.
        seed: Of order and dropout.
        progress: Told the part of all epochs that is done, 0 to 1.

    Raises:
        TrainingError: The loss is not a number.
    """
    draw = np.random.default_rng(seed)
    optimizers = build_optimizers(
        problem.module,
        recipe.learning_rate,
        hein_learning_rate=recipe.hein_learning_rate,
        hein_weight_decay=recipe.hein_weight_decay,
    )
    epochs: list[EpochResult] = []
    best_epoch, best_weights, n_steps = 0, problem.module.state_dict(), 0
    for epoch in range(recipe.epochs):
        batches = problem.batches(draw)
        with fast_products():
            loss, train_s = _epoch(problem, optimizers, batches, partial(_tell, progress, recipe.epochs, epoch))
        n_steps += len(batches)
        problem.module.eval()
        epochs.append(EpochResult(loss=loss, validation=problem.quality("validation"), train_s=train_s))
        scores = [one.validation[problem.chosen_by] for one in epochs]
        if scores[-1] >= max(scores):
            best_epoch, best_weights = epoch, deepcopy(problem.module.state_dict())
        elif epoch - best_epoch >= recipe.patience:
            break
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] *= recipe.decay
    problem.module.load_state_dict(best_weights)
    problem.module.eval()
    _tell(progress, 1, 0, 1.0)
    return Fitted(epochs=epochs, best_epoch=best_epoch, train_s=sum(one.train_s for one in epochs), n_steps=n_steps)


def _epoch(
    problem: Problem,
    optimizers: list[torch.optim.Optimizer],
    batches: list[NDArray[np.integer]],
    told: Callable[[float], None],
) -> tuple[float, float]:
    """Mean loss and seconds of one pass."""
    problem.module.train()
    total, every, started = torch.zeros(()), max(len(batches) // _REPORTS_PER_EPOCH, 1), time.perf_counter()
    for step, index in enumerate(batches, 1):
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = problem.loss(index)
        torch.autograd.backward(loss)
        for optimizer in optimizers:
            optimizer.step()
        total += loss.detach()
        if step % every == 0:
            check_loss(float(total), step)
            told(step / len(batches))
    check_loss(float(total), len(batches))
    return float(total) / max(len(batches), 1), time.perf_counter() - started


def _tell(progress: Callable[[float], None] | None, n_epochs: int, epoch: int, done: float) -> None:
    if progress is not None:
        progress((epoch + done) / n_epochs)
