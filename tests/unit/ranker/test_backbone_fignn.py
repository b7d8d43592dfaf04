from __future__ import annotations

import math

import pytest
import torch

from ranker.backbones.fignn import D_HEAD, N_HEADS, N_STEPS, STATE, FiGNN
from ranker.features import FeatureConfig

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=2, d_embedding=4)
N = 5


@pytest.fixture
def model() -> FiGNN:
    torch.manual_seed(0)
    return FiGNN(SIZES, 0).requires_grad_(False)


def naive_first_state(model: FiGNN, fields: torch.Tensor) -> torch.Tensor:
    """One sample (F, d)."""
    query, key, value = model.attend.weight.view(3, STATE, -1)
    states = torch.zeros(N, STATE)
    for head in range(N_HEADS):
        rows = slice(head * D_HEAD, (head + 1) * D_HEAD)
        for m in range(N):
            alike = [math.exp(float((query[rows] @ fields[m]) @ (key[rows] @ fields[k])) / math.sqrt(D_HEAD)) for k in range(N)]
            states[m, rows] = sum((alike[k] / sum(alike) * (value[rows] @ fields[k]) for k in range(N)), torch.zeros(D_HEAD))
    return torch.relu(states)


def naive_edges(model: FiGNN, fields: torch.Tensor) -> torch.Tensor:
    """One sample: W_w over both ends put together, softmax over the other ends of a node's edges."""
    weight = torch.cat([model.ends.weight[0], model.ends.weight[1]])
    edges = torch.zeros(N, N)
    for j in range(N):
        raw = [float(weight @ torch.cat([fields[j], fields[i]])) for i in range(N)]
        size = [0.0 if i == j else math.exp(max(raw[i], 0.01 * raw[i])) for i in range(N)]
        for i in range(N):
            edges[i, j] = size[i] / sum(size)
    return edges


def naive_step(model: FiGNN, state: torch.Tensor, first: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """One sample: every edge by itself, and the GRU written out."""
    gru, after = model.update, torch.zeros(N, STATE)
    for i in range(N):
        message = torch.zeros(STATE)
        for j in range(N):
            if i != j:
                message += edges[i, j] * (state[j] @ model.sending[j] @ model.receiving[i])
        inner = (gru.weight_ih @ message + gru.bias_ih).chunk(3)
        outer = (gru.weight_hh @ state[i] + gru.bias_hh).chunk(3)
        reset, keep = torch.sigmoid(inner[0] + outer[0]), torch.sigmoid(inner[1] + outer[1])
        after[i] = (1 - keep) * torch.tanh(inner[2] + reset * outer[2]) + keep * state[i] + first[i]
    return after


def test_first_state_is_softmax_over_fields(model: FiGNN) -> None:
    fields = torch.randn(2, N, 4)
    states = model.first_state(fields)
    for sample in range(2):
        torch.testing.assert_close(states[sample], naive_first_state(model, fields[sample]), rtol=1e-4, atol=1e-5)


def test_weights_of_the_edges_out_of_a_node_sum_to_one(model: FiGNN) -> None:
    fields = torch.randn(2, N, 4)
    edges = model.edges(fields)
    torch.testing.assert_close(edges.sum(1), torch.ones(2, N))
    assert not edges.diagonal(dim1=1, dim2=2).any()
    for sample in range(2):
        torch.testing.assert_close(edges[sample], naive_edges(model, fields[sample]), rtol=1e-4, atol=1e-5)


def test_a_step_is_its_formula_in_loops(model: FiGNN) -> None:
    state, first, edges = torch.randn(2, N, STATE), torch.randn(2, N, STATE), torch.rand(2, N, N)
    edges = edges * ~torch.eye(N, dtype=torch.bool)
    after = model.step(state, first, edges)
    for sample in range(2):
        expected = naive_step(model, state[sample], first[sample], edges[sample])
        torch.testing.assert_close(after[sample], expected, rtol=1e-4, atol=1e-5)


def test_logit_sums_weighted_scores_of_the_last_states(model: FiGNN) -> None:
    fields = torch.randn(1, N, 4)
    first = state = naive_first_state(model, fields[0])
    for _ in range(N_STEPS):
        state = naive_step(model, state, first, naive_edges(model, fields[0]))
    scores = [model.score.weight @ node + model.score.bias for node in state]
    expected = sum(float(score[0] * torch.sigmoid(score[1])) for score in scores)
    torch.testing.assert_close(model.meet(fields)[0], torch.tensor(expected), rtol=1e-4, atol=1e-5)
