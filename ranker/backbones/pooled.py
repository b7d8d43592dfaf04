"""Backbones that read a history as a sum: five conventional fields, and the two augmented vectors beside them.

The fields are user, liked (the history items that the user liked, summed over H, so that their number counts as well), disliked
(the others), item and attributes. How the augmented vectors enter is the subclass's: as two more fields (`FieldBackbone`), or as
they are (`flat`), for networks that read one long row.

Shapes: B samples, U users (B or 1), F fields, H history, d embedding, d_aug augmented vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from ranker.backbones.base import Backbone
from ranker.backbones.embedding import FeatureEmbedding

if TYPE_CHECKING:
    from ranker.backbones.embedding import Embedded
    from ranker.features import FeatureConfig, Features

N_CONVENTIONAL: Final = 5  # user, liked, disliked, item, attributes


class PooledBackbone(Backbone):
    """A backbone over fields that do not depend on the candidate.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(config)
        self.d_aug = d_aug
        self.n_flat = N_CONVENTIONAL * config.d_embedding + 2 * d_aug

    def conventional(self, features: Features) -> list[Tensor]:
        """The five conventional fields, (B, d) each."""
        embedded = self.embedding(features)
        user_side = [embedded.user, *_pooled(embedded)]  # (U, d) each
        n = embedded.item.shape[0]
        return [*(one.expand(n, -1) for one in user_side), embedded.item, embedded.attributes]  # (B, d) each

    def flat(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """The fields one behind the other and the augmented vectors as they are, (B, 5 d + 2 d_aug)."""
        users = user_vectors.expand(item_vectors.shape[0], -1)  # (B, d_aug)
        return torch.cat([*self.conventional(features), users, item_vectors], dim=1)  # (B, 5 d + 2 d_aug)

    def attention(self, features: Features) -> Tensor:
        """See `Backbone.attention`: what is pooled counts alike, 1 / H, whatever the candidate."""
        present = (features.history != 0) / features.history.shape[1]  # (U, H)
        return present.expand(features.item.shape[0], -1)  # (B, H)


def _pooled(embedded: Embedded) -> tuple[Tensor, Tensor]:
    history = embedded.history  # (U, H, d)
    weights = torch.stack([embedded.liked, embedded.present & ~embedded.liked], dim=1) / history.shape[1]  # (U, 2, H)
    both = weights.to(history.dtype) @ history  # (U, 2, H) @ (U, H, d) -> (U, 2, d)
    return both[:, 0], both[:, 1]
