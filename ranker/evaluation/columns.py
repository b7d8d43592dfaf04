"""From a task and an arm to what a model trains on: `Samples`, and the exact sizes of its tables.

A live model hashes ids because they arrive on a stream (`ranker.features`). Here all items are known, so every item and every
attribute value has a row of its own, and no result hangs on which ids happen to collide.

Shapes: B samples, U users, M items, H history, A attributes of an item, A_u attributes of a user.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from numpy.typing import NDArray

from ranker.evaluation.task import recent
from ranker.features import FeatureConfig, ItemTable
from ranker.samples import Samples

if TYPE_CHECKING:
    from ranker.evaluation.arms import Arm, Knowledge
    from ranker.evaluation.task import EvaluationTask, Pairs

MAX_ATTRIBUTES: Final = 8  # of an item: six genres and a year on MovieLens-1M

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ArmColumns:
    """A task as one arm sees it. Samples of a part cost their own size; what all share is held once."""

    task: EvaluationTask
    arm: Arm
    knowledge: Knowledge
    config: FeatureConfig
    items: ItemTable  # (M + 1,)
    user_attributes: Ints  # (U, A_u) buckets; A_u is 0 in an arm without demographics

    def samples(self, index: NDArray[np.integer]) -> Samples:
        """Some of the task's samples, in the order of ``index``, (B,).

        The user's bucket is 0, padding, in every sample: test users are unseen, so an embedding of the training users' ids could
        only learn them by heart. What is known of a user is history, demographics and knowledge.
        """
        task, users, item = self.task, self.task.user[index], self.task.item[index]
        history, history_liked = recent(task.history[index], task.history_liked[index], self.config.history)
        return Samples(
            user=np.zeros(len(users), np.int32),
            user_number=users,
            user_attributes=self.user_attributes[users],
            item=item,
            history=history,
            history_liked=history_liked,
            label=task.label[index],
            event_ms=task.event_ms[index],
            user_rows=self.knowledge.user_rows[users],
            item_rows=self.knowledge.item_rows[item],
            items=self.items,
            matrix=self.knowledge.matrix,
        )


def arm_columns(task: EvaluationTask, arm: Arm, knowledge: Knowledge, d_embedding: int) -> ArmColumns:
    """Everything that an arm's model reads.

    Args:
        task: The data.
        arm: What is read of it.
        knowledge: From `ranker.evaluation.arms.arm_knowledge`.
        d_embedding: Size of an embedding.
    """
    pairs = [tuple((name, value) for name in sorted(a) for value in a[name])[:MAX_ATTRIBUTES] for a in task.attributes]
    attributes, n_values = _numbered([(), *pairs])
    demographics, n_user_values = _numbered(task.demographics if arm.demographics else [()] * len(task.users))
    config = FeatureConfig(
        user_buckets=1,  # padding alone
        item_buckets=len(task.items) + 1,
        attribute_buckets=n_values + 1,
        history=arm.history,
        n_attributes=attributes.shape[1],
        d_embedding=d_embedding,
        n_user_attributes=demographics.shape[1],
        user_attribute_buckets=n_user_values + 1,
    )
    table = ItemTable(item=torch.arange(len(task.items) + 1), attributes=torch.from_numpy(attributes.astype(np.int64)))
    return ArmColumns(task=task, arm=arm, knowledge=knowledge, config=config, items=table, user_attributes=demographics)


def _numbered(pairs: Sequence[Pairs]) -> tuple[Ints, int]:
    """Distinct pairs numbered from 1, 0 behind the last of a row: (n, most pairs of a row), and how many there are."""
    numbers = {pair: number for number, pair in enumerate(sorted({pair for row in pairs for pair in row}), 1)}
    table = np.zeros((len(pairs), max(map(len, pairs), default=0)), np.int32)
    for row, own in zip(table, pairs, strict=True):
        row[: len(own)] = [numbers[pair] for pair in own]
    return table, len(numbers)
