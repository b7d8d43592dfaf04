"""AUGRU and the attention of DIEN against their formulas, step by step in numpy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from ranker.backbones.augru import AUGRU
from ranker.backbones.dien import DIEN
from ranker.features import FeatureConfig, Features

D = 3
SIZES = FeatureConfig(user_buckets=5, item_buckets=9, attribute_buckets=4, history=4, n_attributes=1, d_embedding=D)


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def augru_by_hand(augru: AUGRU, inputs: NDArray[np.float64], attention: NDArray[np.float64]) -> NDArray[np.float64]:
    """One sequence, (H, d) and (H,) -> (d,)."""
    w_u, w_r, w_h = np.split(augru.input.weight.detach().numpy(), 3)
    b_u, b_r, b_h = np.split(augru.input.bias.detach().numpy(), 3)
    u_u, u_r, u_h = np.split(augru.state.weight.detach().numpy(), 3)
    h = np.zeros(augru.d)
    for i, a in zip(inputs, attention, strict=True):
        u = sigmoid(w_u @ i + u_u @ h + b_u)
        r = sigmoid(w_r @ i + u_r @ h + b_r)
        new = np.tanh(w_h @ i + r * (u_h @ h) + b_h)
        h = (1 - a * u) * h + a * u * new
    return h


def random_augru() -> AUGRU:
    torch.manual_seed(0)
    augru = AUGRU(D).double()
    for parameter in augru.parameters():
        nn.init.normal_(parameter)
    return augru


def batch(n_users: int = 2) -> Features:
    return Features(
        items=torch.tensor([0, 3, 5, 2, 8]),
        attributes=torch.tensor([[0], [1], [2], [3], [0]]),
        user=torch.tensor([1, 4])[:n_users],
        user_attributes=torch.zeros(n_users, 0, dtype=torch.long),
        history=torch.tensor([[1, 2, 4, 0], [3, 0, 0, 0]])[:n_users],
        history_liked=torch.tensor([[2, 1, 3, 0], [2, 0, 0, 0]])[:n_users],
        item=torch.tensor([2, 1]),
    )


def random_dien() -> DIEN:
    torch.manual_seed(0)
    dien = DIEN(SIZES, 0).double().eval()
    for parameter in dien.parameters():
        nn.init.normal_(parameter)
    return dien


@pytest.mark.parametrize("n_users", [1, 4])
def test_augru_is_the_loop_by_hand(n_users: int) -> None:
    augru, inputs = random_augru(), torch.randn(n_users, 5, D, dtype=torch.float64)
    attention = torch.rand(4, 5, dtype=torch.float64)
    of = inputs.expand(4, -1, -1).numpy()
    wanted = np.stack([augru_by_hand(augru, of[n], attention[n].numpy()) for n in range(4)])
    np.testing.assert_allclose(augru(inputs, attention).detach().numpy(), wanted, rtol=1e-10)


def test_an_input_without_attention_leaves_the_state() -> None:
    augru, inputs = random_augru(), torch.randn(2, 5, D, dtype=torch.float64)
    attention = torch.rand(2, 5, dtype=torch.float64)
    attention[:, 3:] = 0
    torch.testing.assert_close(augru(inputs, attention), augru(inputs[:, :3], attention[:, :3]), rtol=0, atol=0)


def test_under_full_attention_it_is_a_gru() -> None:
    augru, inputs = random_augru(), torch.randn(2, 5, D, dtype=torch.float64)
    gru = nn.GRU(D, D, batch_first=True).double()
    with torch.no_grad():  # torch has the gates as reset, update, new, and its update gate is the share that is kept
        for theirs, ours in (
            (gru.weight_ih_l0, augru.input.weight),
            (gru.weight_hh_l0, augru.state.weight),
            (gru.bias_ih_l0, augru.input.bias),
        ):
            update, reset, new = ours.chunk(3)
            theirs.copy_(torch.cat([reset, -update, new]))
        gru.bias_hh_l0.zero_()
    torch.testing.assert_close(augru(inputs, torch.ones(2, 5, dtype=torch.float64)), gru(inputs)[0][:, -1])


def test_attention_is_a_softmax_of_states_through_w_over_what_is_there() -> None:
    dien, features = random_dien(), batch()
    embedded = dien.embedding(features)
    states = dien.extractor(embedded.history)[0].detach().numpy()
    query = (embedded.item + embedded.attributes).detach().numpy()
    w = dien.match.weight.detach().numpy()
    wanted = np.zeros((2, 4))
    for n, length in enumerate([3, 1]):
        scores = np.exp([states[n, t] @ w.T @ query[n] for t in range(length)])
        wanted[n, :length] = scores / scores.sum()
    np.testing.assert_allclose(dien.attention(features).detach().numpy(), wanted, rtol=1e-10)


def test_without_history_there_is_no_attention() -> None:
    features = replace(batch(), history=torch.zeros(2, 4, dtype=torch.long), history_liked=torch.zeros(2, 4, dtype=torch.long))
    assert not random_dien().attention(features).any()


def test_the_order_of_the_history_counts() -> None:
    dien, features, none = random_dien(), batch(1), torch.zeros(1, 0)
    other = replace(features, history=torch.tensor([[4, 2, 1, 0]]), history_liked=torch.tensor([[3, 1, 2, 0]]))
    scores, turned = (dien(one, none, none.expand(2, -1)) for one in (features, other))
    assert not torch.allclose(scores, turned)


def test_the_user_side_runs_once_for_all_candidates() -> None:
    dien, features, none = random_dien(), batch(1), torch.zeros(1, 0)
    seen = []
    for module in (dien.extractor, dien.match, dien.evolution.input, dien.user_side):
        module.register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[0]))
    dien(features, none, none.expand(2, -1))
    assert seen == [1, 1, 1, 1]
