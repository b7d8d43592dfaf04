from __future__ import annotations

import pytest
import torch

from ranker.backbones import xdeepfm
from ranker.backbones.xdeepfm import XDeepFM
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=2, d_embedding=4)
MAPS_1, MAPS_2 = 3, 2


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> XDeepFM:
    torch.manual_seed(0)
    monkeypatch.setattr(xdeepfm, "MAPS_1", MAPS_1)
    monkeypatch.setattr(xdeepfm, "MAPS_2", MAPS_2)
    return XDeepFM(SIZES, 0)


def naive_cin(model: XDeepFM, fields: torch.Tensor) -> torch.Tensor:
    """One sample, maps with all their d numbers: the formula of section 3.1 in loops."""
    n, d = fields.shape
    weight_1 = model.maps_1.weight.detach().view(MAPS_1, n, n)
    weight_2 = model.maps_2.weight.detach().view(MAPS_2, n, MAPS_1)
    first = torch.zeros(MAPS_1, d)
    for h in range(MAPS_1):
        for i in range(n):
            for j in range(n):
                first[h] += weight_1[h, i, j] * fields[i] * fields[j]
    second = torch.zeros(MAPS_2, d)
    for h in range(MAPS_2):
        for i in range(MAPS_1):
            for j in range(n):
                second[h] += weight_2[h, j, i] * first[i] * fields[j]
    return torch.cat([first.sum(1), second.sum(1)])


def test_cin_is_the_triple_loop(model: XDeepFM) -> None:
    fields = torch.randn(2, 5, 4)
    compressed = model.compress(fields)
    assert compressed.shape == (2, MAPS_1 + MAPS_2)
    for sample in range(2):
        torch.testing.assert_close(compressed[sample], naive_cin(model, fields[sample]), rtol=1e-4, atol=1e-5)


def test_layers_of_the_cin_are_products_of_two_and_of_three_fields(model: XDeepFM) -> None:
    fields = torch.randn(1, 5, 4)
    once, twice = model.compress(fields), model.compress(2 * fields)
    torch.testing.assert_close(twice[:, :MAPS_1], 4 * once[:, :MAPS_1])
    torch.testing.assert_close(twice[:, MAPS_1:], 8 * once[:, MAPS_1:])


def test_logit_is_the_sum_of_three_parts(model: XDeepFM) -> None:
    fields = torch.randn(3, 5, 4)
    row = fields.reshape(3, 20)
    cin = model.compress(fields) @ model.compressed.weight[0]
    first_order = row @ model.first_order.weight[0]
    torch.testing.assert_close(model.meet(fields), cin + first_order + model.deep(row)[:, 0])
