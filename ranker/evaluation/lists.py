"""Re-ranking as a problem for the training loop: a re-ranker and an arm, trained on lists, scored on those of unseen users."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from hein.network import HEIN
from ranker.evaluation.ctr import hein_config
from ranker.evaluation.rerank_training import JointReranker, ListSamples, scores, step_loss
from ranker.evaluation.task import LIST_SIZE, PARTS
from ranker.list_quality import list_quality
from ranker.rerankers import build_reranker

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from hein.network import Precision
    from ranker.evaluation.columns import ArmColumns
    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.task import EvaluationTask, Part


class RerankProblem:
    """`ranker.evaluation.training.Problem` for re-ranking; the metric that chooses is NDCG@5.

    Args:
        columns: The task as the arm sees it.
        backbone: A key of `ranker.rerankers.RERANKERS`.
        recipe: Sizes and regularisation.
        precision: Of HEIN's products in training.
    """

    chosen_by = "ndcg@5"

    def __init__(self, columns: ArmColumns, backbone: str, recipe: Recipe, precision: Precision) -> None:
        self.parts = {part: list_samples(columns, part) for part in PARTS}
        self.matrix = torch.from_numpy(columns.knowledge.matrix)  # (N, d_text)
        self._batch = recipe.batch
        uses = columns.arm.uses_knowledge
        reranker = build_reranker(backbone, columns.config, recipe.d_aug if uses else 0, LIST_SIZE)
        hein = HEIN(hein_config(recipe, self.matrix.shape[1]), precision) if uses else None
        self.module = JointReranker(reranker, hein)

    def batches(self, draw: np.random.Generator) -> list[NDArray[np.integer]]:
        """See `Problem.batches`: all training lists once."""
        order = draw.permutation(len(self.parts["train"]))
        return [order[start : start + self._batch] for start in range(0, len(order), self._batch)]

    def loss(self, index: NDArray[np.integer]) -> Tensor:
        """See `Problem.loss`: softmax cross-entropy of lists."""
        return step_loss(self.module, self.parts["train"].batch(index), self.matrix)

    def quality(self, part: Part) -> dict[str, float]:
        """See `Problem.quality`: map@k and ndcg@k."""
        lists = self.parts[part]
        return list_quality(lists.label, scores(self.module, lists, self.matrix), lists.present).metrics

    def n_samples(self) -> dict[str, int]:
        """Lists by part."""
        return {part: len(lists) for part, lists in self.parts.items()}


def list_samples(columns: ArmColumns, part: Part) -> ListSamples:
    """The lists of a part, with the samples that they name.

    Args:
        columns: The task as the arm sees it.
        part: Whose users.
    """
    lists, index = columns.task.lists(part), columns.task.part(part)
    return ListSamples.of(
        columns.samples(index),
        np.searchsorted(index, lists.samples),  # rows of the task -> rows of the part's samples
        lists.scores,
        np.searchsorted(index, lists.first),
    )


def initial_quality(task: EvaluationTask) -> dict[str, float]:
    """What the initial order of the test lists is worth: the line that every re-ranker has to beat."""
    lists = task.lists("test")
    return list_quality(task.label[lists.samples], lists.scores).metrics
