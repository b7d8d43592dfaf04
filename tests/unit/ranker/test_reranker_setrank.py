"""SetRank's formulas: multi-head attention, both norms and the ordinals, written out for one list."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ranker.features import FeatureConfig, Features
from ranker.rerankers.attention import AttentionBlock
from ranker.rerankers.base import HEADS, HIDDEN, Lists, initial_ranks
from ranker.rerankers.setrank import SetRank

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=1, d_embedding=4)
NOTHING = torch.zeros(0)


def written_out(block: AttentionBlock, x: Tensor) -> Tensor:
    """(K, h) -> (K, h)."""
    query, key, value = (x @ w.T for w in block.attention.query_key_value.weight.chunk(3))
    wide = HIDDEN // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * wide, (head + 1) * wide)
        weights = torch.softmax(query[:, part] @ key[:, part].T / wide**0.5, dim=1)
        heads.append(weights @ value[:, part])
    one, two = block.attention_norm, block.feed_forward_norm
    b = functional.layer_norm(x + torch.cat(heads, dim=1) @ block.attention.out.weight.T, (HIDDEN,), one.weight, one.bias)
    return functional.layer_norm(b + block.feed_forward(b), (HIDDEN,), two.weight, two.bias)


def test_a_candidate_is_its_features_plus_the_embedding_of_its_ordinal() -> None:
    torch.manual_seed(0)
    model = SetRank(SIZES, 0, 5)
    lists = Lists(
        features=Features(
            items=NOTHING,
            attributes=NOTHING,
            user=NOTHING,
            user_attributes=NOTHING,
            history=NOTHING,
            history_liked=NOTHING,
            item=NOTHING,
        ),
        items=torch.randn(1, 3, model.d_in),
        present=torch.ones(1, 3, dtype=torch.bool),
        ranks=torch.tensor([[1, 2, 0]]),
        user=NOTHING,
        history=NOTHING,
        history_present=NOTHING,
    )
    x = model.project(lists.items[0]) + model.ordinal.weight[[1, 2, 0]]
    for block in model.blocks:
        x = written_out(block, x)
    torch.testing.assert_close(model.score(lists)[0], model.row_wise(x)[:, 0])


def test_ranks_follow_the_initial_scores_equal_ones_their_place_and_empty_places_come_last() -> None:
    initial = torch.tensor([[0.5, 0.9, 0.5, 7.0], [0.1, 0.2, 0.3, 0.4]])
    present = torch.tensor([[True, True, True, False], [True, False, True, True]])
    assert initial_ranks(initial, present).tolist() == [[1, 0, 2, 3], [2, 3, 1, 0]]
