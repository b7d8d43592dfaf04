from __future__ import annotations

import math

import pytest
import torch

from hein.gates import gate_load
from hein.network import HEIN, HeinConfig

CONFIG = HeinConfig(d_text=4, d_hidden=3, d_aug=2, n_shared=1, n_dedicated=2, dropout=0.5)


@pytest.fixture
def hein() -> HEIN:
    torch.manual_seed(0)
    return HEIN(CONFIG).train()


def set_gate(hein: HEIN, rows: list[list[float]]) -> None:
    with torch.no_grad():
        hein.gate["user"].weight.copy_(torch.tensor(rows))


def test_equal_weights(hein: HEIN) -> None:
    set_gate(hein, [[0.0] * 4] * 3)
    load = gate_load(hein, torch.randn(10, 4), "user")
    assert load.shared == pytest.approx([1 / 3])
    assert load.dedicated == pytest.approx([1 / 3, 1 / 3])
    assert load.row_entropy == pytest.approx(math.log(3))
    assert load.n_effective == pytest.approx(3)
    assert load.specialisation == pytest.approx(0, abs=1e-6)
    assert (load.stream, load.n_rows) == ("user", 10)


def test_each_row_takes_one_expert_and_together_they_take_two(hein: HEIN) -> None:
    set_gate(hein, [[50.0, 0, 0, 0], [0, 50.0, 0, 0], [0, 0, 50.0, 0]])
    load = gate_load(hein, torch.eye(4)[[0, 0, 0, 1]], "user")
    assert load.shared == pytest.approx([0.75])
    assert load.dedicated == pytest.approx([0.25, 0], abs=1e-6)
    assert load.row_entropy == pytest.approx(0, abs=1e-6)
    assert load.load_entropy == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert load.specialisation == pytest.approx(load.load_entropy)


def test_batches_change_nothing_and_the_network_stays_in_training(hein: HEIN, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(11, 4)
    whole = gate_load(hein, x, "item")
    monkeypatch.setattr("hein.gates._BATCH", 3)
    parts = gate_load(hein, x, "item")
    assert parts.shared == pytest.approx(whole.shared)
    assert parts.dedicated == pytest.approx(whole.dedicated)
    assert parts.row_entropy == pytest.approx(whole.row_entropy)
    assert whole.shared + whole.dedicated == pytest.approx(hein.gates(x, "item").mean(dim=0).tolist())
    assert hein.training


def test_one_mlp_has_one_expert_in_use() -> None:
    load = gate_load(HEIN(HeinConfig.one_mlp(d_text=4)), torch.randn(5, 4), "item")
    assert (load.shared, load.dedicated, load.n_effective) == ((1.0,), (), 1.0)


def test_no_rows_are_refused(hein: HEIN) -> None:
    with pytest.raises(ValueError, match="at least one"):
        gate_load(hein, torch.zeros(0, 4), "user")
