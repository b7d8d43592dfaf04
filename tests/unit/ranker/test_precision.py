from __future__ import annotations

import pytest
import torch

from ranker.precision import fast_products


def test_products_stay_close_and_the_switch_is_put_back() -> None:
    matmul = torch.backends.mkldnn.matmul
    before = matmul.fp32_precision
    one, two = torch.randn(64, 384), torch.randn(384, 96)
    with fast_products():
        assert matmul.fp32_precision == "bf16"
        fast = one @ two
    assert matmul.fp32_precision == before
    torch.testing.assert_close(fast, one @ two, rtol=2e-2, atol=0.5)  # what bfloat16 factors may cost


def test_an_error_puts_it_back_too() -> None:
    before = torch.backends.mkldnn.matmul.fp32_precision

    def fail() -> None:
        with fast_products():
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert torch.backends.mkldnn.matmul.fp32_precision == before
