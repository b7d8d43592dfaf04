"""What every backbone offers, so that training, scoring and the conformance suite need to know only this."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from ranker.features import Features


class Backbone(nn.Module, ABC):
    """A conventional ranking model that takes two augmented vectors as well.

    The score of a candidate does not depend on what else is in the batch (in eval mode).

    Shapes: B candidates or samples, U users (B or 1), H history, d_aug size of an augmented vector (0 in the base arm).
    """

    @abstractmethod
    def forward(self, features: Features, user_vectors: Tensor, item_vectors: Tensor) -> Tensor:
        """Logits.

        Args:
            features: One batch.
            user_vectors: (U, d_aug); zeros where there is none.
            item_vectors: (B, d_aug); zeros where there is none.

        Returns:
            (B,), higher is better.
        """

    @abstractmethod
    def attention(self, features: Features) -> Tensor:
        """How much each history item counts for each candidate, (B, H), 0 at padding: for explanations."""
