"""MIR: candidates as a set, the history as a list, and attention between the two (Xi et al., SIGIR 2022, arXiv 2204.09370).

Taken from the paper: self-attention among the candidates and a bidirectional LSTM over the history, each result beside its
input; SLAttention between them (see `ranker.rerankers.slattention`); a network over the candidate and what it drew from both
sides. The initial order is not read: the paper's model is invariant to it.

Taken otherwise: the last network has 200 and 80 units as in KAR (the authors: 500, 200, 80), so that the four re-rankers are of
a size. KAR has a GRU in one direction for the LSTM and feeds the mean of the history as well; and in its published code the
augmented vectors never reach MIR, so its MIR with knowledge reads none. Here they are part of the candidate, as everywhere.

Shapes: L lists, K places, H history, d embedding, d_in candidate, h hidden, F_v = 2 and F_q = 3 features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from ranker.rerankers.attention import SelfAttention
from ranker.rerankers.base import HEADS, HIDDEN, Lists, Reranker
from ranker.rerankers.slattention import SLAttention

if TYPE_CHECKING:
    from ranker.features import FeatureConfig, Features

HIDDEN_1, HIDDEN_2 = 200, 80  # KAR's final_mlp_arch
N_FEATURES: Final = (3, 2)  # of a history item: id, attributes, what the user said; of a candidate: id, attributes


class MIR(Reranker):
    """Multi-level interaction re-ranking.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.
    """

    def __init__(self, config: FeatureConfig, d_aug: int, n_places: int) -> None:
        super().__init__(config, d_aug, n_places)
        d = config.d_embedding
        d_v, d_q = self.d_in + HIDDEN, d + 2 * HIDDEN
        self.among_candidates = SelfAttention(self.d_in, HIDDEN, HEADS)
        self.oldest_first = nn.LSTM(d, HIDDEN, batch_first=True)
        self.newest_first = nn.LSTM(d, HIDDEN, batch_first=True)
        self.set_to_list = SLAttention(d_v, d_q, d, d, N_FEATURES)
        self.last = nn.Sequential(
            nn.Linear(self.d_in + d_v + d_q, HIDDEN_1),
            nn.ReLU(),
            nn.Linear(HIDDEN_1, HIDDEN_2),
            nn.ReLU(),
            nn.Linear(HIDDEN_2, 1, bias=False),
        )

    def score(self, lists: Lists) -> Tensor:
        """See `Reranker.score`."""
        v = torch.cat([lists.items, self.among_candidates(lists.items, lists.present)], dim=2)  # (L, K, d_v)
        q = torch.cat([lists.history, self._read(lists.history, lists.history_present)], dim=2)  # (L, H, d_q)
        v_features, q_features = self._features(lists.features, lists.present.shape)  # (L, K, F_v, d), (L, H, F_q, d)
        faded = self.set_to_list.fade(lists.user, lists.history_present)  # (L, H)
        affinity = self.set_to_list.affinity(v, q, v_features, q_features, faded)  # (L, H, K)
        of_set, of_list = self.set_to_list(v, q, affinity, lists.present, lists.history_present)  # (L, K, d_v), (L, K, d_q)
        logits: Tensor = self.last(torch.cat([lists.items, of_set, of_list], dim=2))  # (L, K, 1)
        return logits.squeeze(2)

    def _read(self, history: Tensor, present: Tensor) -> Tensor:
        """States of both directions, (L, H, d) -> (L, H, 2 h). Both read padding last, so it changes no state that counts."""
        place = torch.arange(history.shape[1], device=history.device).expand(present.shape)  # (L, H)
        n_present = present.sum(dim=1, keepdim=True)  # (L, 1)
        turned = torch.where(place < n_present, n_present - 1 - place, place).unsqueeze(2)  # (L, H, 1), its own inverse
        forwards, _ = self.oldest_first(history)  # (L, H, h)
        backwards, _ = self.newest_first(history.gather(1, turned.expand_as(history)))  # (L, H, h), newest first
        return torch.cat([forwards, backwards.gather(1, turned.expand_as(backwards))], dim=2)

    def _features(self, features: Features, shape: torch.Size) -> tuple[Tensor, Tensor]:
        """The features one by one, which `FeatureEmbedding` gives as sums."""
        ids = self.embedding.item(features.items)  # (R, d)
        values = self.embedding.attribute(features.attributes)  # (R, d)
        pair = (2, ids.shape[1])  # given whole, as everywhere: an empty batch cannot infer a size
        both = torch.stack([ids, values], dim=1).flatten(1)  # (R, 2 d): one lookup for two
        candidates = functional.embedding(features.item, both).view(*shape, *pair)  # (L, K, 2, d)
        history = functional.embedding(features.history, both).view(*features.history.shape, *pair)  # (L, H, 2, d)
        said = self.embedding.liked(features.history_liked).unsqueeze(2)  # (L, H, 1, d)
        return candidates, torch.cat([history, said], dim=2)
