"""The factorization machine of DeepFM against the sum over all pairs."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import torch

from ranker.backbones.deepfm import DeepFM
from ranker.features import FeatureConfig, Features

SIZES = FeatureConfig(user_buckets=5, item_buckets=6, attribute_buckets=4, history=2, n_attributes=1, d_embedding=2)


def batch() -> Features:
    return Features(
        items=torch.tensor([0, 3, 5, 2]),
        attributes=torch.tensor([[0], [1], [2], [3]]),
        user=torch.tensor([1, 4]),
        user_attributes=torch.zeros(2, 0, dtype=torch.long),
        history=torch.tensor([[1, 2], [3, 0]]),
        history_liked=torch.tensor([[2, 1], [2, 0]]),
        item=torch.tensor([2, 1]),
    )


def random_deepfm() -> DeepFM:
    torch.manual_seed(0)
    return DeepFM(SIZES, 3).double()


def test_pairs_are_the_sum_over_all_pairs() -> None:
    fields = torch.randn(3, 5, 4, dtype=torch.float64)
    wanted = [sum(float(row[i] @ row[j]) for i, j in combinations(range(5), 2)) for row in fields]
    torch.testing.assert_close(DeepFM.pairs(fields), torch.tensor(wanted, dtype=torch.float64))


def test_logit_is_first_order_and_pairs_and_deep() -> None:
    backbone = random_deepfm()
    users, items = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    with torch.no_grad():
        row = backbone.flat(batch(), users, items)
        fields = row[:, :10].view(2, 5, 2)
        pairs = torch.stack([fields[:, i] * fields[:, j] for i, j in combinations(range(5), 2)]).sum(dim=(0, 2))
        wanted = row @ backbone.first_order.weight[0] + pairs + backbone.deep(row)[:, 0]
        torch.testing.assert_close(backbone(batch(), users, items), wanted)


def test_vectors_enter_first_order_and_deep_part_but_no_pair() -> None:
    backbone = random_deepfm()
    with torch.no_grad():
        backbone.first_order.weight[:, 10:] = 0
        backbone.deep[0].weight[:, 10:] = 0
    users, items = torch.randn(2, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    torch.testing.assert_close(backbone(batch(), users, items), backbone(batch(), users * 0, items * 0), rtol=0, atol=0)


def test_fields_are_the_embeddings_in_their_order() -> None:
    backbone = random_deepfm()
    tables = backbone.embedding
    d = torch.float64
    row = backbone.flat(batch(), torch.zeros(2, 3, dtype=d), torch.zeros(2, 3, dtype=d))[0]
    liked = tables.item.weight[3] + tables.attribute.weight[1] + tables.liked.weight[2]  # the first user liked item row 1 ...
    disliked = tables.item.weight[5] + tables.attribute.weight[2] + tables.liked.weight[1]  # ... and disliked row 2
    wanted = [tables.user.weight[1], liked / 2, disliked / 2, tables.item.weight[5], tables.attribute.weight[2]]
    torch.testing.assert_close(row[:10], torch.cat(wanted))


def test_a_history_item_counts_among_liked_or_disliked_never_both() -> None:
    backbone = random_deepfm()
    nothing = torch.zeros(2, 3, dtype=torch.float64)
    said = replace(batch(), history_liked=torch.tensor([[2, 2], [1, 0]]))
    liked, disliked = backbone.flat(said, nothing, nothing)[:, 2:6].split(2, dim=1)
    assert liked[0].any()
    assert not disliked[0].any()
    assert not liked[1].any()
    assert disliked[1].any()
