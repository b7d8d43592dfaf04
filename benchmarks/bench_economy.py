"""What knowledge costs in tokens, one answer per subject against one per cluster, and what each buys in AUC, on ML-1M.

    python benchmarks/bench_economy.py [--path ../shared/data/ml-1m] [--clusters 50,100] [--seeds 1,2,3] [--plot economy.png]

Tokens are those of the prompts that reki sends and of answers as long as the existing ones, by MiniLM's tokenizer. Without
``--seeds`` nothing is trained: tokens alone, in about a minute. One arm with one seed trains for two minutes on one thread;
vectors and finished runs are kept in ``--out``. docs/results/economy.md says what stands in for a cluster's text. Exit code
2: no data.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import platformdirs
import torch
from economy_arms import BACKBONE, REFERENCE, Economy, EconomyArm, arms_of, trained
from economy_tokens import read_subjects
from machine import commit, machine
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from contracts.errors import DatasetError
from contracts.settings import load_settings
from extractor.scenario import load_scenario
from hein.encoder import load_encoder
from hein.tokens import token_counter
from ranker.checkpoint import write_atomically
from ranker.evaluation.arms import ATTRIBUTES, ATTRIBUTES_USERS, KNOWLEDGE_ITEMS, METADATA
from ranker.evaluation.origin import find_origin
from ranker.evaluation.results import RunResult
from ranker.evaluation.verdicts import score, yardstick
from streams.datasets.movielens import MovieLens
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared
from streams.wiring import cache_folder

if TYPE_CHECKING:
    from ranker.evaluation.task import EvaluationTask

DATA: Final = Path(os.environ.get("REKI_DATA", Path(__file__).parents[2] / "shared" / "data"))
OUT: Final = Path(__file__).parents[1] / "bench-results" / "economy"
GOAL: Final = 0.02  # of the tokens of individual extraction
_GREY: Final = "#5c6470"
_COLOURS: Final = (  # Okabe and Ito's, and as many as there are arms by default
    "#4d4d4d",
    "#009e73",
    "#e69f00",
    "#56b4e9",
    "#0072b2",
    "#cc79a7",
    "#d55e00",
    "#882255",
    "#117733",
    "#332288",
)


def tokens_line(arm: EconomyArm, individual: EconomyArm) -> dict[str, Any]:
    """What an arm costs, alone and as a share of individual extraction."""
    both, all_of_it = arm.items + arm.users, individual.items + individual.users
    return {
        "clusters": arm.clusters,
        "items": asdict(arm.items),
        "users": asdict(arm.users),
        "calls": both.calls,
        "total": both.total,
        "without_prefix": both.computed,
        "share_items": round(arm.items.total / individual.items.total, 4),
        "share_users": round(arm.users.total / individual.users.total, 4),
        "share": round(both.total / all_of_it.total, 4),
        "share_without_prefix": round(both.computed / all_of_it.computed, 4),
        "stream_calls": arm.stream.calls,
        "stream_reasons": dict(arm.reasons),
        "share_stream": round(arm.stream.total / all_of_it.total, 4),
    }


def runs_of(economy: Economy, arm: EconomyArm, seeds: list[int], task: EvaluationTask) -> list[RunResult]:
    """One run per seed; those that lie in ``economy.out`` are not trained again."""
    vectors = economy.vectors_of(arm)
    key = "none" if vectors is None else blake2b(vectors.tobytes(), digest_size=6).hexdigest()
    runs = []
    for seed in seeds:
        file = economy.out / f"{arm.name}.{seed}.{key}.json"
        if not file.is_file():
            print(f"== {arm.name}, seed {seed}", file=sys.stderr, flush=True)
            run = trained(vectors, arm=arm.name, seed=seed, task=task, origin=find_origin(threads=1, device="cpu"))
            write_atomically(file, msgspec.json.encode(run))
        runs.append(msgspec.json.decode(file.read_bytes(), type=RunResult))
    return runs


def quality_lines(runs: dict[str, list[RunResult]]) -> dict[str, dict[str, Any]]:
    """Test metrics of each arm, mean and sd over seeds, and the paired difference from `REFERENCE` with its yardstick."""
    lines: dict[str, dict[str, Any]] = {}
    for name, own in runs.items():
        lines[name] = {"seeds": len(own), "commits": sorted({run.commit for run in own})}
        for metric in own[0].metrics:
            values, reference = ([run.metrics[metric] for run in some] for some in (own, runs[REFERENCE]))
            found = score(values)
            lines[name][metric] = [round(found.mean, 4), None if found.sd is None else round(found.sd, 4)]
            difference = found.mean - score(reference).mean
            sd = yardstick(values, reference) if len(values) > 1 else None
            paired = score([a - b for a, b in zip(values, reference, strict=True)]).sd
            lines[name][f"{metric}_minus_{REFERENCE}"] = [
                round(difference, 5),
                *(None if one is None else round(one, 5) for one in (paired, sd)),
            ]
    return lines


def plot(arms: list[EconomyArm], runs: dict[str, list[RunResult]], file: Path) -> None:
    """AUC of the test users against the tokens spent on items, and beside it the difference from `REFERENCE`, seed by seed.

    Seeds move all arms alike, so the first panel alone would hide what the second shows.
    """
    figure = Figure(figsize=(9, 4.8), dpi=150, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    reference = [run.metrics["auc"] for run in runs[REFERENCE]]
    for number, arm in enumerate(arms):
        values = [run.metrics["auc"] for run in runs[arm.name]]
        differences = [a - b for a, b in zip(values, reference, strict=True)]
        style, x = {"color": _COLOURS[number % len(_COLOURS)], "label": arm.name}, arm.items.total
        if x:
            left.errorbar(x, score(values).mean, yerr=score(values).sd, marker="o", capsize=3, linestyle="", **style)
            right.plot([x] * len(values), differences, marker="o", markersize=4, linestyle="", **style)
            right.plot(x, score(differences).mean, marker="_", markersize=18, color=style["color"])
        else:
            left.axhline(score(values).mean, linestyle=":", **style)
            right.axhline(score(differences).mean, linestyle=":", **style)
    goal = GOAL * arms[-1].items.total
    for axes in (left, right):
        axes.axvline(goal, color=_GREY, linewidth=0.8)
        axes.set_xscale("log")
        axes.spines[["top", "right"]].set_visible(False)
    left.annotate(f" {GOAL:.0%} of individual", (goal, 0.01), xycoords=("data", "axes fraction"), fontsize=8, color=_GREY)
    left.set_ylabel(f"AUC, {BACKBONE}: mean and 1 sd of {len(reference)} seeds")
    right.set_ylabel(f"AUC less that of {REFERENCE}, same seed; bar: mean")
    figure.supxlabel("tokens spent on items, in and out (MiniLM's tokenizer); dotted: no tokens", fontsize=10)
    title = "ML-1M test users. No text about a cluster exists: a text of its members stands in."
    figure.legend(*left.get_legend_handles_labels(), title=title, loc="outside upper left", ncols=5, frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Software": None})


def main() -> int:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", type=Path, default=DATA / "ml-1m", help="folder of ML-1M")
    parser.add_argument("--clusters", default="50,100,200,400", help="numbers of clusters, of items and of users each")
    parser.add_argument("--tiers", type=int, default=100, help="clusters in two tiers and the other stand-in; of --clusters")
    parser.add_argument("--seeds", default="", help="such as 1,2,3: train every arm with each; empty: tokens alone")
    parser.add_argument("--out", type=Path, default=OUT, help="folder of vectors and finished runs")
    parser.add_argument("--plot", type=Path, help="PNG of AUC against tokens; with --seeds")
    asked = parser.parse_args()
    numbers, seeds = ([int(one) for one in filter(None, text.split(","))] for text in (asked.clusters, asked.seeds))
    if asked.tiers not in numbers:
        parser.error(f"--tiers {asked.tiers}; wanted one of --clusters {asked.clusters}")
    torch.set_num_threads(1)
    described = machine()
    try:
        economy, task = prepared(asked.path, asked.out)
    except DatasetError as error:
        print(error, file=sys.stderr)
        return 2
    arms = arms_of(economy, numbers, asked.tiers)
    line: dict[str, Any] = {"bench": "economy", "tokens": {arm.name: tokens_line(arm, arms[-1]) for arm in arms}}
    if seeds:
        runs: dict[str, list[RunResult]] = {}
        for n in range(1, len(seeds) + 1):  # one seed of everything, then the next
            runs = {arm.name: runs_of(economy, arm, seeds[:n], task) for arm in arms}
        line["quality"] = quality_lines(runs)
        if asked.plot is not None:
            plot(arms, runs, asked.plot)
    print(json.dumps(line | {"encoder": economy.encoder.name, "threads": 1, "machine": described, "commit": commit()}))
    return 0


def prepared(path: Path, out: Path) -> tuple[Economy, EvaluationTask]:
    """What all arms share, and the data.

    Raises:
        DatasetError: A file of ML-1M is missing or damaged.
    """
    raw, settings = PaperProtocol(path), load_settings()
    data = Prepared(raw, Path(platformdirs.user_cache_dir("reki")) / "evaluation")
    task, scenario, count = data.task(), load_scenario(MovieLens.scenario), token_counter(settings.encoder.model)
    encoder = load_encoder(settings.encoder, cache_folder())
    items, users = read_subjects(path, raw, task, scenario, count)
    out.mkdir(parents=True, exist_ok=True)
    economy = Economy(
        scenario=scenario,
        count=count,
        settings=settings.collective,
        items=items,
        users=users,
        encoder=encoder,
        vectors=data.vectors([ATTRIBUTES, ATTRIBUTES_USERS, METADATA, KNOWLEDGE_ITEMS], encoder),
        out=out,
    )
    return economy, task


if __name__ == "__main__":
    sys.exit(main())
