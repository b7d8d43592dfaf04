"""What the gates of HEIN say: which expert serves which stream. Read before a number of experts is defended or cut.

Shapes: R rows, E experts that a stream sees (n_shared + n_dedicated), d_text encoder vector.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from hein.network import HEIN, Stream

_BATCH = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class GateLoad:
    """How the gate of a stream spreads over its experts; all weights together are 1.

    Args:
        stream: Whose gate.
        n_rows: How many encoder vectors were asked.
        shared: Mean weight of each shared expert.
        dedicated: Mean weight of each expert of this stream alone.
        row_entropy: Mean entropy of a row's weights, in nats: 0 where each row takes one expert, log(E) where all count the same.
        load_entropy: Entropy of the mean weights, in nats: 0 where one expert serves everybody.
    """

    stream: Stream
    n_rows: int
    shared: tuple[float, ...]
    dedicated: tuple[float, ...]
    row_entropy: float
    load_entropy: float

    @property
    def n_effective(self) -> float:
        """Experts in use, exp(load_entropy): between 1 and E."""
        return math.exp(self.load_entropy)

    @property
    def specialisation(self) -> float:
        """What a row says about its experts, in nats (load_entropy - row_entropy): 0 where every row has the same weights."""
        return self.load_entropy - self.row_entropy


def gate_load(hein: HEIN, x: Tensor, stream: Stream) -> GateLoad:
    """The load of a stream's gate over some encoder vectors, undisturbed also while the network trains.

    Args:
        hein: The network.
        x: Encoder vectors, (R, d_text); read in batches.
        stream: Whose they are.

    Raises:
        ValueError: If there is no row.
    """
    if x.shape[0] == 0:
        raise ValueError("got no rows; wanted at least one encoder vector")
    n_experts = hein.config.n_shared + hein.config.n_dedicated
    weights, entropy = torch.zeros(n_experts, dtype=torch.float64), 0.0
    with torch.inference_mode():
        for rows in torch.split(x, _BATCH):
            gates = hein.gates(rows, stream).double().cpu()  # (R, E)
            weights += gates.sum(dim=0)  # (E,)
            entropy += float(torch.special.entr(gates).sum())
        mean = weights / x.shape[0]  # (E,)
        load: list[float] = mean.tolist()
        return GateLoad(
            stream=stream,
            n_rows=x.shape[0],
            shared=tuple(load[: hein.config.n_shared]),
            dedicated=tuple(load[hein.config.n_shared :]),
            row_entropy=entropy / x.shape[0],
            load_entropy=float(torch.special.entr(mean).sum()),
        )
