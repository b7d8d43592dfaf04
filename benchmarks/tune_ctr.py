"""Which recipe suits which arm: the same small grid for every arm, judged on validation users; the test users are never scored.

    python benchmarks/tune_ctr.py --path ../shared/data/ml-1m --arms base,knowledge >>tuning.jsonl

One JSON line per run. The winners stand in `ranker/evaluation/recipe.py`, the table in docs/results/tuning.md.
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Final

import platformdirs
import torch
from machine import commit

from contracts.settings import load_settings
from hein.encoder import load_encoder
from ranker.evaluation.arms import get_arm
from ranker.evaluation.recipe import RECIPES
from ranker.evaluation.run import RunSpec, build_problem
from ranker.evaluation.training import fit
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared
from streams.wiring import cache_folder

BASE_GRID: Final = (
    {},
    {"learning_rate": 5e-4},
    {"learning_rate": 2e-3},
    {"together": 1},
    {"d_embedding": 16},
    {"decay": 0.25},
)
KNOWLEDGE_GRID: Final = (
    {},
    {"user_dropout": 0.3, "item_dropout": 0.2},
    {"user_dropout": 0.5, "item_dropout": 0.2},
    {"user_dropout": 0.7, "item_dropout": 0.3},
    {"user_dropout": 0.3, "item_dropout": 0.2, "user_default_rate": 0.3},
    {"user_dropout": 0.3, "item_dropout": 0.2, "expert_dropout": 0.3},
)


def tune(path: Path, arm_name: str, changes: dict[str, float], seed: int, source: str) -> dict[str, object]:
    """One run: best validation metrics."""
    torch.set_num_threads(1)
    arm, recipe = get_arm(arm_name), RECIPES["ctr"].changed({"epochs": 3, **changes})
    prepared = Prepared(PaperProtocol(path), Path(platformdirs.user_cache_dir("reki")) / "evaluation")
    data = prepared.task()
    vectors = prepared.vectors(arm.sources, load_encoder(load_settings().encoder, cache_folder())) if arm.sources else {}
    _, problem = build_problem(RunSpec(task="ctr", backbone="din", arm=arm_name, seed=seed, recipe=recipe), data, vectors)
    fitted = fit(problem, recipe, seed)
    best = fitted.epochs[fitted.best_epoch]
    return {
        "bench": "tune_ctr",
        "arm": arm_name,
        "changes": changes,
        "seed": seed,
        "best_epoch": fitted.best_epoch,
        "validation": {name: round(value, 4) for name, value in best.validation.items()},
        "by_epoch": [{name: round(value, 4) for name, value in epoch.validation.items()} for epoch in fitted.epochs],
        "train_s": round(fitted.train_s),
        "commit": source,
    }


def main() -> None:
    """Print one JSON line per run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--arms", default="base,random,metadata,attributes,item-knowledge,knowledge")
    parser.add_argument("--seed", type=int, default=101, help="not one of the evaluation's")
    parser.add_argument("--jobs", type=int, default=2)
    asked = parser.parse_args()
    source = commit()
    with ProcessPoolExecutor(asked.jobs, get_context("spawn")) as pool:
        runs = [
            pool.submit(tune, asked.path, arm, changes, asked.seed, source)
            for arm in asked.arms.split(",")
            for changes in (KNOWLEDGE_GRID if get_arm(arm).uses_knowledge else BASE_GRID)
        ]
        for done in as_completed(runs):
            print(json.dumps(done.result()), flush=True)


if __name__ == "__main__":
    main()
