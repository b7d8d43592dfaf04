"""The cross network of DCNv2 against its formula, number by number in loops."""

from __future__ import annotations

import numpy as np
import torch

from ranker.backbones.dcn import DCN
from ranker.backbones.dcnv2 import N_CROSS, DCNv2
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=5, item_buckets=6, attribute_buckets=4, history=2, n_attributes=1, d_embedding=2)


def test_cross_layers_are_those_of_the_paper() -> None:
    torch.manual_seed(0)
    backbone = DCNv2(SIZES, 3).double()
    rows = torch.randn(4, backbone.n_flat, dtype=torch.float64)
    wanted = rows.numpy().copy()
    for layer in backbone.cross_layers:
        matrix, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
        after = np.empty_like(wanted)
        for n, (x_0, x) in enumerate(zip(rows.numpy(), wanted, strict=True)):
            for i in range(len(x)):
                after[n, i] = x_0[i] * (sum(matrix[i, j] * x[j] for j in range(len(x))) + bias[i]) + x[i]
        wanted = after
    assert len(backbone.cross_layers) == N_CROSS
    np.testing.assert_allclose(backbone.cross(rows).detach().numpy(), wanted, rtol=1e-10)


def test_with_the_same_row_in_every_matrix_it_is_dcn() -> None:
    torch.manual_seed(0)
    first, second = DCN(SIZES, 0).double(), DCNv2(SIZES, 0).double()
    with torch.no_grad():
        for layer, weights in zip(second.cross_layers, first.cross_weights.weight, strict=True):
            layer.weight.copy_(weights.expand_as(layer.weight))
            layer.bias.zero_()  # DCN's bias stands outside the product, where this one has none
    rows = torch.randn(4, first.n_flat, dtype=torch.float64)
    torch.testing.assert_close(second.cross(rows), first.cross(rows))
