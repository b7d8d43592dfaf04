from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from hein.dropout import dropped
from hein.network import HEIN, STREAMS, HeinConfig, Stream, StreamRegularisation

SIZES = {"d_text": 64, "d_hidden": 8, "d_aug": 4}
WAYS = {
    "dropout": HeinConfig(**SIZES, dropout=0.5),
    "expert dropout": HeinConfig(**SIZES, expert_dropout=0.5),
    "user dropout": HeinConfig(**SIZES, user=StreamRegularisation(dropout=0.5)),
    "user noise": HeinConfig(**SIZES, user=StreamRegularisation(noise=1.0)),
    "user default": HeinConfig(**SIZES, user=StreamRegularisation(default_rate=0.5)),
}


def built(config: HeinConfig) -> HEIN:
    torch.manual_seed(0)
    return HEIN(config)


def is_random(hein: HEIN, stream: Stream) -> bool:
    x = torch.randn(20, 64)
    return not torch.equal(hein(x, stream), hein(x, stream))


@pytest.mark.parametrize("config", WAYS.values(), ids=WAYS)
def test_each_way_disturbs_training_and_never_a_stored_vector(config: HeinConfig) -> None:
    hein = built(config)
    assert is_random(hein.train(), "user")
    assert not any(is_random(hein.eval(), stream) for stream in STREAMS)
    x = torch.randn(20, 64)
    assert torch.equal(hein(x, "user"), built(HeinConfig(**SIZES)).eval()(x, "user"))


@pytest.mark.parametrize("name", ["user dropout", "user noise", "user default"])
def test_what_is_named_for_one_stream_leaves_the_other_alone(name: str) -> None:
    assert not is_random(built(WAYS[name]).train(), "item")


def test_nothing_disturbs_by_default() -> None:
    assert not any(is_random(built(HeinConfig(**SIZES)).train(), stream) for stream in STREAMS)


def test_a_stream_can_be_spared_the_common_dropout() -> None:
    hein = built(HeinConfig(**SIZES, dropout=0.5, item=StreamRegularisation(dropout=0.0))).train()
    assert is_random(hein, "user")
    assert not is_random(hein, "item")


def test_the_default_rate_makes_whole_rows_zero_and_leaves_the_others_as_they_are() -> None:
    hein = built(HeinConfig(**SIZES, user=StreamRegularisation(default_rate=0.25))).train()
    x = torch.randn(4000, 64)
    z, whole = hein(x, "user"), hein.eval()(x, "user")
    gone = (z == 0).all(dim=1)
    assert 0.22 < float(gone.float().mean()) < 0.28
    assert torch.equal(z[~gone], whole[~gone])


def test_noise_of_one_is_as_long_as_a_unit_vector() -> None:
    hein = built(HeinConfig(**SIZES, user=StreamRegularisation(noise=1.0))).train()
    seen: list[torch.Tensor] = []
    hein.shared.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    hein(torch.zeros(500, 64), "user")
    assert float(seen[0].norm(dim=0).mean()) == pytest.approx(1.0, abs=0.02)


def test_gates_are_read_undisturbed() -> None:
    hein = built(HeinConfig(**SIZES, dropout=0.9)).train()
    x = torch.randn(5, 64)
    assert torch.equal(hein.gates(x, "user"), hein.gates(x, "user"))


def test_a_seed_makes_the_disturbance_the_same() -> None:
    hein = built(WAYS["expert dropout"]).train()
    x = torch.randn(5, 64)
    torch.manual_seed(3)
    first = hein(x, "user")
    torch.manual_seed(3)
    assert torch.equal(hein(x, "user"), first)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_dropout_drops_its_rate_and_keeps_the_mean(rate: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.ones(301, 701, dtype=dtype)
    y = dropped(x, rate)
    assert y.dtype == dtype
    assert float((y == 0).double().mean()) == pytest.approx(rate, abs=0.004)
    assert set(y.unique().tolist()) == {0.0, float(torch.tensor(1 / (1 - rate), dtype=dtype))}
    kept = (y != 0).double()
    assert float(kept.mean(dim=0).std()) == pytest.approx((rate * (1 - rate) / 301) ** 0.5, rel=0.15)  # each number alone
    assert float(kept.mean(dim=1).std()) == pytest.approx((rate * (1 - rate) / 701) ** 0.5, rel=0.15)


def test_the_gradient_of_dropout_goes_where_the_numbers_went() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 3, requires_grad=True)
    y = dropped(x, 0.5)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_a_config_with_all_of_it_comes_back_from_json_and_an_old_one_loads() -> None:
    config = HeinConfig(
        **SIZES, expert_dropout=0.1, user=StreamRegularisation(dropout=0.3, noise=0.2, default_rate=0.1), n_dedicated=1
    )
    assert HeinConfig(**json.loads(json.dumps(asdict(config)))) == config
    old = {"d_text": 384, "d_hidden": 128, "d_aug": 32, "n_shared": 2, "n_dedicated": 5, "dropout": 0.0}
    assert HeinConfig(**old) == HeinConfig()


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_rates_that_are_none_are_refused(rate: float) -> None:
    for build in (
        lambda: HeinConfig(dropout=rate),
        lambda: HeinConfig(expert_dropout=rate),
        lambda: StreamRegularisation(dropout=rate),
        lambda: StreamRegularisation(default_rate=rate),
    ):
        with pytest.raises(ValueError, match="wanted at least 0"):
            build()
    with pytest.raises(ValueError, match="noise"):
        StreamRegularisation(noise=-0.1)
