"""HEIN, the hybrid-expert integration network: encoder vectors of users and items into the recommendation space.

REKI (arXiv 2408.10520) section 3.3; the hybrid-expert adaptor of KAR (arXiv 2306.10933) is its published form.

Shapes: B rows, E experts that a stream sees (n_shared + n_dedicated), d_text encoder vector, d_hidden, d_aug augmented vector.
Size at the defaults (d_text 384, d_hidden 128, d_aug 32, 2 shared + 2 x 5 dedicated experts):
    an expert      384 * 128 + 128 + 128 * 32 + 32 = 53,408 weights;   12 of them = 640,896
    a gate         7 * 384 = 2,688 weights;                            2 of them  = 5,376        together 646,272
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

Stream = Literal["user", "item"]
STREAMS: Final[tuple[Stream, ...]] = ("user", "item")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeinConfig:
    """Sizes of the network. ``n_shared=1, n_dedicated=0`` is one MLP, ``n_dedicated=0`` one mixture of experts (ablations)."""

    d_text: int = 384
    d_hidden: int = 128
    d_aug: int = 32
    n_shared: int = 2
    n_dedicated: int = 5
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Refuse a network without experts."""
        if min(self.n_shared, self.n_dedicated) < 0 or self.n_shared + self.n_dedicated < 1:
            raise ValueError(f"got {self.n_shared} shared and {self.n_dedicated} dedicated experts; wanted at least one in all")


class Experts(nn.Module):
    """Stacked weights of some experts; each is E(x) = ReLU(W2 ReLU(W1 x + b1) + b2).

    Args:
        n: How many.
        config: Sizes.
    """

    def __init__(self, n: int, config: HeinConfig) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(n, config.d_text, config.d_hidden))  # (n, d_text, d_hidden)
        self.b1 = nn.Parameter(torch.zeros(n, config.d_hidden))  # (n, d_hidden)
        self.w2 = nn.Parameter(torch.empty(n, config.d_hidden, config.d_aug))  # (n, d_hidden, d_aug)
        self.b2 = nn.Parameter(torch.zeros(n, config.d_aug))  # (n, d_aug)
        for expert in range(n):  # each alone: the fan of a stack of matrices would be n times too large
            nn.init.xavier_normal_(self.w1[expert])
            nn.init.xavier_normal_(self.w2[expert])


class HEIN(nn.Module):
    """Experts shared by both streams, experts of each stream alone, and one gate per stream.

    Args:
        config: Sizes.
    """

    def __init__(self, config: HeinConfig) -> None:
        super().__init__()
        self.config = config
        n_experts = config.n_shared + config.n_dedicated
        self.shared = Experts(config.n_shared, config)
        self.dedicated = nn.ModuleDict({stream: Experts(config.n_dedicated, config) for stream in STREAMS})
        self.gate = nn.ModuleDict({stream: nn.Linear(config.d_text, n_experts, bias=False) for stream in STREAMS})
        self.dropout = nn.Dropout(config.dropout)
        for stream in STREAMS:
            nn.init.xavier_normal_(cast("nn.Linear", self.gate[stream]).weight)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Augmented vectors z = sum over k of g[k] E_k(x).

        Args:
            x: Encoder vectors, (B, d_text).
            stream: Whose they are.

        Returns:
            (B, d_aug), all numbers >= 0.
        """
        own = cast("Experts", self.dedicated[stream])
        w1 = torch.cat([self.shared.w1, own.w1])  # (E, d_text, d_hidden)
        b1 = torch.cat([self.shared.b1, own.b1])  # (E, d_hidden)
        w2 = torch.cat([self.shared.w2, own.w2])  # (E, d_hidden, d_aug)
        b2 = torch.cat([self.shared.b2, own.b2])  # (E, d_aug)
        x = self.dropout(x)  # (B, d_text)
        hidden = functional.relu(torch.einsum("bt,eth->beh", x, w1) + b1)  # (B, E, d_hidden)
        answers = functional.relu(torch.einsum("beh,eha->bea", hidden, w2) + b2)  # (B, E, d_aug)
        return torch.einsum("be,bea->ba", self._gates(x, stream), answers)  # (B, d_aug)

    def gates(self, x: Tensor, stream: Stream) -> Tensor:
        """How much each expert counts, (B, E); shared experts first; rows sum to 1."""
        return self._gates(self.dropout(x), stream)

    def _gates(self, x: Tensor, stream: Stream) -> Tensor:
        logits: Tensor = self.gate[stream](x)  # (B, E)
        return functional.softmax(logits, dim=-1)  # (B, E)
