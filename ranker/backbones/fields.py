"""Backbones over fields: a sample is F vectors of one size, and the model is how they meet.

The fields are the five of `PooledBackbone` and with knowledge the two augmented vectors (REKI, section 3.4: they enter a field
model as two more fields). Where d_aug is not d, a linear map brings them there.

Shapes: B samples, U users (B or 1), F fields, d embedding, d_aug augmented vector.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ranker.backbones.pooled import N_CONVENTIONAL, PooledBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

N_AUGMENTED: Final = 2


class FieldBackbone(PooledBackbone):
    """A backbone that reads (B, F, d); a subclass says how the fields meet.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        d = config.d_embedding
        self.n_fields = N_CONVENTIONAL + (N_AUGMENTED if d_aug else 0)
        self.user_field = nn.Identity() if d_aug in {0, d} else nn.Linear(d_aug, d, bias=False)
        self.item_field = nn.Identity() if d_aug in {0, d} else nn.Linear(d_aug, d, bias=False)

    @abstractmethod
    def meet(self, fields: Tensor) -> Tensor:
        """Logits of samples, (B, F, d) -> (B,)."""

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        return self.meet(self.fields(features, user_vectors, item_vectors))

    def fields(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """All fields of a batch, (B, F, d)."""
        fields = self.conventional(features)  # (B, d) each
        if self.d_aug:
            fields += [self.user_field(user_vectors).expand_as(fields[0]), self.item_field(item_vectors)]
        return torch.stack(fields, dim=1)  # (B, F, d)
