"""The cross network of DCN against its formula, layer by layer in loops."""

from __future__ import annotations

import numpy as np
import torch

from ranker.backbones.dcn import DCN, N_CROSS
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=5, item_buckets=6, attribute_buckets=4, history=2, n_attributes=1, d_embedding=2)


def random_dcn() -> DCN:
    torch.manual_seed(0)
    dcn = DCN(SIZES, 3).double()
    with torch.no_grad():
        for parameter in dcn.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return dcn


def test_reads_five_fields_and_two_vectors_as_they_are() -> None:
    dcn = random_dcn()
    assert dcn.n_flat == 5 * 2 + 2 * 3
    assert dcn.cross_weights.weight.shape == dcn.cross_biases.shape == (N_CROSS, dcn.n_flat)


def test_all_cross_layers_at_once_are_those_of_the_paper_one_by_one() -> None:
    dcn = random_dcn()
    rows = torch.randn(4, dcn.n_flat, dtype=torch.float64)
    weights, biases = dcn.cross_weights.weight.detach().numpy(), dcn.cross_biases.detach().numpy()
    wanted = []
    for row in rows.numpy():
        x = row
        for w, b in zip(weights, biases, strict=True):
            x = row * sum(float(a) * float(c) for a, c in zip(x, w, strict=True)) + b + x
        wanted.append(x)
    np.testing.assert_allclose(dcn.cross(rows).detach().numpy(), np.stack(wanted), rtol=1e-10)


def test_cross_layers_reach_one_degree_more_than_their_number() -> None:
    dcn = random_dcn()
    with torch.no_grad():
        dcn.cross_biases.zero_()
    direction = torch.randn(1, dcn.n_flat, dtype=torch.float64)
    along = torch.arange(-6, 7, dtype=torch.float64).unsqueeze(1)  # at t * direction the cross network is a polynomial of t
    values = dcn.cross(along * direction)[:, 0].detach().numpy()
    below, degree = (np.polynomial.Polynomial.fit(along[:, 0].numpy(), values, n) for n in (N_CROSS, N_CROSS + 1))
    assert np.abs(degree(along[:, 0].numpy()) - values).max() < 1e-8 * np.abs(values).max()
    assert np.abs(below(along[:, 0].numpy()) - values).max() > 1e-3 * np.abs(values).max()
