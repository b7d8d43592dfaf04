from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch
from safetensors.torch import load, save
from torch.nn.functional import relu

from hein.network import HEIN, STREAMS, HeinConfig, Stream, training_precision
from hein.processor import Processor

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
            relu(relu(row @ experts.w1[k].T + experts.b1[k, :, 0]) @ experts.w2[k].T + experts.b2[k, :, 0])
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


@pytest.mark.parametrize("d_text", [16, 384, 768, 1024])
def test_any_size_of_encoder_vector(d_text: int) -> None:
    torch.manual_seed(0)
    hein = HEIN(HeinConfig(d_text=d_text, d_hidden=8, d_aug=4))
    x = torch.randn(5, d_text)
    torch.testing.assert_close(hein(x, "user"), one_by_one(hein, x, "user"))


def test_one_mlp_has_neither_gate_nor_dedicated_experts_and_serves_both_streams() -> None:
    torch.manual_seed(0)
    config = HeinConfig.one_mlp(d_text=6, d_hidden=8, d_aug=4)
    hein = HEIN(config)
    x = torch.randn(3, 6)
    z = hein(x, "user")
    assert torch.equal(z, hein(x, "item"))
    w1, w2 = hein.shared.w1[0], hein.shared.w2[0]
    torch.testing.assert_close(z, relu(relu(x @ w1.T) @ w2.T))
    assert torch.equal(hein.gates(x, "user"), torch.ones(3, 1))
    assert sum(parameter.numel() for parameter in hein.parameters()) == 6 * 8 + 8 + 8 * 4 + 4
    assert config == HeinConfig(d_text=6, d_hidden=8, d_aug=4, n_shared=1, n_dedicated=0)


def test_one_mixture_shares_its_experts_and_has_a_gate_per_stream() -> None:
    torch.manual_seed(0)
    hein = HEIN(HeinConfig.one_mixture(n=3, d_text=6, d_hidden=8, d_aug=4))
    x = torch.randn(5, 6)
    assert not torch.allclose(hein(x, "user"), hein(x, "item"))
    with torch.no_grad():
        hein.gate["user"].weight.copy_(hein.gate["item"].weight)
    torch.testing.assert_close(hein(x, "user"), hein(x, "item"))


ABLATIONS = {
    "one mlp": HeinConfig.one_mlp(d_text=6),
    "one mixture": HeinConfig.one_mixture(d_text=6),
    "no shared experts": HeinConfig(d_text=6, n_shared=0, n_dedicated=2),
    "one expert per stream": HeinConfig(d_text=6, n_shared=0, n_dedicated=1),
}


@pytest.mark.parametrize("config", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_have_no_empty_parameter_and_none_without_gradient(config: HeinConfig) -> None:
    torch.manual_seed(0)
    hein = HEIN(config)
    x = torch.randn(64, 6)
    (hein(x, "user") * hein(x.flip(0), "item")).sum().backward()
    for name, parameter in hein.named_parameters():
        assert parameter.numel() > 0, name
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("config", ABLATIONS.values(), ids=ABLATIONS)
def test_ablations_come_back_from_safetensors_and_json(config: HeinConfig) -> None:
    hein = HEIN(config)
    again = HEIN(HeinConfig(**json.loads(json.dumps(asdict(config)))))
    again.load_state_dict(load(save(hein.state_dict())))
    x = torch.randn(3, 6)
    assert again.config == config
    for stream in STREAMS:
        assert torch.equal(again(x, stream), hein(x, stream))


def test_no_expert_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        HeinConfig(n_shared=0, n_dedicated=0)


def in_both_precisions(config: HeinConfig, *, linear: bool) -> tuple[HEIN, HEIN]:
    torch.manual_seed(0)
    exact = HEIN(config).train()
    if linear:  # all units stay active: near 0 rounding decides whether a unit is, which is no small difference
        with torch.no_grad():
            for experts in (exact.shared, *exact.dedicated.values()):
                experts.b1.fill_(0.5)
                experts.w2.abs_()
    rounded = HEIN(config, precision="bfloat16").train()
    rounded.load_state_dict(exact.state_dict())
    return exact, rounded


@pytest.mark.parametrize("n_rows", [1, 7, 130])
@pytest.mark.parametrize(("linear", "wanted_z", "wanted_gradient"), [(True, 0.003, 0.05), (False, 0.005, 0.2)])
def test_bfloat16_training_stays_near_float32(n_rows: int, linear: bool, wanted_z: float, wanted_gradient: float) -> None:
    x = torch.randn(n_rows, 384, generator=torch.Generator().manual_seed(1)) / 384**0.5
    exact, rounded = in_both_precisions(HeinConfig(), linear=linear)
    z, near = (hein(x, "user") for hein in (exact, rounded))
    assert near.dtype == torch.float32
    assert not torch.equal(near, z)
    assert relative(near, z) < wanted_z
    for hein in (exact, rounded):
        (hein(x, "user") * hein(x, "item")).sum().backward()
    for (name, parameter), other in zip(exact.named_parameters(), rounded.parameters(), strict=True):
        assert other.grad.dtype == torch.float32, name
        assert relative(other.grad, parameter.grad) < wanted_gradient, name


def test_bfloat16_learns_the_same() -> None:
    x = torch.randn(256, 32, generator=torch.Generator().manual_seed(1)) / 32**0.5
    wanted = torch.randn(256, generator=torch.Generator().manual_seed(2))
    losses = []
    for hein in in_both_precisions(HeinConfig(d_text=32, d_hidden=16, d_aug=8), linear=False):
        optimizer = torch.optim.Adam(hein.parameters(), lr=1e-2, fused=True)
        for _ in range(60):
            optimizer.zero_grad()
            loss = ((hein(x, "user") * hein(x.flip(0), "item")).sum(dim=1) - wanted).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[0] < 0.5
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float(((found - wanted).norm() / wanted.norm()).detach())


def test_stored_vectors_do_not_depend_on_the_precision_of_training() -> None:
    torch.manual_seed(0)
    hein = HEIN(CONFIG).eval()
    x = torch.randn(3, 6)
    before = hein(x, "item")
    hein.precision = "bfloat16"
    assert torch.equal(hein(x, "item"), before)


def test_the_precision_of_training_follows_the_processor() -> None:
    assert training_precision(Processor(model="with", flags=("avx2", "avx512_bf16"))) == "bfloat16"
    assert training_precision(Processor(model="without", flags=("avx2", "avx512f"))) == "float32"


def test_the_arithmetic_beside_the_config_is_right() -> None:
    assert sum(parameter.numel() for parameter in HEIN(HeinConfig()).parameters()) == 646_272
