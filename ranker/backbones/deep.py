"""The deep part that the field models share: an MLP of 200 and 80 units beside what the model adds to it.

The sizes are those that KAR's code (KAR is the predecessor of REKI) has for all its models, so that backbones differ only in how
features meet. The last layer is part of a model's combination layer: linear over [what the model adds, deep] is the sum of a
linear layer over each.
"""

from __future__ import annotations

from typing import Final

from torch import nn

HIDDEN_1: Final = 200
HIDDEN_2: Final = 80


def deep_network(n_inputs: int) -> nn.Sequential:
    """(B, n_inputs) -> (B, 1): two hidden layers with ReLU and one logit."""
    return nn.Sequential(
        nn.Linear(n_inputs, HIDDEN_1), nn.ReLU(), nn.Linear(HIDDEN_1, HIDDEN_2), nn.ReLU(), nn.Linear(HIDDEN_2, 1)
    )
