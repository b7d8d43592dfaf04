"""From a batch of buckets to vectors: the part that all backbones and re-rankers share.

An item is the embedding of its id plus the mean of those of its attribute values; an item in a history adds what the user said
of it. Each item of a batch is embedded once, whoever names it.

Shapes: B candidates or samples, U users (B or 1), H history, R items of a batch, A attributes, d embedding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.features import DISLIKED, N_LIKED, PAD

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

EMBEDDING_STD: Final = 0.05  # small: a bucket that was never trained says little
DENSE_ROWS: Final = 16_384  # a table up to this size gets dense gradients: all its rows cost less than sorting those of a batch


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Embedded:
    """One batch as vectors."""

    user: Tensor  # (U, d) id and attributes
    item: Tensor  # (B, d) id alone
    attributes: Tensor  # (B, d) mean of attribute values
    history: Tensor  # (U, H, d) id, attributes and what the user said; what padding holds is of no meaning
    present: Tensor  # (U, H) bool, False at padding
    liked: Tensor  # (U, H) bool, False where the user disliked the item, and at padding

    @property
    def whole_item(self) -> Tensor:
        """(B, d) id and attributes, as in the history."""
        return self.item + self.attributes


class FeatureEmbedding(nn.Module):
    """The tables of users, items and attribute values.

    Args:
        config: Table sizes.
    """

    def __init__(self, config: FeatureConfig) -> None:
        super().__init__()
        d = config.d_embedding
        self.user = _table(config.user_buckets, d)
        self.item = _table(config.item_buckets, d)
        self.attribute = _bag(config.attribute_buckets, d)
        self.liked = _table(N_LIKED, d)
        self.user_attribute = _bag(config.user_attribute_buckets, d) if config.n_user_attributes else None

    def forward(self, features: Features) -> Embedded:
        """Look everything up."""
        ids = self.item(features.items)  # (R, d)
        values = self.attribute(features.attributes)  # (R, d)
        history = functional.embedding(features.history, ids + values)  # (U, H, d)
        user = self.user(features.user)  # (U, d)
        present = features.history != PAD  # (U, H)
        if self.user_attribute is not None:
            user = user + self.user_attribute(features.user_attributes)  # (U, d)
        return Embedded(
            user=user,
            item=functional.embedding(features.item, ids),
            attributes=functional.embedding(features.item, values),
            history=history + self.liked(features.history_liked),
            present=present,
            liked=present & (features.history_liked > DISLIKED),
        )


def _table(rows: int, d: int) -> nn.Embedding:
    table = nn.Embedding(rows, d, padding_idx=PAD, sparse=rows > DENSE_ROWS)
    _initialise(table)
    return table


def _bag(rows: int, d: int) -> nn.EmbeddingBag:
    bag = nn.EmbeddingBag(rows, d, mode="mean", padding_idx=PAD, sparse=rows > DENSE_ROWS)
    _initialise(bag)
    return bag


def _initialise(table: nn.Embedding | nn.EmbeddingBag) -> None:
    nn.init.normal_(table.weight, std=EMBEDDING_STD)
    with torch.no_grad():
        table.weight[PAD].zero_()
