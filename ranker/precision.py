"""Faster matrix products while a model trains on a CPU; what is served is computed as always.

torch multiplies float32 matrices with MKL, which on some processors (AMD among them) is half as fast as oneDNN. The one public
switch that sends them there also allows oneDNN to round the factors to bfloat16 where the processor has units for it (AMX); sums
stay float32.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def fast_products() -> Iterator[None]:
    """While it lasts, float32 products of this process go to oneDNN."""
    matmul = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]  # the stubs of torch 2.13 lack it
    before = matmul.fp32_precision
    matmul.fp32_precision = "bf16"
    try:
        yield
    finally:
        matmul.fp32_precision = before
