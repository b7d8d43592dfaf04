"""DIN: what of a user's history counts depends on the candidate (Zhou et al., KDD 2018, arXiv 1706.06978).

Taken from the paper: the attention unit (section 4.3, figure 2: 36 hidden units, one weight out), weights that are summed
without a softmax, so that the strength of an interest survives, Dice (section 5.3) and a last network of 200 and 80 units. As
in the authors' code the unit reads [q, k, q - k, q * k]. Taken otherwise: PReLU inside the unit (Dice would mix padding into
its statistics), one logit instead of two, and an item is id + mean of attribute values, a history item adds what the user said
of it. The augmented vectors are concatenated before the last network (REKI, section 3.4).

Both first layers are computed in two halves, user side and candidate side, and added: the same numbers, but in a ranking the
user side is computed once for all candidates.

Shapes: B candidates or samples, U users (B or 1), H history, A attributes, d embedding, h hidden, d_aug augmented vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ranker.backbones.base import Backbone
from ranker.backbones.dice import Dice
from ranker.backbones.embedding import FeatureEmbedding

if TYPE_CHECKING:
    from ranker.backbones.embedding import Embedded
    from ranker.features import FeatureConfig, Features

UNIT, HIDDEN_1, HIDDEN_2 = 36, 200, 80  # figure 2 of the paper


class DIN(Backbone):
    """The deep interest network.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__()
        d = config.d_embedding
        self.embedding = FeatureEmbedding(config)
        self.unit_query = nn.Linear(d, UNIT)
        self.unit_key = nn.Linear(d, UNIT, bias=False)
        self.unit_product = nn.Linear(d, UNIT, bias=False)
        self.unit_activation = nn.PReLU()
        self.unit_weight = nn.Linear(UNIT, 1)
        self.user_side = nn.Linear(d + d_aug, HIDDEN_1)
        self.item_side = nn.Linear(2 * d + d_aug, HIDDEN_1, bias=False)
        self.last = nn.Sequential(Dice(HIDDEN_1), nn.Linear(HIDDEN_1, HIDDEN_2), Dice(HIDDEN_2), nn.Linear(HIDDEN_2, 1))

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        embedded = self.embedding(features)
        weights = self._weights(embedded)  # (B, H)
        interest = (weights.unsqueeze(1) @ embedded.history).squeeze(1)  # (B, 1, H) @ (B or 1, H, d) -> (B, d)
        user = torch.cat([embedded.user, user_vectors], dim=1)  # (U, d + d_aug)
        item = torch.cat([embedded.whole_item, interest, item_vectors], dim=1)  # (B, 2 d + d_aug)
        logits: Tensor = self.last(self.user_side(user) + self.item_side(item))  # (B, 1)
        return logits.squeeze(1)  # (B,)

    def attention(self, features: Features) -> Tensor:
        """See `Backbone.attention`; the weights as they are summed, not normalised."""
        return self._weights(self.embedding(features))

    def _weights(self, embedded: Embedded) -> Tensor:
        query, keys = embedded.whole_item, embedded.history  # (B, d), (U, H, d)
        # a linear layer over [q, k, q - k, q * k] is a sum of one layer each; q - k is absorbed by the first two
        hidden = self.unit_query(query).unsqueeze(1) + self.unit_key(keys)  # (B, H, h)
        if keys.shape[0] == 1:  # (q * k) W = q (k * W): one product with (d, H h) instead of (B, H, d)
            product = torch.einsum("hd,xd->dhx", keys[0], self.unit_product.weight)  # (d, H, h)
            hidden = hidden + (query @ product.flatten(1)).view(hidden.shape)  # (B, H, h)
        else:
            hidden = hidden + self.unit_product(query.unsqueeze(1) * keys)  # (B, H, h)
        weights: Tensor = self.unit_weight(self.unit_activation(hidden)).squeeze(2)  # (B, H)
        return weights * embedded.present
