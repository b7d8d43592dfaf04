"""CTR prediction as a problem for the training loop: a backbone and an arm, trained on the training users, scored on unseen ones.

Shapes: S samples of a part, C chunks, N rows of knowledge, d_text encoder vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn

from hein.network import HEIN, HeinConfig, StreamRegularisation
from ranker.crm import CRM, CRMConfig, JointModel
from ranker.evaluation.task import PARTS
from ranker.offline import predict
from ranker.quality import quality

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hein.network import Precision
    from ranker.evaluation.columns import ArmColumns
    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.task import Part

_MIN_BATCH: Final = 2  # Dice standardises over the batch


class CtrProblem:
    """`ranker.evaluation.training.Problem` for CTR prediction; the metric that chooses is AUC.

    Args:
        columns: The task as the arm sees it.
        backbone: A key of `ranker.backbones.BACKBONES`.
        recipe: Sizes and regularisation.
        precision: Of HEIN's products in training.
    """

    chosen_by = "auc"

    def __init__(self, columns: ArmColumns, backbone: str, recipe: Recipe, precision: Precision) -> None:
        self.parts = {part: columns.samples(columns.task.part(part)) for part in PARTS}
        self.matrix = torch.from_numpy(columns.knowledge.matrix)  # (N, d_text)
        self._recipe = recipe
        uses = columns.arm.uses_knowledge
        crm = CRM(CRMConfig(backbone=backbone, features=columns.config, d_aug=recipe.d_aug if uses else 0))
        self.module = JointModel(crm, HEIN(hein_config(recipe, self.matrix.shape[1]), precision) if uses else None)

    def batches(self, draw: np.random.Generator) -> list[NDArray[np.integer]]:
        """See `Problem.batches`: all training samples once, `Recipe.together` samples of a user side by side."""
        order = chunked_order(self.parts["train"].user_number, self._recipe.together, draw)
        parts = [order[start : start + self._recipe.batch] for start in range(0, len(order), self._recipe.batch)]
        return [part for part in parts if len(part) >= _MIN_BATCH]

    def loss(self, index: NDArray[np.integer]) -> Tensor:
        """See `Problem.loss`: binary cross-entropy."""
        batch = self.parts["train"].batch(index)
        logits = self.module(batch.features, batch.user_rows, batch.item_rows, self.matrix)  # (B,)
        return nn.functional.binary_cross_entropy_with_logits(logits, batch.label)

    def quality(self, part: Part) -> dict[str, float]:
        """See `Problem.quality`: auc, gauc (by user) and logloss."""
        samples = self.parts[part]
        return quality(samples.user_number, samples.label, predict(self.module, samples, self.matrix))

    def n_samples(self) -> dict[str, int]:
        """Samples by part."""
        return {part: len(samples) for part, samples in self.parts.items()}


def hein_config(recipe: Recipe, d_text: int) -> HeinConfig:
    """HEIN as the recipe has it.

    Args:
        recipe: Sizes and regularisation.
        d_text: Size of an encoder vector.
    """
    return HeinConfig(
        d_text=d_text,
        d_hidden=recipe.d_hidden,
        d_aug=recipe.d_aug,
        n_shared=recipe.n_shared,
        n_dedicated=recipe.n_dedicated,
        expert_dropout=recipe.expert_dropout,
        user=StreamRegularisation(dropout=recipe.user_dropout, noise=recipe.user_noise, default_rate=recipe.user_default_rate),
        item=StreamRegularisation(dropout=recipe.item_dropout),
    )


def chunked_order(users: NDArray[np.integer], together: int, draw: np.random.Generator) -> NDArray[np.integer]:
    """A random order of all samples in which up to ``together`` samples of one user stand side by side.

    Which samples share a chunk is drawn anew each time, and so is the order of the chunks.

    Args:
        users: (S,) user number of each sample.
        together: Samples of a chunk; 1 is a plain shuffle.
        draw: Source of chance.

    Returns:
        (S,) positions.
    """
    if together == 1:
        return draw.permutation(len(users))
    order = np.lexsort((draw.random(len(users)), users))  # (S,) by user, shuffled inside
    new_user = np.r_[True, users[order][1:] != users[order][:-1]]
    start = np.maximum.accumulate(np.where(new_user, np.arange(len(order)), 0))  # (S,) first place of the user
    chunk = np.cumsum((np.arange(len(order)) - start) % together == 0) - 1  # (S,)
    place = draw.permutation(chunk[-1] + 1)[chunk] if len(chunk) else chunk  # (S,)
    shuffled: NDArray[np.integer] = order[np.argsort(place, kind="stable")]
    return shuffled
