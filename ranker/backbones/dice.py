"""Dice, the activation of DIN and DIEN: a PReLU whose border follows the data (arXiv 1706.06978, equation 9)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """f(s) = p(s) s + (1 - p(s)) alpha s with p = sigmoid of the standardised s; running statistics in eval mode.

    Args:
        n_units: Columns of s.
    """

    def __init__(self, n_units: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(n_units, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(n_units))

    def forward(self, s: Tensor) -> Tensor:
        """(B, n_units) -> (B, n_units)."""
        p = torch.sigmoid(self.norm(s))  # (B, n_units)
        gated: Tensor = s * (self.alpha + p * (1 - self.alpha))  # (B, n_units)
        return gated
