from __future__ import annotations

import pytest
import torch

from ranker.backbones.fibinet import FiBiNET
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=2, d_embedding=4)
N, D = 7, 4  # with the augmented vectors


@pytest.fixture
def model() -> FiBiNET:
    torch.manual_seed(0)
    return FiBiNET(SIZES, 3)


def naive_senet(model: FiBiNET, fields: torch.Tensor) -> torch.Tensor:
    """One sample (F, d)."""
    squeezed = [sum(float(number) for number in field) / D for field in fields]
    down, up = (model.excite[i].weight.detach() for i in (0, 2))
    hidden = [max(0.0, sum(float(down[h, f]) * squeezed[f] for f in range(N))) for h in range(len(down))]
    importance = [max(0.0, sum(float(up[f, h]) * hidden[h] for h in range(len(hidden)))) for f in range(N)]
    return torch.stack([importance[f] * fields[f] for f in range(N)])


def naive_pairs(model: FiBiNET, fields: torch.Tensor) -> torch.Tensor:
    """One sample (F, d); the matrix of the pair (i, j) is its own."""
    pairs = []
    for i in range(N):
        for j in range(i + 1, N):
            matrix = model.pairs[i].weight.detach()[(j - i - 1) * D : (j - i) * D]
            pairs.append((matrix @ fields[i]) * fields[j])
    return torch.stack(pairs)


def test_senet_has_a_bottleneck_of_a_third(model: FiBiNET) -> None:
    assert model.excite[0].weight.shape == (2, N)


def test_senet_is_its_formula_in_loops(model: FiBiNET) -> None:
    fields = torch.randn(6, N, D)
    weighted = model.reweight(fields)
    assert weighted.any()
    for sample in range(6):
        torch.testing.assert_close(weighted[sample], naive_senet(model, fields[sample]), rtol=1e-4, atol=1e-6)


def test_bilinear_interaction_is_its_formula_in_loops(model: FiBiNET) -> None:
    fields = torch.randn(2, N, D)
    pairs = model.interact(fields)
    assert pairs.shape == (2, N * (N - 1) // 2, D)
    for sample in range(2):
        torch.testing.assert_close(pairs[sample], naive_pairs(model, fields[sample]))


def test_logit_reads_both_interactions_and_the_fields(model: FiBiNET) -> None:
    fields = torch.randn(1, N, D)
    crossed = torch.cat([naive_pairs(model, fields[0]), naive_pairs(model, naive_senet(model, fields[0]))])
    expected = model.deep(crossed.flatten()) + model.first_order.weight @ fields.flatten()
    torch.testing.assert_close(model.meet(fields), expected, rtol=1e-4, atol=1e-5)
