"""PRM: a transformer over the list, with learnt positions and a vector of the user (Pei et al., RecSys 2019, arXiv 1904.06813).

Taken from the paper: [features; personalised vector] + learnt position, one linear layer, blocks of attention and feed-forward
network, one linear layer to a logit (its softmax over the list is the loss's business).

Taken otherwise: the paper's personalised vector comes from a click model trained before; here the user's part of a candidate
(user, liked, disliked) stands in its place and is learnt with the rest, so that no arm sees more data than another. The bias of
the last layer is left out: the softmax cancels it. LibRerank and KAR have no personalised vector at all; KAR's positions are
fixed sines, LibRerank's block has no residual around the attention, and both put a deeper network behind a single block.

Shapes: L lists, K places, d_in candidate, h hidden.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from torch import Tensor, nn

from ranker.backbones.embedding import EMBEDDING_STD
from ranker.rerankers.attention import AttentionBlock
from ranker.rerankers.base import FEED_FORWARD, HEADS, HIDDEN, Lists, Reranker

if TYPE_CHECKING:
    from ranker.features import FeatureConfig

BLOCKS: Final = 2  # ours: as many as SetRank


class PRM(Reranker):
    """The personalised re-ranking model.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.
    """

    def __init__(self, config: FeatureConfig, d_aug: int, n_places: int) -> None:
        super().__init__(config, d_aug, n_places)
        self.position = nn.Embedding(n_places, self.d_in)
        nn.init.normal_(self.position.weight, std=EMBEDDING_STD)
        self.project = nn.Linear(self.d_in, HIDDEN)
        self.blocks = nn.ModuleList(AttentionBlock(HIDDEN, HEADS, FEED_FORWARD) for _ in range(BLOCKS))
        self.last = nn.Linear(HIDDEN, 1, bias=False)

    def score(self, lists: Lists) -> Tensor:
        """See `Reranker.score`."""
        x = self.project(lists.items + self.position(lists.ranks))  # (L, K, h)
        for block in self.blocks:
            x = block(x, lists.present)  # (L, K, h)
        logits: Tensor = self.last(x)  # (L, K, 1)
        return logits.squeeze(2)
