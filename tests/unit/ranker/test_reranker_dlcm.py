"""DLCM's formulas, step by step for one list."""

from __future__ import annotations

import torch
from torch import nn

from ranker.features import FeatureConfig, Features
from ranker.rerankers.base import HIDDEN, Lists
from ranker.rerankers.dlcm import DLCM, SLICES

SIZES = FeatureConfig(user_buckets=9, item_buckets=9, attribute_buckets=9, history=2, n_attributes=1, d_embedding=4)
NOTHING = torch.zeros(0)


def list_of(model: DLCM, ranks: list[int]) -> Lists:
    return Lists(
        features=Features(
            items=NOTHING,
            attributes=NOTHING,
            user=NOTHING,
            user_attributes=NOTHING,
            history=NOTHING,
            history_liked=NOTHING,
            item=NOTHING,
        ),
        items=torch.randn(1, len(ranks), model.d_in),
        present=torch.ones(1, len(ranks), dtype=torch.bool),
        ranks=torch.tensor([ranks]),
        user=NOTHING,
        history=NOTHING,
        history_present=NOTHING,
    )


def test_reads_from_the_last_rank_to_the_first_and_scores_by_phi() -> None:
    torch.manual_seed(0)
    model = DLCM(SIZES, 2, 5)
    lists = list_of(model, [2, 0, 1])
    cell = nn.GRUCell(model.gru.input_size, HIDDEN)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in model.gru.state_dict().items()})
    state, outputs = torch.zeros(1, HIDDEN), {}
    for place in (0, 2, 1):  # ranks 2, 1, 0
        x = lists.items[:, place]
        state = cell(torch.cat([x, model.abstract(x)], dim=1), state)
        outputs[place] = state[0]
    w = model.context.weight.view(HIDDEN, SLICES, HIDDEN)
    b = model.context.bias.view(HIDDEN, SLICES)
    expected = torch.stack(
        [
            torch.stack([outputs[place] @ torch.tanh(w[:, k] @ state[0] + b[:, k]) for k in range(SLICES)])
            @ model.slices.weight[0]
            for place in range(3)
        ]
    )
    torch.testing.assert_close(model.score(lists)[0], expected)
