"""HEIN, the hybrid-expert integration network: encoder vectors of users and items into the recommendation space.

REKI (arXiv 2408.10520) section 3.3; the hybrid-expert adaptor of KAR (arXiv 2306.10933) is its published form.

Shapes: R rows, n experts of a group, E experts that a stream sees (n_shared + n_dedicated), d_text encoder vector, d_hidden,
d_aug augmented vector. Inside, rows are columns (R stands last): so every product of both directions is a plain matrix product
of what lies in memory, and all experts of a group are one.
Size at the defaults (d_text 384, d_hidden 128, d_aug 32, 2 shared + 2 x 5 dedicated experts):
    an expert      384 * 128 + 128 + 128 * 32 + 32 = 53,408 weights;   12 of them = 640,896
    a gate         7 * 384 = 2,688 weights;                            2 of them  = 5,376        together 646,272
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from hein.dropout import dropped

if TYPE_CHECKING:
    from hein.processor import Processor

Stream = Literal["user", "item"]
STREAMS: Final[tuple[Stream, ...]] = ("user", "item")
Precision = Literal["float32", "bfloat16"]
_DTYPES: Final[dict[Precision, torch.dtype]] = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRegularisation:
    """What disturbs one stream in training, and only there; all rates are 0 by default.

    Args:
        dropout: Rate at which numbers of the encoder vector are dropped; None: `HeinConfig.dropout`.
        noise: Standard deviation of the Gaussian noise added to the encoder vector; 1 is the size of a unit vector's number,
            1/sqrt(d_text), so noise of 1 is as long as the vector.
        default_rate: Rate at which a row's augmented vector becomes the default vector, zeros: as if the row had no knowledge.
    """

    dropout: float | None = None
    noise: float = 0.0
    default_rate: float = 0.0

    def __post_init__(self) -> None:
        """Refuse rates that are none."""
        _check_rates(dropout=self.dropout or 0.0, default_rate=self.default_rate)
        if not self.noise >= 0:
            raise ValueError(f"got noise {self.noise}; wanted at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class HeinConfig:
    """Sizes of the network and what regularises it. Two ablations have names: `one_mlp` and `one_mixture`.

    Regularise an ablation with `dataclasses.replace`; by hand they are ``n_shared=1, n_dedicated=0`` and ``n_dedicated=0``.

    Args:
        d_text: Size of an encoder vector.
        d_hidden: Hidden units of an expert.
        d_aug: Size of an augmented vector.
        n_shared: Experts that serve both streams.
        n_dedicated: Experts of each stream alone.
        dropout: Rate at which numbers of the encoder vectors are dropped, of every stream that names none of its own.
        expert_dropout: Rate at which hidden units of the experts are dropped.
        user: What disturbs the user stream alone. A mapping of its fields, as a checkpoint has it, is taken too.
        item: The same of the item stream.
    """

    d_text: int = 384
    d_hidden: int = 128
    d_aug: int = 32
    n_shared: int = 2
    n_dedicated: int = 5
    dropout: float = 0.0
    expert_dropout: float = 0.0
    user: StreamRegularisation = field(default_factory=StreamRegularisation)
    item: StreamRegularisation = field(default_factory=StreamRegularisation)

    def __post_init__(self) -> None:
        """Refuse a network without experts, and rates that are none."""
        if min(self.n_shared, self.n_dedicated) < 0 or self.n_shared + self.n_dedicated < 1:
            raise ValueError(f"got {self.n_shared} shared and {self.n_dedicated} dedicated experts; wanted at least one in all")
        _check_rates(dropout=self.dropout, expert_dropout=self.expert_dropout)
        for stream in STREAMS:
            given: object = getattr(self, stream)
            if isinstance(given, Mapping):
                object.__setattr__(self, stream, StreamRegularisation(**given))

    @classmethod
    def one_mlp(cls, *, d_text: int = 384, d_hidden: int = 128, d_aug: int = 32) -> Self:
        """The ablation without experts: one network of two layers for both streams, no gate."""
        return cls(d_text=d_text, d_hidden=d_hidden, d_aug=d_aug, n_shared=1, n_dedicated=0)

    @classmethod
    def one_mixture(cls, *, n: int = 7, d_text: int = 384, d_hidden: int = 128, d_aug: int = 32) -> Self:
        """The ablation without dedicated experts: one mixture of ``n`` experts for both streams, a gate per stream."""
        return cls(d_text=d_text, d_hidden=d_hidden, d_aug=d_aug, n_shared=n, n_dedicated=0)

    def of(self, stream: Stream) -> StreamRegularisation:
        """What disturbs a stream."""
        return self.user if stream == "user" else self.item


class Experts(nn.Module):
    """A group of experts; each is E(x) = ReLU(W2 ReLU(W1 x + b1) + b2).

    Args:
        n: How many, at least 1.
        config: Sizes.
    """

    def __init__(self, n: int, config: HeinConfig) -> None:
        super().__init__()
        self.w1 = nn.Parameter(torch.empty(n, config.d_hidden, config.d_text))  # (n, d_hidden, d_text)
        self.b1 = nn.Parameter(torch.zeros(n, config.d_hidden, 1))  # (n, d_hidden, 1)
        self.w2 = nn.Parameter(torch.empty(n, config.d_aug, config.d_hidden))  # (n, d_aug, d_hidden)
        self.b2 = nn.Parameter(torch.zeros(n, config.d_aug, 1))  # (n, d_aug, 1)
        self._dropout = config.expert_dropout
        for expert in range(n):  # each alone: the fan of a stack of matrices would be n times too large
            nn.init.xavier_normal_(self.w1[expert])
            nn.init.xavier_normal_(self.w2[expert])

    def forward(self, columns: Tensor) -> Tensor:
        """Answers of all experts, (n, d_aug, R), computed in the precision of ``columns``, (d_text, R)."""
        n, d_hidden, _ = self.w1.shape
        w1, b1, w2, b2 = (weight.to(columns.dtype) for weight in (self.w1, self.b1, self.w2, self.b2))
        hidden = torch.addmm(b1.flatten(0, 1), w1.flatten(0, 1), columns).relu_()  # (n * d_hidden, R)
        hidden = dropped(hidden, self._dropout if self.training else 0.0)  # (n * d_hidden, R)
        hidden = hidden.view(n, d_hidden, columns.shape[1])  # (n, d_hidden, R)
        return torch.baddbmm(b2, w2, hidden).relu_()  # (n, d_aug, R)


class HEIN(nn.Module):
    """Experts shared by both streams, experts of each stream alone, and one gate per stream.

    A group without experts has no module, and neither has the gate of a single expert: no parameter stays without gradient.

    Args:
        config: Sizes.
        precision: Of what the experts multiply in training; the weights that are kept and the sums inside a product stay float32,
            and so do the gates. "bfloat16" is faster where the processor multiplies it (`training_precision`). In eval mode it is
            float32 always, so stored vectors do not depend on it.

    Attributes:
        precision: May be set at any time.
    """

    def __init__(self, config: HeinConfig, precision: Precision = "float32") -> None:
        super().__init__()
        self.config = config
        self.precision: Precision = precision
        n_experts = config.n_shared + config.n_dedicated
        streams = STREAMS if config.n_dedicated else ()
        gated = STREAMS if n_experts > 1 else ()
        self.shared = Experts(config.n_shared, config) if config.n_shared else None
        self.dedicated = nn.ModuleDict({stream: Experts(config.n_dedicated, config) for stream in streams})
        self.gate = nn.ModuleDict({stream: nn.Linear(config.d_text, n_experts, bias=False) for stream in gated})
        for stream in gated:
            nn.init.xavier_normal_(cast("nn.Linear", self.gate[stream]).weight)

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Augmented vectors z = sum over k of g[k] E_k(x).

        Args:
            x: Encoder vectors, (R, d_text).
            stream: Whose they are.

        Returns:
            (R, d_aug), all numbers >= 0.
        """
        x = self._disturbed(x, stream)  # (R, d_text)
        gates = self._gates(x, stream).unsqueeze(1)  # (E, 1, R)
        columns = x.to(_DTYPES[self.precision if self.training else "float32"]).t()  # (d_text, R)
        answers = torch.cat([group(columns) for group in self._groups(stream)])  # (E, d_aug, R)
        z = (gates * answers).sum(dim=0).t().contiguous()  # (R, d_aug), as the readers of single rows like it
        rate = self.config.of(stream).default_rate
        if self.training and rate > 0:
            z = z * (torch.rand(z.shape[0], 1, device=z.device) >= rate)  # (R, d_aug)
        return z

    def gates(self, x: Tensor, stream: Stream) -> Tensor:
        """How much each expert counts, (R, E); shared experts first; rows sum to 1. Nothing disturbs it, also in training."""
        return self._gates(x, stream).t()  # (R, E)

    def _gates(self, x: Tensor, stream: Stream) -> Tensor:
        if stream not in self.gate:  # a single expert
            return torch.ones(1, x.shape[0], dtype=x.dtype, device=x.device)  # (1, R)
        weight = cast("nn.Linear", self.gate[stream]).weight  # (E, d_text)
        return functional.softmax(weight @ x.t(), dim=0)  # (E, R)

    def _groups(self, stream: Stream) -> list[Experts]:
        shared = [] if self.shared is None else [self.shared]
        return [*shared, cast("Experts", self.dedicated[stream])] if stream in self.dedicated else shared

    def _disturbed(self, x: Tensor, stream: Stream) -> Tensor:
        ways = self.config.of(stream)
        if self.training and ways.noise > 0:
            x = x + torch.randn_like(x) * (ways.noise / math.sqrt(self.config.d_text))  # (R, d_text)
        rate = self.config.dropout if ways.dropout is None else ways.dropout
        return dropped(x, rate if self.training else 0.0)  # (R, d_text)


def training_precision(processor: Processor) -> Precision:
    """The precision in which this processor trains HEIN fastest: bfloat16 where an instruction multiplies it."""
    return "bfloat16" if {"avx512_bf16", "amx_bf16"} & set(processor.flags) else "float32"


def _check_rates(**rates: float) -> None:
    for name, rate in rates.items():
        if not 0 <= rate < 1:
            raise ValueError(f"got {name} {rate}; wanted at least 0 and below 1")
