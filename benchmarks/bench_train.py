"""Samples per second of training DIN, with knowledge and without, on synthetic ids in the shapes of the authors' code.

    python benchmarks/bench_train.py [--seconds 10]

Batch 512, embedding 32, history 5, 2 shared + 5 dedicated experts, d_text 384, users and items as many as in ML-1M, one thread.
The loop is that of `reki evaluate ctr`. ``together`` is how many samples of a user stand side by side in a batch: the authors'
is 1.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Final

import numpy as np
import torch
from machine import commit, machine

from hein.network import Precision, training_precision
from hein.processor import read_processor
from ranker.crm import build_optimizers
from ranker.evaluation.arms import KNOWLEDGE_ITEMS, KNOWLEDGE_USERS, arm_knowledge, get_arm
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.ctr import CtrProblem
from ranker.evaluation.recipe import Recipe
from ranker.evaluation.task import HISTORY, EvaluationTask
from ranker.precision import fast_products

WARM_UP_STEPS: Final = 20
N_SAMPLES, N_USERS, N_ITEMS, D_TEXT = 200_000, 6_040, 3_706, 384
# Measured once with the authors' code on one thread of a machine of the same kind, not in this run.
AUTHORS_SAMPLES_PER_S: Final = {"base": 16_000, "knowledge": 8_200}


def synthetic() -> EvaluationTask:
    """Random samples with some 430 distinct items in a batch, as on ML-1M; all users are training users."""
    rng = np.random.default_rng(0)
    popularity = 1 / (np.arange(N_ITEMS) + 101)
    popularity /= popularity.sum()

    def items(*shape: int) -> np.ndarray:
        return (1 + rng.choice(N_ITEMS, shape, p=popularity)).astype(np.int32)

    return EvaluationTask(
        name="synthetic",
        licence="none: random numbers",
        data_hash="0" * 32,
        user=np.sort(rng.integers(0, N_USERS, N_SAMPLES)).astype(np.int32),
        item=items(N_SAMPLES),
        history=items(N_SAMPLES, HISTORY),
        history_liked=rng.integers(1, 3, (N_SAMPLES, HISTORY)).astype(np.int8),
        label=rng.integers(0, 2, N_SAMPLES).astype(np.float32),
        event_ms=np.arange(N_SAMPLES),
        position=np.arange(N_SAMPLES, dtype=np.int32),
        users=tuple(map(str, range(N_USERS))),
        part_of_user=np.zeros(N_USERS, np.int8),
        demographics=((),) * N_USERS,
        n_prefix=np.full(N_USERS, HISTORY, np.int32),
        prefix=items(N_USERS, HISTORY),
        prefix_liked=rng.integers(1, 3, (N_USERS, HISTORY)).astype(np.int8),
        items=tuple(map(str, range(N_ITEMS))),
        titles=("",) * N_ITEMS,
        attributes=tuple({"genre": (f"g{n % 18}", f"g{n % 7}"), "year": (str(n % 80),)} for n in range(N_ITEMS)),
    )


def samples_per_s(task: EvaluationTask, arm_name: str, together: int, precision: Precision, seconds: float) -> float:
    """Steps of `ranker.evaluation.training`, timed after a warm-up."""
    torch.manual_seed(0)
    draw = np.random.default_rng(1)
    vectors = {
        name: (draw.standard_normal((n, D_TEXT)) / np.sqrt(D_TEXT)).astype(np.float32)
        for name, n in ((KNOWLEDGE_ITEMS, N_ITEMS), (KNOWLEDGE_USERS, N_USERS))
    }
    arm, recipe = get_arm(arm_name), Recipe(together=together)
    problem = CtrProblem(arm_columns(task, arm, arm_knowledge(arm, task, vectors), recipe.d_embedding), "din", recipe, precision)
    optimizers = build_optimizers(problem.module.train(), recipe.learning_rate)
    n_done, started, step = 0, 0.0, 0
    batches = problem.batches(draw)
    with fast_products():
        while not started or time.perf_counter() - started < seconds:
            if step == WARM_UP_STEPS:
                started, n_done = time.perf_counter(), 0
            index = batches[step % (len(batches) - 1)]  # the last one is short
            for optimizer in optimizers:
                optimizer.zero_grad()
            problem.loss(index).backward()
            for optimizer in optimizers:
                optimizer.step()
            n_done += len(index)
            step += 1
    return n_done / (time.perf_counter() - started)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured per line")
    seconds = parser.parse_args().seconds
    torch.set_num_threads(1)
    task, precision = synthetic(), training_precision(read_processor())
    runs: dict[str, tuple[str, int, Precision]] = {
        "base": ("base", 1, "float32"),
        "knowledge": ("knowledge", 8, precision),
        "knowledge, together 1": ("knowledge", 1, precision),
        "knowledge, float32": ("knowledge", 8, "float32"),
    }
    found = {name: samples_per_s(task, *run, seconds) for name, run in runs.items()}
    line = {
        "bench": "train",
        "samples_per_s": {name: round(value) for name, value in found.items()},
        "authors_samples_per_s": AUTHORS_SAMPLES_PER_S,
        "authors_source": "the authors' code on one thread of a machine of the same kind, measured once, not in this run",
        "ratio": {name: round(value / AUTHORS_SAMPLES_PER_S[name.partition(",")[0]], 2) for name, value in found.items()},
        "threads": 1,
        "batch": 512,
        "precision_of_hein": precision,
        "machine": machine() | {"torch": torch.__version__},
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
