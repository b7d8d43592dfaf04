"""MIR's formulas: affinities, decay, attention maps and the reading of the history, written out."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ranker.features import FeatureConfig, Features
from ranker.rerankers.base import HIDDEN
from ranker.rerankers.mir import MIR
from ranker.rerankers.slattention import SLAttention

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=4, n_attributes=1, d_embedding=4)
K, H, D_V, D_Q, D = 3, 4, 6, 5, 2


def attention_of() -> SLAttention:
    torch.manual_seed(0)
    return SLAttention(D_V, D_Q, 7, D, (3, 2))


def test_feature_affinity_is_a_convolution_over_all_pairs_of_features() -> None:
    model = attention_of()
    with torch.no_grad():
        model.kernel.copy_(torch.randn(3, 2))
        model.item_level.zero_()
    v_features, q_features = torch.randn(1, K, 2, D), torch.randn(1, H, 3, D)
    pairs = q_features.flatten(1, 2) @ model.feature_level @ v_features.flatten(1, 2).transpose(1, 2)  # (1, 3 H, 2 K)
    pooled = nn.functional.conv2d(pairs.unsqueeze(1), model.kernel[None, None], stride=(3, 2))[:, 0]  # (1, H, K)
    found = model.affinity(torch.randn(1, K, D_V), torch.randn(1, H, D_Q), v_features, q_features, torch.zeros(1, H))
    torch.testing.assert_close(found, torch.tanh(pooled))


def test_item_affinity_counts_once_and_once_more_as_far_as_it_has_not_faded() -> None:
    model = attention_of()
    v, q, faded = torch.randn(1, K, D_V), torch.randn(1, H, D_Q), torch.tensor([[0.0, 0.25, 0.5, 1.0]])
    found = model.affinity(v, q, torch.zeros(1, K, 2, D), torch.zeros(1, H, 3, D), faded)
    for h in range(H):
        for k in range(K):
            product = q[0, h] @ model.item_level @ v[0, k] / math.sqrt(D_V)
            torch.testing.assert_close(found[0, h, k], torch.tanh(product * (1 + faded[0, h])))


def test_interest_fades_with_the_age_of_a_history_item() -> None:
    model = attention_of()
    user, present = torch.randn(2, 7), torch.tensor([[True, True, True, True], [True, True, False, False]])
    theta = model.theta(user)[:, 0].tolist()
    assert min(theta) > 0
    found = model.fade(user, present)
    torch.testing.assert_close(found[0], torch.tensor([math.exp(-theta[0] * age) for age in (3, 2, 1, 0)]))
    torch.testing.assert_close(found[1, :2], torch.tensor([math.exp(-theta[1]), 1.0]))


def maps(model: SLAttention, v: Tensor, q: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One list without padding, by the formulas: v (K, d_v), q (H, d_q), C (H, K)."""
    w_v = [model.candidate @ v[k] / math.sqrt(D_V) for k in range(len(v))]  # the column of each place
    w_q = [model.history @ v[k] / math.sqrt(D_V) for k in range(len(v))]
    s = torch.stack([torch.stack([row @ column for column in w_v]) for row in v])  # (K, K)
    r = torch.stack([torch.stack([row @ column for column in w_q]) for row in q])  # (H, K)
    return torch.softmax(torch.tanh(s + r.T @ c), dim=1) @ v, torch.softmax(torch.tanh(r.T + s @ c.T), dim=1) @ q


def test_attention_maps_follow_the_formulas() -> None:
    model = attention_of()
    v, q, c = torch.randn(1, K, D_V), torch.randn(1, H, D_Q), torch.tanh(torch.randn(1, H, K))
    found = model(v, q, c, torch.ones(1, K, dtype=torch.bool), torch.ones(1, H, dtype=torch.bool))
    for one, expected in zip(found, maps(model, v[0], q[0], c[0]), strict=True):
        torch.testing.assert_close(one[0], expected)


def test_attention_maps_leave_out_what_is_not_there() -> None:
    model = attention_of()
    v, q, c = torch.randn(1, K, D_V), torch.randn(1, H, D_Q), torch.tanh(torch.randn(1, H, K))
    found = model(v, q, c, torch.tensor([[True, True, False]]), torch.tensor([[True, True, True, False]]))
    for one, expected in zip(found, maps(model, v[0, :2], q[0, :3], c[0, :3, :2]), strict=True):
        torch.testing.assert_close(one[0, :2], expected)
    nothing = model(v, q, c, torch.ones(1, K, dtype=torch.bool), torch.zeros(1, H, dtype=torch.bool))
    assert not nothing[1].any()


def test_reads_the_history_in_both_directions() -> None:
    torch.manual_seed(0)
    model = MIR(SIZES, 0, K)
    both = nn.LSTM(4, HIDDEN, batch_first=True, bidirectional=True)
    weights = dict(model.oldest_first.state_dict())
    weights |= {f"{key}_reverse": value for key, value in model.newest_first.state_dict().items()}
    both.load_state_dict(weights)
    history, present = torch.randn(2, H, 4), torch.tensor([[True] * 4, [True, True, False, False]])
    found = model._read(history, present)
    torch.testing.assert_close(found[0], both(history[:1])[0][0])
    torch.testing.assert_close(found[1, :2], both(history[1:, :2])[0][0])


def test_features_are_those_that_the_embedding_sums() -> None:
    torch.manual_seed(0)
    model = MIR(SIZES, 0, K)
    features = Features(
        items=torch.tensor([0, 3, 5, 8]),
        attributes=torch.tensor([[0], [2], [4], [0]]),
        user=torch.tensor([7, 1]),
        user_attributes=torch.zeros(2, 0, dtype=torch.long),
        history=torch.tensor([[2, 1, 0, 0], [3, 3, 2, 1]]),
        history_liked=torch.tensor([[2, 1, 0, 0], [3, 1, 2, 2]]),
        item=torch.tensor([1, 2, 3, 3, 1, 0]),
    )
    embedded = model.embedding(features)
    candidates, history = model._features(features, torch.Size([2, 3]))
    torch.testing.assert_close(candidates.sum(dim=2).flatten(0, 1), embedded.whole_item)
    torch.testing.assert_close(history.sum(dim=2), embedded.history)
