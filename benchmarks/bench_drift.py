"""How soon `extractor.drift` finds a shift of interest, how often it finds one where there is none, and what an event costs.

    python benchmarks/bench_drift.py [--streams 300]

A stream is one user's distances between likes and knowledge: normal, standard deviation 0.18 (films by their descriptions, in 32
dimensions), with a mean that jumps up after 20 likes. "found" is the share found within 30 likes, "median_likes" how many those
took. False alarms are counted on streams of 100 likes without a shift. "downward" is a shift the other way, which is no drift.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from typing import TYPE_CHECKING, Any

import numpy as np
from machine import commit, machine

from contracts.records import EncodedKnowledge, InteractionEvent
from contracts.settings import Plan
from extractor.drift import Drift, likes_watch, moved_up

if TYPE_CHECKING:
    from collections.abc import Iterator

DELTAS = (0.002, 0.05, 0.2)
SHIFTS = (0.2, 0.3, 0.45)
MEAN, DEVIATION = 0.7, 0.18
N_BEFORE, N_AFTER, N_STATIONARY = 20, 30, 100
SEED = 7
N_PLACES, N_EVENTS, D_TEXT = 20_000, 20_000, 384


def streams(n: int, n_before: int, n_after: int, shift: float) -> Iterator[list[float]]:
    """``n`` streams of distances, the same at every run."""
    rng = np.random.default_rng(SEED)
    for _ in range(n):
        means = np.repeat((MEAN, MEAN + shift), (n_before, n_after))
        yield np.clip(rng.normal(means, DEVIATION), 0, 2).tolist()


def alarms(distances: list[float], delta: float) -> list[int]:
    """After which likes drift was found."""
    watch = likes_watch(delta)
    return [number for number, distance in enumerate(distances) if moved_up(watch, distance)]


def delays(n: int, delta: float, shift: float) -> dict[str, float]:
    """Share of shifts that were found in time, and after how many likes."""
    found = [
        first[0] - N_BEFORE + 1
        for distances in streams(n, N_BEFORE, N_AFTER, shift)
        if (first := [at for at in alarms(distances, delta) if at >= N_BEFORE])
    ]
    return {"found": round(len(found) / n, 2), "median_likes": float(np.median(found)) if found else 0.0}


def false_per_1000(n: int, delta: float) -> float:
    """Alarms per 1,000 likes on streams without a shift."""
    n_alarms = sum(len(alarms(distances, delta)) for distances in streams(n, N_STATIONARY, 0, 0.0))
    return round(1_000 * n_alarms / (n * N_STATIONARY), 3)


def downward(n: int, delta: float) -> float:
    """Share of streams with an alarm after a shift by the largest step downward."""
    return round(sum(bool(alarms(distances, delta)) for distances in streams(n, N_BEFORE, N_AFTER, -SHIFTS[-1])) / n, 3)


def cost() -> dict[str, float]:
    """Microseconds of a place learnt and of an event watched, and bytes of a place."""
    drift = Drift(Plan())
    rng = np.random.default_rng(SEED)
    vectors = rng.standard_normal((N_PLACES, D_TEXT), dtype=np.float32)
    memory_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    for number, vector in enumerate(vectors):
        subject = f"{'user' if number % 10 == 0 else 'item'}:{number}"
        drift.learn(
            EncodedKnowledge(
                subject=subject, vector=vector.tobytes(), encoder="e", tier="individual", as_of_ms=0, trigger_ms=0, text_hash=""
            )
        )
    learnt = time.perf_counter()
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory_kib
    events = [
        InteractionEvent(user=str(10 * int(user)), item=str(10 * int(item) + 1), action="click", event_ms=0)
        for user, item in rng.integers(0, N_PLACES // 10, (N_EVENTS, 2))
    ]
    began = time.perf_counter()
    for event in events:
        drift.observe(event)
    return {
        "learn_us": round(1e6 * (learnt - started) / N_PLACES, 1),
        "observe_us": round(1e6 * (time.perf_counter() - began) / N_EVENTS, 1),
        "bytes_per_place": round(1_024 * grown_kib / N_PLACES),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=300, help="of each sort")
    n = parser.parse_args().streams
    found: dict[str, Any] = {
        str(delta): {f"+{shift}": delays(n, delta, shift) for shift in SHIFTS}
        | {"false_per_1000": false_per_1000(n, delta), "downward": downward(n, delta)}
        for delta in DELTAS
    }
    line = {"bench": "drift", "by_delta": found, "cost": cost(), "machine": machine(), "commit": commit()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
