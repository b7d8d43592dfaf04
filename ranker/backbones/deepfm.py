"""DeepFM: a factorization machine and a deep network over the same embeddings (Guo et al., IJCAI 2017, arXiv 1703.04247).

logit = first order + pairs + deep. Pairs is the sum of <v_i, v_j> over all pairs of fields (section 2.1), computed as half of
(sum v)^2 - sum v^2. The pairs are those of the five conventional fields; the augmented vectors enter the deep part and the
first order as they are, whatever d_aug is (as in KAR's code).

The first order is done otherwise. The paper has one weight per feature value; DeepCTR and FuxiCTR keep them in tables of one
column; KAR has such tables for item and attributes alone, none for user and history. Here it is one linear layer over [fields,
vectors], so a value's weight is its embedding along one direction. That needs no second lookup, covers user and history as well,
and ties the weights of rare values to what their embeddings learn. KAR also draws the vectors' weights from [0, 1); these start
small.

Shapes: B samples, U users (B or 1), F = 5 conventional fields, d embedding, n = F d + 2 d_aug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from ranker.backbones.deep import deep_network
from ranker.backbones.pooled import N_CONVENTIONAL, PooledBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features


class DeepFM(PooledBackbone):
    """The factorization machine with a deep part.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        self.d = config.d_embedding
        self.first_order = nn.Linear(self.n_flat, 1, bias=False)  # the bias is the deep part's
        self.deep = deep_network(self.n_flat)

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        row = self.flat(features, user_vectors, item_vectors)  # (B, n)
        fields = row[:, : N_CONVENTIONAL * self.d].view(len(row), N_CONVENTIONAL, self.d)  # (B, F, d)
        linear: Tensor = self.first_order(row) + self.deep(row)  # (B, 1)
        return linear.squeeze(1) + self.pairs(fields)  # (B,)

    @staticmethod
    def pairs(fields: Tensor) -> Tensor:
        """The sum of inner products over all pairs of fields, (B, F, d) -> (B,)."""
        of_sum = fields.sum(dim=1).square().sum(dim=1)  # (B,)
        of_each = fields.square().sum(dim=(1, 2))  # (B,)
        return 0.5 * (of_sum - of_each)
