from __future__ import annotations

import pytest
import torch
from torch.nn.functional import relu

from hein.network import HEIN, STREAMS, HeinConfig, Stream

CONFIG = HeinConfig(d_text=6, d_hidden=5, d_aug=3, n_shared=2, n_dedicated=3)


@pytest.fixture
def hein() -> HEIN:
    torch.manual_seed(0)
    made = HEIN(CONFIG)
    with torch.no_grad():
        for parameter in made.parameters():  # biases too, so that none can be forgotten unnoticed
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return made


def one_by_one(hein: HEIN, x: torch.Tensor, stream: Stream) -> torch.Tensor:
    own = hein.dedicated[stream]
    rows = []
    for row in x:
        gate = torch.softmax(hein.gate[stream].weight @ row, dim=0)
        answers = [
            relu(relu(row @ experts.w1[k] + experts.b1[k]) @ experts.w2[k] + experts.b2[k])
            for experts in (hein.shared, own)
            for k in range(len(experts.w1))
        ]
        rows.append(sum(weight * answer for weight, answer in zip(gate, answers, strict=True)))
    return torch.stack(rows)


@pytest.mark.parametrize("stream", STREAMS)
def test_it_equals_a_plain_loop_over_the_experts(hein: HEIN, stream: Stream) -> None:
    x = torch.randn(7, 6)
    torch.testing.assert_close(hein(x, stream), one_by_one(hein, x, stream))
    assert hein(x, stream).shape == (7, 3)
    assert hein(x[:0], stream).shape == (0, 3)


@pytest.mark.parametrize("stream", STREAMS)
def test_gate_rows_sum_to_one(hein: HEIN, stream: Stream) -> None:
    gates = hein.gates(torch.randn(7, 6), stream)
    assert gates.shape == (7, 5)
    torch.testing.assert_close(gates.sum(dim=1), torch.ones(7))


def test_gradients_of_both_streams_reach_all_parameters(hein: HEIN) -> None:
    x = torch.randn(64, 6)
    (hein(x, "user").sum() + hein(x, "item").square().sum()).backward()
    for name, parameter in hein.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_shared_experts_serve_both_streams_and_dedicated_ones_their_own(hein: HEIN) -> None:
    x = torch.randn(64, 6)
    hein(x, "user").sum().backward()
    assert hein.shared.w1.grad is not None
    assert all(parameter.grad is None for parameter in hein.dedicated["item"].parameters())
    before = hein(x, "item").detach()
    with torch.no_grad():
        hein.dedicated["user"].w1.zero_()
    torch.testing.assert_close(hein(x, "item"), before)
    with torch.no_grad():
        hein.shared.w2.zero_()
    assert not torch.allclose(hein(x, "item"), before)


def test_one_row_has_the_same_vector_in_any_batch(hein: HEIN) -> None:
    x = torch.randn(9, 6)
    torch.testing.assert_close(torch.cat([hein(row[None], "item") for row in x]), hein(x, "item"))


def test_the_start_is_xavier_per_expert_with_biases_of_zero() -> None:
    torch.manual_seed(0)
    hein = HEIN(HeinConfig(d_text=200, d_hidden=100, d_aug=50, n_shared=8, n_dedicated=2))
    assert float(hein.shared.w1.detach().std()) == pytest.approx((2 / 300) ** 0.5, rel=0.02)
    assert float(hein.shared.b1.detach().abs().sum()) == 0


def test_dropout_is_off_when_vectors_are_prestored() -> None:
    hein = HEIN(HeinConfig(d_text=6, dropout=0.9)).eval()
    x = torch.randn(3, 6)
    assert torch.equal(hein(x, "user"), hein(x, "user"))


def test_the_ablations_are_settings_and_no_expert_at_all_is_refused() -> None:
    x = torch.randn(2, 6)
    one_mlp = HEIN(HeinConfig(d_text=6, n_shared=1, n_dedicated=0))
    torch.testing.assert_close(one_mlp(x, "user"), one_mlp(x, "item"))
    assert HEIN(HeinConfig(d_text=6, n_shared=0, n_dedicated=2))(x, "user").shape == (2, 32)
    with pytest.raises(ValueError, match="at least one"):
        HeinConfig(n_shared=0, n_dedicated=0)


def test_the_arithmetic_beside_the_config_is_right() -> None:
    assert sum(parameter.numel() for parameter in HEIN(HeinConfig()).parameters()) == 646_272
