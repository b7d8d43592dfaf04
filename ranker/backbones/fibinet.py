"""FiBiNET: fields weighted by importance, and every pair met through a matrix (Huang et al., RecSys 2019, arXiv 1905.09433).

Taken from the paper: SENET (mean over d, two layers with ReLU, reduction ratio 3, one weight for each field), the bilinear
interaction p_ij = v_i W o v_j over the fields and over the weighted fields, both concatenated into a deep network, and first
order. Of the three kinds of W this is "field-interaction", one matrix for each pair, as in FuxiCTR: it can say most, and its
price, F (F - 1) / 2 matrices instead of F - 1 or one, is small where F is 7 (21,504 weights, a sixth of the arithmetic of the
first deep layer). Both interactions share the matrices, as in KAR's code; FuxiCTR has two sets.

First order: a linear map over all fields, so that the augmented vectors have one as well, and a value's weight is its embedding
along one direction; FuxiCTR learns one free weight for each feature value, KAR has no first order. KAR has one matrix for all
pairs ("field-all"), and its reduction ratio of 0.5 gives twice as many hidden units as fields: no bottleneck.

Shapes: B samples, F fields, d embedding, P pairs of fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ranker.backbones.deep import deep_network
from ranker.backbones.fields import FieldBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig

REDUCTION: Final = 3  # section 4.1 of the paper


class FiBiNET(FieldBackbone):
    """The network of feature importance and bilinear interaction.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        n, d = self.n_fields, config.d_embedding
        reduced = max(1, n // REDUCTION)
        self.excite = nn.Sequential(nn.Linear(n, reduced, bias=False), nn.ReLU(), nn.Linear(reduced, n, bias=False), nn.ReLU())
        # field i with all fields behind it in one product: the matrices of its pairs side by side
        self.pairs = nn.ModuleList(nn.Linear(d, (n - 1 - i) * d, bias=False) for i in range(n - 1))
        self.first_order = nn.Linear(n * d, 1, bias=False)
        self.deep = deep_network(n * (n - 1) * d)  # P pairs twice

    def meet(self, fields: Tensor) -> Tensor:
        """See `FieldBackbone.meet`."""
        crossed = torch.cat([self.interact(fields), self.interact(self.reweight(fields))], dim=1)  # (B, 2 P, d)
        logits: Tensor = self.deep(crossed.flatten(1)) + self.first_order(fields.flatten(1))  # (B, 1)
        return logits.squeeze(1)  # (B,)

    def reweight(self, fields: Tensor) -> Tensor:
        """SENET: each field times its importance in this sample, (B, F, d) -> (B, F, d)."""
        importance: Tensor = self.excite(fields.mean(2))  # (B, F)
        return fields * importance.unsqueeze(2)  # (B, F, d)

    def interact(self, fields: Tensor) -> Tensor:
        """All pairs, in the order (0, 1), (0, 2) ... (F - 2, F - 1), (B, F, d) -> (B, P, d)."""
        n, _, d = fields.shape
        return torch.cat(
            [
                matrices(fields[:, i]).view(n, len(self.pairs) - i, d) * fields[:, i + 1 :]
                for i, matrices in enumerate(self.pairs)
            ],
            dim=1,
        )
