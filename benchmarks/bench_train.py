"""Samples per second of offline training, with knowledge and without, on synthetic ids in the shapes of the authors' code.

    python benchmarks/bench_train.py [--seconds 10]

Batch 512, embedding 32, history 5, 2 shared + 5 dedicated experts, d_text 384, users and items as many as in ML-1M, one thread.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import torch
from machine import commit, machine

from contracts.settings import Settings, load_settings
from ranker.crm import build_optimizers
from ranker.features import FeatureConfig, ItemTable, item_features
from ranker.offline import build_joint, train_step
from ranker.samples import Samples

WARM_UP_STEPS = 20
N_SAMPLES, N_USERS, N_ITEMS, D_TEXT = 200_000, 6_040, 3_706, 384
# Measured once with the authors' code on one thread of a machine of the same kind, not in this run.
AUTHORS_SAMPLES_PER_S = {"base": 16_000, "knowledge": 8_200}


def settings_of_the_authors() -> Settings:
    """Their shapes, on one thread."""
    return load_settings(
        model={"d_embedding": 32, "history": 5},
        hein={"n_shared": 2, "n_dedicated": 5, "d_hidden": 128, "d_aug": 32},
        train={"batch": 512, "threads": 1},
    )


def synthetic(config: FeatureConfig) -> Samples:
    """Random samples with ids drawn as unevenly as people do (Zipf), and one row of knowledge per user and item."""
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, N_ITEMS + 1)
    popularity /= popularity.sum()
    user = rng.integers(0, N_USERS, N_SAMPLES)
    item = rng.choice(N_ITEMS, N_SAMPLES, p=popularity)
    names = [
        item_features(f"i{n}", {"genre": (f"g{n % 18}", f"g{n % 7}"), "year": (str(n % 80),)}, config) for n in range(N_ITEMS)
    ]
    return Samples(
        user=(1 + user).astype(np.int32),
        user_number=user.astype(np.int32),
        item=(1 + item).astype(np.int32),
        history=(1 + rng.choice(N_ITEMS, (N_SAMPLES, config.history), p=popularity)).astype(np.int32),
        history_liked=rng.integers(1, 3, (N_SAMPLES, config.history)).astype(np.int8),
        label=rng.integers(0, 2, N_SAMPLES).astype(np.float32),
        event_ms=np.arange(N_SAMPLES),
        user_rows=(1 + user).astype(np.int32),
        item_rows=(1 + N_USERS + item).astype(np.int32),
        items=ItemTable.of(names, config.n_attributes),
        matrix=rng.standard_normal((1 + N_USERS + N_ITEMS, D_TEXT)).astype(np.float32) / np.float32(np.sqrt(D_TEXT)),
    )


def samples_per_s(samples: Samples, settings: Settings, seconds: float, *, base: bool) -> float:
    """The training step of `ranker.offline`, timed after a warm-up."""
    torch.manual_seed(0)
    joint = build_joint(settings, D_TEXT, base=base).train()
    optimizers = build_optimizers(joint, settings.train.learning_rate)
    matrix, size = torch.from_numpy(samples.matrix), settings.train.batch
    order = np.random.default_rng(0).permutation(len(samples))
    n_done, started, step = 0, 0.0, 0
    while not started or time.perf_counter() - started < seconds:
        if step == WARM_UP_STEPS:
            started, n_done = time.perf_counter(), 0
        first = step * size % (len(samples) - size)
        batch = samples.batch(order[first : first + size])
        train_step(joint, optimizers, batch, matrix)
        n_done += size
        step += 1
    return n_done / (time.perf_counter() - started)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0, help="measured per arm")
    seconds = parser.parse_args().seconds
    settings = settings_of_the_authors()
    torch.set_num_threads(settings.train.threads)
    samples = synthetic(FeatureConfig.of(settings.model))
    found = {arm: samples_per_s(samples, settings, seconds, base=arm == "base") for arm in AUTHORS_SAMPLES_PER_S}
    line = {
        "bench": "train",
        "samples_per_s": {arm: round(value) for arm, value in found.items()},
        "authors_samples_per_s": AUTHORS_SAMPLES_PER_S,
        "authors_source": "the authors' code on one thread of a machine of the same kind, measured once, not in this run",
        "ratio": {arm: round(value / AUTHORS_SAMPLES_PER_S[arm], 2) for arm, value in found.items()},
        "threads": settings.train.threads,
        "batch": settings.train.batch,
        "machine": machine() | {"torch": torch.__version__},
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
