"""AutoInt: fields attend to each other, layer upon layer (Song et al., CIKM 2019, arXiv 1810.11921).

Taken from the paper: heads with an inner product that is not scaled, heads side by side, a residual through a matrix of its own
and ReLU (section 4.4), and a logit that is linear in the fields of the last layer (section 4.5). It has no first order: the
residual carries the fields to the last layer. The deep network of AutoInt+ is left out, as in KAR's code.

Public implementations differ. The authors' own puts ReLU on queries, keys and values, scales, and normalises each layer; KAR
scales and has one head of 64. FuxiCTR until 2022 (issue 30) split heads by a view without a transpose, which mixes fields once
there is more than one head; KAR still does, harmless with its one. DeepCTR-Torch until 2020 (issue 63) took the softmax over
the batch, so that the score of an item depended on the others. RecBole has residual and ReLU once, after the last layer, and
always a first order and a deep network, which are options in FuxiCTR.

Shapes: B samples, F fields, d embedding, H heads, a size of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ranker.backbones.fields import FieldBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig

N_LAYERS: Final = 3  # section 5.1 of the paper, as the next two
N_HEADS: Final = 2
D_HEAD: Final = 32


class AutoInt(FieldBackbone):
    """The network of self-attention over fields.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        width = N_HEADS * D_HEAD
        # queries, keys, values and the residual in one product
        self.layers = nn.ModuleList(nn.Linear(d, 4 * width, bias=False) for d in (config.d_embedding, *[width] * (N_LAYERS - 1)))
        self.last = nn.Linear(self.n_fields * width, 1)

    def meet(self, fields: Tensor) -> Tensor:
        """See `FieldBackbone.meet`."""
        states = fields  # (B, F, d)
        for layer in self.layers:
            states = self.interact(layer(states))  # (B, F, H a)
        logits: Tensor = self.last(states.flatten(1))  # (B, 1)
        return logits.squeeze(1)  # (B,)

    @staticmethod
    def interact(projected: Tensor) -> Tensor:
        """One layer behind its projections: (B, F, 4 H a) of query, key, value and residual -> (B, F, H a)."""
        heads = projected.view(*projected.shape[:2], 4, N_HEADS, D_HEAD).permute(2, 0, 3, 1, 4)  # (4, B, H, F, a)
        query, key, value, residual = heads.unbind(0)  # (B, H, F, a) each
        # keys in rows: over a last axis of seven the softmax is slow
        weights = torch.softmax(key @ query.transpose(2, 3), dim=2)  # (B, H, F keys, F queries)
        states = torch.relu(weights.transpose(2, 3) @ value + residual)  # (B, H, F, a)
        return states.transpose(1, 2).flatten(2)  # (B, F, H a)
