"""Quality and speed of online learners on all of ML-1M in time order, test-then-train: baselines for our own.

    python benchmarks/bench_online.py [--path ../shared/data/ml-1m] [--models vw,reki] [--limit 200000] [--tune]

Every event is scored by a model that has learnt from the events before it (reki: before its batch). "quality" is of the last
90 %; "quality_unseen", without --limit, of the last 70 %: settings were chosen on the first 30 %. ``--tune`` makes that choice
again: one line per setting, on the first 30 % alone, scored on its last 90 %. Speed counts from the events in memory to the last
score, features and histories included, on one thread. Exit code 2: no data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from machine import commit, machine
from online_baselines import Floats, Stream, read_stream
from online_settings import LEARNERS, Setting

from contracts.errors import DatasetError
from ranker.quality import quality

CHOSEN_ON = 0.3
SCORED_FROM = {"quality": 0.1, "quality_unseen": CHOSEN_ON}  # fractions of the stream
N_IMPORTING = 1_000  # events run before the clock starts: importing river alone takes 1.5 s
DATA = Path(os.environ.get("REKI_DATA", Path(__file__).parents[2] / "shared" / "data"))


def scored(stream: Stream, scores: Floats, first: float) -> dict[str, float]:
    """AUC, GAUC by user (weighted by samples) and LogLoss of the events from the fraction ``first`` on."""
    rows = slice(round(len(stream) * first), None)
    found = quality(stream.user_number[rows], stream.labels[rows], scores[rows])
    return {name: round(value, 4) for name, value in found.items()}


def measured(stream: Stream, name: str, setting: Setting, *, parts: tuple[str, ...] = ("quality",)) -> dict[str, Any]:
    """One learner over the whole stream; ``parts`` are keys of `SCORED_FROM`."""
    print(f"== {name} {json.dumps(setting)}", file=sys.stderr, flush=True)
    LEARNERS[name].scores(stream.prefix(N_IMPORTING), setting)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    scores = LEARNERS[name].scores(stream, setting)
    wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
    return {
        "setting": setting,
        **{part: scored(stream, scores, SCORED_FROM[part]) for part in parts},
        "samples_per_s": round(len(stream) / wall_s),
        "samples_per_cpu_s": round(len(stream) / cpu_s),  # tells apart a slow learner and a busy machine
    }


def tune(stream: Stream, names: list[str]) -> None:
    """Print one line per setting tried, on the first 30 %."""
    part = stream.prefix(round(len(stream) * CHOSEN_ON))
    for name in names:
        for setting in LEARNERS[name].tried:
            found = measured(part, name, setting)
            print(json.dumps({"bench": "online-tune", "model": name, "events": len(part)} | found), flush=True)


def main() -> int:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=DATA / "ml-1m", help="folder of ML-1M")
    parser.add_argument("--limit", type=int, help="only the first that many ratings")
    parser.add_argument("--models", default=",".join(LEARNERS), help=f"of {','.join(LEARNERS)}")
    parser.add_argument("--tune", action="store_true", help="compare settings on the first 30 %% instead")
    arguments = parser.parse_args()
    names = arguments.models.split(",")
    if unknown := set(names) - set(LEARNERS):
        parser.error(f"unknown models: {', '.join(sorted(unknown))}; there are {', '.join(LEARNERS)}")
    if arguments.limit is not None and arguments.limit < 1:
        parser.error(f"--limit {arguments.limit}; wanted at least 1")
    described = machine()
    try:
        stream = read_stream(arguments.path, arguments.limit)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    if arguments.tune:
        tune(stream, names)
        return 0
    parts = ("quality",) if arguments.limit is not None else tuple(SCORED_FROM)
    line = {
        "bench": "online",
        "events": len(stream),
        "models": {name: measured(stream, name, LEARNERS[name].setting, parts=parts) for name in names},
        "threads": 1,
        "machine": described | {package: version(package) for package in ("torch", "river", "vowpalwabbit")},
        "commit": commit(),
    }
    print(json.dumps(line))
    return 0


if __name__ == "__main__":
    sys.exit(main())
