"""DCNv2: the cross network with a full matrix per layer (Wang et al., WWW 2021, arXiv 2008.13535).

A cross layer (equation 1) is x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, * element by element, over the row x_0 of all fields and both
augmented vectors, one behind the other. Each pair of numbers has its own weight, an entry of W_l; DCN has one vector for all.

The paper gives two structures, stacked (deep over x_L) and parallel (linear over [x_L, deep]). This is the parallel one, as in
KAR's code and as FuxiCTR's default, so that DCN and DCNv2 differ in the cross layer alone. W_l is the full matrix: the low-rank
mixture of the paper pays for rows of thousands of numbers, n is 224 at the default sizes.

KAR's code differs: it puts another MLP of 200 and 80 behind [x_L, deep], which the paper does not have.

Shapes: B samples, U users (B or 1), n = 5 d + 2 d_aug.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import Tensor, nn

from ranker.backbones.deep import deep_network
from ranker.backbones.pooled import PooledBackbone

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

N_CROSS: Final = 3  # KAR's code


class DCNv2(PooledBackbone):
    """The improved deep and cross network, parallel structure.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__(config, d_aug)
        self.cross_layers = nn.ModuleList(nn.Linear(self.n_flat, self.n_flat) for _ in range(N_CROSS))
        self.combine = nn.Linear(self.n_flat, 1, bias=False)
        self.deep = deep_network(self.n_flat)

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        x_0 = self.flat(features, user_vectors, item_vectors)  # (B, n)
        logits: Tensor = self.combine(self.cross(x_0)) + self.deep(x_0)  # (B, 1)
        return logits.squeeze(1)  # (B,)

    def cross(self, x_0: Tensor) -> Tensor:
        """All cross layers, (B, n) -> (B, n)."""
        x = x_0
        for layer in self.cross_layers:
            x = x_0 * layer(x) + x  # (B, n)
        return x
