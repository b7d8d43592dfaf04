"""DCN: crosses of bounded degree beside a deep network (Wang et al., ADKDD 2017, arXiv 1708.05123).

A cross layer is x_{l+1} = x_0 (x_l . w_l) + b_l + x_l (section 2.2), over the row x_0 of all fields and both augmented vectors,
one behind the other; L layers reach degree L + 1. The combination layer (section 2.4) is linear over [x_L, deep].

Computed otherwise, with the same result: by induction x_l = a_l x_0 + c_l, where a_l is one number per sample and c_l the sum of
the biases so far. So all layers together cost one product (B, n) (n, L) and L steps over (B, 1). It also shows what the layer can
say: x_0 times a polynomial of itself (DCNv2 lifts that).

KAR's code differs: it puts another MLP of 200 and 80 behind [x_L, deep], which the paper does not have and DeepCTR-Torch has not
either. KAR has 3 cross layers, and so has this; the paper tunes their number.

Shapes: B samples, U users (B or 1), L cross layers, n = 5 d + 2 d_aug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from ranker.backbones.deep import deep_network
from ranker.backbones.pooled import PooledBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

N_CROSS: Final = 3  # KAR's code


class DCN(PooledBackbone):
    """The deep and cross network.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        self.cross_weights = nn.Linear(self.n_flat, N_CROSS, bias=False)  # row l is w_l
        self.cross_biases = nn.Parameter(torch.zeros(N_CROSS, self.n_flat))  # row l is b_l
        self.combine = nn.Linear(self.n_flat, 1, bias=False)
        self.deep = deep_network(self.n_flat)

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        x_0 = self.flat(features, user_vectors, item_vectors)  # (B, n)
        logits: Tensor = self.combine(self.cross(x_0)) + self.deep(x_0)  # (B, 1)
        return logits.squeeze(1)  # (B,)

    def cross(self, x_0: Tensor) -> Tensor:
        """All cross layers, (B, n) -> (B, n)."""
        products = self.cross_weights(x_0)  # (B, L): x_0 . w_l
        scale, shift = x_0.new_ones(len(x_0), 1), x_0.new_zeros(self.n_flat)  # (B, 1), (n,)
        for layer in range(N_CROSS):
            dot = scale * products[:, layer : layer + 1] + shift @ self.cross_weights.weight[layer]  # (B, 1): x_l . w_l
            scale = scale + dot  # (B, 1)
            shift = shift + self.cross_biases[layer]  # (n,)
        return scale * x_0 + shift  # (B, n)
