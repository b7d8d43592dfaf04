from __future__ import annotations

import math

import pytest
import torch

from ranker.backbones.autoint import D_HEAD, N_HEADS, N_LAYERS, AutoInt
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=2, d_embedding=4)
WIDTH = N_HEADS * D_HEAD


@pytest.fixture
def model() -> AutoInt:
    torch.manual_seed(0)
    return AutoInt(SIZES, 0)


def naive_layer(weight: torch.Tensor, fields: torch.Tensor) -> torch.Tensor:
    """One sample (F, d), one head and one field at a time, with a softmax written out."""
    n = fields.shape[0]
    query, key, value, residual = weight.detach().view(4, WIDTH, -1)
    out = torch.zeros(n, WIDTH)
    for head in range(N_HEADS):
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        for m in range(n):
            alike = [math.exp(float((query[rows] @ fields[m]) @ (key[rows] @ fields[k]))) for k in range(n)]
            for k in range(n):
                out[m, rows] += alike[k] / sum(alike) * (value[rows] @ fields[k])
    return torch.relu(out + fields @ residual.T)


def test_a_layer_is_softmax_over_fields_and_a_residual(model: AutoInt) -> None:
    fields = torch.randn(2, 5, 4)
    states = model.interact(model.layers[0](fields))
    assert states.shape == (2, 5, WIDTH)
    for sample in range(2):
        expected = naive_layer(model.layers[0].weight, fields[sample])
        torch.testing.assert_close(states[sample], expected, rtol=1e-4, atol=1e-5)


def test_logit_is_linear_in_the_last_of_three_layers(model: AutoInt) -> None:
    fields = torch.randn(1, 5, 4)
    assert len(model.layers) == N_LAYERS
    states = fields[0]
    for layer in model.layers:
        states = naive_layer(layer.weight, states)
    expected = model.last.weight[0] @ states.flatten() + model.last.bias[0]
    torch.testing.assert_close(model.meet(fields)[0], expected, rtol=1e-4, atol=1e-5)
