"""DIEN: how an interest evolved towards the candidate (Zhou et al., AAAI 2019, arXiv 1809.03672).

Taken from the paper: a GRU over the history (interest extractor), attention a_t = softmax_t(h_t W e_a) of its states for the
candidate e_a, and AUGRU over the states under that attention (interest evolving), whose last state is the interest. The augmented
vectors are concatenated before the last network (REKI, section 3.4). The last network is DIN's, so that the two differ only in
the interest.

The auxiliary loss is left out. It wants the next item of a history to score above a drawn one, which suits clicks; a history here
also has what the user disliked. It would also make one backbone learn from another loss than the rest. KAR's code has none, and
FuxiCTR's weight of it is 0 by default.

Public code differs. KAR runs a plain GRU by default (AIGRU in its scripts) and the unit of DIN, whose weights are not normalised.
The authors use that unit with a softmax, and give the last network the sum of the history as well. FuxiCTR's default attention is
the bilinear one of the paper.

In a ranking the extractor and all products with its states run once for the user, AUGRU's steps run per candidate.

Shapes: B candidates or samples, U users (B or 1), H history, d embedding, d_aug augmented vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ranker.backbones.augru import AUGRU
from ranker.backbones.base import Backbone
from ranker.backbones.deep import HIDDEN_1, HIDDEN_2
from ranker.backbones.dice import Dice
from ranker.backbones.embedding import FeatureEmbedding

if TYPE_CHECKING:
    from ranker.backbones.embedding import Embedded
    from ranker.features import FeatureConfig, Features


class DIEN(Backbone):
    """The deep interest evolution network.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
    """

    def __init__(self, config: FeatureConfig, d_aug: int) -> None:
        super().__init__()
        d = config.d_embedding
        self.embedding = FeatureEmbedding(config)
        self.extractor = nn.GRU(d, d, batch_first=True)
        self.match = nn.Linear(d, d, bias=False)  # W of the attention
        self.evolution = AUGRU(d)
        self.user_side = nn.Linear(d + d_aug, HIDDEN_1)
        self.item_side = nn.Linear(2 * d + d_aug, HIDDEN_1, bias=False)
        self.last = nn.Sequential(Dice(HIDDEN_1), nn.Linear(HIDDEN_1, HIDDEN_2), Dice(HIDDEN_2), nn.Linear(HIDDEN_2, 1))

    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """See `Backbone.forward`."""
        embedded = self.embedding(features)
        states = self._states(embedded)  # (U, H, d)
        interest = self.evolution(states, self._weights(embedded, states))  # (B, d)
        user = torch.cat([embedded.user, user_vectors], dim=1)  # (U, d + d_aug)
        item = torch.cat([embedded.whole_item, interest, item_vectors], dim=1)  # (B, 2 d + d_aug)
        logits: Tensor = self.last(self.user_side(user) + self.item_side(item))  # (B, 1)
        return logits.squeeze(1)  # (B,)

    def attention(self, features: Features) -> Tensor:
        """See `Backbone.attention`; sums to 1 over a history."""
        embedded = self.embedding(features)
        return self._weights(embedded, self._states(embedded))

    def _states(self, embedded: Embedded) -> Tensor:
        states: Tensor = self.extractor(embedded.history)[0]  # (U, H, d); padding stands last, so no state before it sees it
        return states

    def _weights(self, embedded: Embedded, states: Tensor) -> Tensor:
        scores = (self.match(states) @ embedded.whole_item.unsqueeze(2)).squeeze(2)  # (U, H, d) @ (B, d, 1) -> (B, H)
        # not -inf: a softmax over nothing but -inf, the one of an empty history, is not a number
        scores = scores.masked_fill(~embedded.present, torch.finfo(scores.dtype).min)
        weights: Tensor = scores.softmax(dim=1) * embedded.present  # (B, H)
        return weights
