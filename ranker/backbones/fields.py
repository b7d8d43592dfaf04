"""Backbones over fields: a sample is F vectors of one size, and the model is how they meet.

The fields are user, item, attributes, liked (the history items that the user liked, summed over H, so that their number counts as
well), disliked (the others), and with knowledge the two augmented vectors (REKI, section 3.4: they enter a field model as two more
fields). Where d_aug is not d, a linear map brings them there.

Shapes: B samples, U users (B or 1), F fields, H history, d embedding, d_aug augmented vector.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ranker.backbones.base import Backbone
from ranker.backbones.embedding import FeatureEmbedding

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

N_FIELDS: Final = 5  # user, item, attributes, liked, disliked
N_AUGMENTED: Final = 2


class FieldBackbone(Backbone):
    """A backbone that reads (B, F, d); a subclass says how the fields meet.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__()
        d = config.d_embedding
        self.embedding = FeatureEmbedding(config)
        self.n_fields = N_FIELDS + (N_AUGMENTED if d_aug else 0)
        self.user_field = nn.Identity() if d_aug in {0, d} else nn.Linear(d_aug, d, bias=False)
        self.item_field = nn.Identity() if d_aug in {0, d} else nn.Linear(d_aug, d, bias=False)
        self.d_aug = d_aug

    @abstractmethod
    def meet(self, fields: Tensor) -> Tensor:
        """Logits of samples, (B, F, d) -> (B,)."""

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        return self.meet(self.fields(features, user_vectors, item_vectors))

    def fields(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """All fields of a batch, (B, F, d)."""
        embedded = self.embedding(features)
        n = embedded.item.shape[0]
        user_side = [embedded.user, *self._pooled(embedded.history, embedded.present, embedded.liked)]  # (U, d) each
        item_side = [embedded.item, embedded.attributes]  # (B, d) each
        if self.d_aug:
            user_side.append(self.user_field(user_vectors))
            item_side.append(self.item_field(item_vectors))
        return torch.stack([*(one.expand(n, -1) for one in user_side), *item_side], dim=1)  # (B, F, d)

    def attention(self, features: Features) -> Tensor:
        """See `Backbone.attention`: what is pooled counts alike, 1 / H, whatever the candidate."""
        present = (features.history != 0) / features.history.shape[1]  # (U, H)
        return present.expand(features.item.shape[0], -1)  # (B, H)

    def _pooled(self, history: Tensor, present: Tensor, liked: Tensor) -> tuple[Tensor, Tensor]:
        weights = torch.stack([liked, present & ~liked], dim=1) / history.shape[1]  # (U, 2, H)
        both = weights.to(history.dtype) @ history  # (U, 2, H) @ (U, H, d) -> (U, 2, d)
        return both[:, 0], both[:, 1]
