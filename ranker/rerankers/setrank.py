"""SetRank: attention over the candidates as a set (Pang et al., SIGIR 2020, arXiv 1912.05891).

Taken from the paper: a candidate plus the embedding of its ordinal in the initial ranking, a stack of multi-head self-attention
blocks (MSAB), and a row-wise network to a logit. It knows an order by the ordinals alone, so items that move together with
their ordinals keep their logits. Of the paper's two kinds of blocks MSAB is built, not the induced one (IMSAB): for lists of
ten the induced vectors would cost more than they save.

Taken otherwise: the candidate is brought to the width of the blocks by one linear layer. KAR and LibRerank have one block
without a residual around the attention, no ordinals at all (so the initial order is lost there), and a deeper network behind
it.

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

BLOCKS: Final = 2  # num_layers of the authors' toolbox (ULTRA)


class SetRank(Reranker):
    """The permutation-invariant ranking model, with ordinals of the initial ranking.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.
    """

    def __init__(self, config: FeatureConfig, d_aug: int, n_places: int) -> None:
        super().__init__(config, d_aug, n_places)
        self.project = nn.Linear(self.d_in, HIDDEN)
        self.ordinal = nn.Embedding(n_places, HIDDEN)
        nn.init.normal_(self.ordinal.weight, std=EMBEDDING_STD)
        self.blocks = nn.ModuleList(AttentionBlock(HIDDEN, HEADS, FEED_FORWARD) for _ in range(BLOCKS))
        self.row_wise = nn.Sequential(nn.Linear(HIDDEN, HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, 1, bias=False))

    def score(self, lists: Lists) -> Tensor:
        """See `Reranker.score`."""
        x = self.project(lists.items) + self.ordinal(lists.ranks)  # (L, K, h)
        for block in self.blocks:
            x = block(x, lists.present)  # (L, K, h)
        logits: Tensor = self.row_wise(x)  # (L, K, 1)
        return logits.squeeze(2)
