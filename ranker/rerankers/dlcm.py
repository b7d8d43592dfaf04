"""DLCM: a recurrent network reads the initial list, and its last state is the context (Ai et al., SIGIR 2018, arXiv 1804.05936).

Taken from the paper: each input is extended by an abstraction of two ELU layers; a GRU reads the list from the last place to
the first, so that what ranked best is freshest in its state s_n; an item's logit is phi(o, s_n) = V . (o . tanh(W s_n + b)),
with o the state after the item and W a tensor of k slices.

The authors' code differs: additive attention is its default, of which this product is the option `multi`. KAR and LibRerank
differ further: they read from the first place to the last, have no abstraction, one slice, and batch normalisation inside phi,
which lets the lists of a batch touch one another. KAR's logit is one of two under a softmax.

Shapes: L lists, K places, d_in candidate, h hidden, k slices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.rerankers.base import HIDDEN, Lists, Reranker

if TYPE_CHECKING:
    from ranker.features import FeatureConfig

ABSTRACT: Final = 50  # expand_embed_size of the authors' toolbox (ULTRA)
SLICES: Final = 3  # num_heads of the authors' code


class DLCM(Reranker):
    """The deep listwise context model.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.
    """

    def __init__(self, config: FeatureConfig, d_aug: int, n_places: int) -> None:
        super().__init__(config, d_aug, n_places)
        half = (self.d_in + ABSTRACT) // 2  # as in the authors' code
        self.abstract = nn.Sequential(nn.Linear(self.d_in, half), nn.ELU(), nn.Linear(half, ABSTRACT), nn.ELU())
        self.gru = nn.GRU(self.d_in + ABSTRACT, HIDDEN, batch_first=True)
        self.context = nn.Linear(HIDDEN, HIDDEN * SLICES)  # W and b of phi
        self.slices = nn.Linear(SLICES, 1, bias=False)  # V of phi

    def score(self, lists: Lists) -> Tensor:
        """See `Reranker.score`."""
        x = torch.cat([lists.items, self.abstract(lists.items)], dim=2)  # (L, K, d_in + ABSTRACT)
        n_present = lists.present.sum(dim=1, keepdim=True)  # (L, 1)
        steps = torch.where(lists.present, n_present - 1 - lists.ranks, lists.ranks)  # (L, K) last place first, empty ones behind
        states, _ = self.gru(_take(x, steps.argsort(dim=1)))  # (L, K, h) in the order of reading
        last = _take(states, (n_present - 1).clamp(min=0)).squeeze(1)  # (L, h)
        context = functional.tanh(self.context(last)).view(-1, HIDDEN, SLICES)  # (L, h, k)
        logits: Tensor = self.slices(_take(states, steps) @ context)  # (L, K, h) @ (L, h, k) -> (L, K, 1)
        return logits.squeeze(2)


def _take(x: Tensor, places: Tensor) -> Tensor:
    """Rows of each list, (L, K, d) and (L, J) -> (L, J, d)."""
    return x.gather(1, places.unsqueeze(2).expand(-1, -1, x.shape[2]))
