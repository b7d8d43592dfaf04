"""Rows per second of one training step of HEIN (forward, backward, Adam) for both streams, by precision, on one thread.

    python benchmarks/bench_hein.py [--seconds 2]

A step has R rows of users and R rows of items; d_text 384, d_hidden 128, d_aug 32, 2 shared + 2 x 5 dedicated experts. "loop" is
the plain form with one module per expert, as published code has it. Times are those of this thread on the processor, the tenth
percentile over the steps, so other work on the machine matters little.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING

import torch
from machine import commit, machine
from torch import Tensor, nn

from hein.network import HEIN, STREAMS, HeinConfig, Precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from hein.network import Stream

ROWS = (64, 256, 512, 900)
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MIN_STEPS, WARM_UP_STEPS = 10, 5


class Loop(nn.Module):
    """The same network with one module per expert."""

    def __init__(self, config: HeinConfig) -> None:
        super().__init__()
        n_experts = config.n_shared + config.n_dedicated
        self.shared = nn.ModuleList([_expert(config) for _ in range(config.n_shared)])
        self.dedicated = nn.ModuleDict(
            {stream: nn.ModuleList([_expert(config) for _ in range(config.n_dedicated)]) for stream in STREAMS}
        )
        self.gate = nn.ModuleDict({stream: nn.Linear(config.d_text, n_experts, bias=False) for stream in STREAMS})

    def forward(self, x: Tensor, stream: Stream) -> Tensor:
        """Augmented vectors, (R, d_aug)."""
        gates = self.gate[stream](x).softmax(dim=1)  # (R, E)
        experts = nn.ModuleList([*self.shared, *self.dedicated[stream]])
        answers = torch.stack([expert(x) for expert in experts], dim=1)  # (R, E, d_aug)
        z: Tensor = (gates.unsqueeze(2) * answers).sum(dim=1)  # (R, d_aug)
        return z


def _expert(config: HeinConfig) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(config.d_text, config.d_hidden), nn.ReLU(), nn.Linear(config.d_hidden, config.d_aug), nn.ReLU()
    )


def rows_per_s(network: nn.Module, n_rows: int, seconds: float, *, fused: bool) -> float:
    """Rows of both streams through forward, backward and Adam."""
    x = {stream: torch.randn(n_rows, HeinConfig().d_text) / HeinConfig().d_text ** 0.5 for stream in STREAMS}
    optimizer = torch.optim.Adam(network.parameters(), fused=fused)

    def step() -> None:
        optimizer.zero_grad()
        torch.autograd.backward((network(x["user"], "user") * network(x["item"], "item")).sum())
        optimizer.step()

    return 2 * n_rows / _tenth_percentile(step, seconds)


def _tenth_percentile(step: Callable[[], None], seconds: float) -> float:
    for _ in range(WARM_UP_STEPS):
        step()
    taken: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(taken) < MIN_STEPS:
        started = time.thread_time()
        step()
        taken.append(time.thread_time() - started)
    return sorted(taken)[len(taken) // 10]


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="measured per figure")
    parser.add_argument(
        "--onednn", action="store_true", help="float32 products by oneDNN (rounded to bfloat16 where there is AMX)"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.onednn:
        torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    torch.manual_seed(0)
    networks: dict[str, tuple[nn.Module, bool]] = {"loop": (Loop(HeinConfig()), False)}
    networks |= {precision: (HEIN(HeinConfig(), precision).train(), True) for precision in PRECISIONS}
    found: dict[str, dict[str, int]] = {}
    for n_rows in ROWS:
        speeds = {name: rows_per_s(net, n_rows, arguments.seconds, fused=fused) for name, (net, fused) in networks.items()}
        found[str(n_rows)] = {name: round(speed) for name, speed in speeds.items()}
    line = {
        "bench": "hein",
        "rows_per_s": found,
        "adam": {name: "fused" if fused else "default" for name, (_, fused) in networks.items()},
        "float32_products": "oneDNN" if arguments.onednn else "torch's default",
        "threads": 1,
        "machine": machine() | {"torch": torch.__version__},
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
