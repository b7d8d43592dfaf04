"""What every re-ranker offers, and what all four read: a batch of lists as vectors.

A re-ranker scores an item in the company of the others in its list. The initial order is what the initial scores say (ties: the
first place first), not how the tensors are arranged, so moving items together with their scores moves their logits and nothing
else.

A candidate is [id, attributes, user, liked, disliked] (the history items that the user liked, and the others, each summed over
H) and with knowledge the two augmented vectors (REKI, section 3.4). Papers on re-ranking start from features of the pair of
user (or query) and item. The code of KAR gives its re-rankers the item alone, so that there only the arm with knowledge sees a
user at all; here the base arm sees the user as well.

Shapes: L lists, K places, H history, d embedding, d_aug augmented vector, d_in = 5 d + 2 d_aug candidate.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn

from contracts.errors import VectorError
from ranker.backbones.embedding import FeatureEmbedding

if TYPE_CHECKING:
    from ranker.backbones.embedding import Embedded
    from ranker.features import FeatureConfig, Features

N_FIELDS: Final = 5  # id, attributes, user, liked, disliked
# Sizes of all four, so that they differ in their idea and not in their width: the defaults of KAR's main_rerank.py.
HIDDEN: Final = 64
HEADS: Final = 2
FEED_FORWARD: Final = 128


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lists:
    """A batch of lists as vectors. Nothing that stands at a place or a history item which is not there may reach a logit."""

    features: Features  # what the vectors were made of
    items: Tensor  # (L, K, d_in)
    present: Tensor  # (L, K) bool
    ranks: Tensor  # (L, K) 0 for the best initial score; places that are not there come last
    user: Tensor  # (L, d)
    history: Tensor  # (L, H, d) oldest first, padding behind the last
    history_present: Tensor  # (L, H) bool


class Reranker(nn.Module, ABC):
    """A model that scores the items of a list together.

    A list's logits do not depend on the other lists of the batch, nor on how many empty places stand behind it.

    Args:
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.
    """

    def __init__(self, config: FeatureConfig, d_aug: int, n_places: int) -> None:
        super().__init__()
        self.embedding = FeatureEmbedding(config)
        self.d_aug = d_aug
        self.n_places = n_places
        self.n_history = config.history
        self.d_in = N_FIELDS * config.d_embedding + 2 * d_aug

    @abstractmethod
    def score(self, lists: Lists) -> Tensor:
        """Logits of lists, (L, K); what stands at empty places is overwritten."""

    def forward(
        self,
        features: Features,
        user_vectors: Tensor | None,
        item_vectors: Tensor | None,
        initial: Tensor,
        present: Tensor | None = None,
    ) -> Tensor:
        """Logits.

        Args:
            features: One batch with U = L users and L * K items, list after list; row 0 at empty places.
            user_vectors: (L, d_aug), or None: zeros.
            item_vectors: (L * K, d_aug), or None: zeros.
            initial: (L, K) scores of the initial ranker; only their order counts.
            present: (L, K) bool, False at empty places; None: every place is taken.

        Returns:
            (L, K), higher is better; minus infinity at empty places, so that they come last in any order. A loss has to leave
            them out.

        Raises:
            VectorError: If a vector has another size than the model reads, or a list is longer than ``n_places``.
        """
        n_lists, n_items = initial.shape
        if n_items > self.n_places:
            raise VectorError(
                f"lists of {n_items} items", wanted=f"at most {self.n_places}", todo="build the re-ranker with more places"
            )
        if present is None:
            present = torch.ones_like(initial, dtype=torch.bool)
        embedded = self.embedding(features)
        users = self._vectors(user_vectors, n_lists, embedded.user)  # (L, d_aug)
        items = self._vectors(item_vectors, n_lists * n_items, embedded.user)  # (L K, d_aug)
        lists = Lists(
            features=features,
            items=self._candidates(embedded, users, items).view(n_lists, n_items, self.d_in),
            present=present,
            ranks=initial_ranks(initial, present),
            user=embedded.user,
            history=embedded.history,
            history_present=embedded.present,
        )
        return self.score(lists).masked_fill(~present, -torch.inf)  # (L, K)

    def _candidates(self, embedded: Embedded, users: Tensor, items: Tensor) -> Tensor:
        """All that is known of each candidate and of its user, (L K, d_in)."""
        weights = torch.stack([embedded.liked, ~embedded.liked], dim=1) & embedded.present.unsqueeze(1)  # (L, 2, H)
        pooled = weights.to(embedded.history.dtype) @ embedded.history / self.n_history  # (L, 2, d)
        user = torch.cat([embedded.user, pooled.flatten(1), users], dim=1)  # (L, 3 d + d_aug)
        n_items = len(items) // max(len(users), 1)
        return torch.cat([embedded.item, embedded.attributes, items, user.repeat_interleave(n_items, dim=0)], dim=1)

    def _vectors(self, vectors: Tensor | None, n: int, like: Tensor) -> Tensor:
        if vectors is None or self.d_aug == 0:
            return like.new_zeros(n, self.d_aug)
        if vectors.shape != (n, self.d_aug):
            raise VectorError(
                f"vectors of shape {tuple(vectors.shape)}",
                wanted=f"({n}, {self.d_aug})",
                todo="use the augmented vectors of this model's version",
            )
        return vectors


def initial_ranks(initial: Tensor, present: Tensor) -> Tensor:
    """The rank of each place by initial score, 0 for the highest, (L, K); equal scores by place, empty places last.

    Args:
        initial: (L, K).
        present: (L, K) bool.
    """
    order = initial.masked_fill(~present, -torch.inf).argsort(dim=1, descending=True, stable=True)  # (L, K)
    return order.argsort(dim=1)
