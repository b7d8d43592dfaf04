"""Why texts about users cost AUC: how well a model knows the level (share of likes) of training users, and of unseen ones.

    python benchmarks/user_levels.py --path ../shared/data/ml-1m

For each arm with and without its regularisation, after each epoch: the correlation over users of the mean predicted probability
with the share of likes, for training users and for validation users. A network that learns levels by heart rises on the first and
falls on the second. Before them, two scores that need no model: the mean label of the item, and with it, added in logits, the
share of likes among the last 30 interactions. The test users are never scored.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
import platformdirs
import torch
from machine import commit

from contracts.settings import load_settings
from hein.encoder import load_encoder
from hein.network import training_precision
from hein.processor import read_processor
from ranker.evaluation.arms import arm_knowledge, get_arm
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.ctr import CtrProblem
from ranker.evaluation.recipe import ARM_RECIPES, RECIPES, Recipe
from ranker.evaluation.task import EvaluationTask, Part
from ranker.evaluation.training import fit
from ranker.features import LIKED
from ranker.offline import predict
from ranker.quality import quality
from ranker.samples import Samples
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared
from streams.wiring import cache_folder

SEED: Final = 101
SLOPE: Final = 4.0  # logits for a share of likes from 0 to 1; at 3 AUC is 0.7727, at 5 0.7716
N_TRAIN_SCORED: Final = 80_000  # samples of training users, as many as there are of validation users


class Watched(CtrProblem):
    """A problem that writes down what it knows of levels each time validation is scored."""

    levels: list[dict[str, float]]

    def quality(self, part: Part) -> dict[str, float]:
        """See `CtrProblem.quality`."""
        assert part != "test"
        train, validation = self.parts["train"], self.parts["validation"]
        some = train.take(np.flatnonzero(train.user_number < train.user_number[N_TRAIN_SCORED]))
        found = {"train": self._level(some), "validation": self._level(validation)}
        scores = super().quality("validation")
        self.levels.append({name: round(value, 4) for name, value in (found | scores).items()})
        return scores

    def _level(self, samples: Samples) -> float:
        scores = predict(self.module, samples, self.matrix)
        users, row = np.unique(samples.user_number, return_inverse=True)
        count = np.bincount(row)
        shares = [np.bincount(row, weights=values, minlength=len(users)) / count for values in (scores, samples.label)]
        return float(np.corrcoef(*shares)[0, 1])


def without_a_model(data: EvaluationTask) -> dict[str, dict[str, float]]:
    """Validation quality of the item's mean label, and of it with the share of likes in the history."""
    part = data.part("validation")
    mean = data.initial_scores()[part]
    liked, known = (data.history_liked[part] == LIKED).sum(axis=1), (data.history_liked[part] != 0).sum(axis=1)
    share = (liked + 1) / (known + 2)
    both = 1 / (1 + np.exp(-(np.log(mean / (1 - mean)) + SLOPE * (share - share.mean()))))
    scores = {"item mean": mean, "item mean and share of likes": both}
    return {
        name: {metric: round(value, 4) for metric, value in quality(data.user[part], data.label[part], one).items()}
        for name, one in scores.items()
    }


def main() -> None:
    """Print one JSON line per arm and recipe."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--arms", default="base,random,knowledge,item-knowledge")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    prepared = Prepared(PaperProtocol(asked.path), Path(platformdirs.user_cache_dir("reki")) / "evaluation")
    data, encoder = prepared.task(), load_encoder(load_settings().encoder, cache_folder())
    print(json.dumps({"bench": "user_levels", "without_a_model": without_a_model(data), "commit": commit()}), flush=True)
    for name in filter(None, asked.arms.split(",")):
        arm = get_arm(name)
        columns = arm_columns(data, arm, arm_knowledge(arm, data, prepared.vectors(arm.sources, encoder)), Recipe().d_embedding)
        for changes in ({}, ARM_RECIPES["ctr"].get(name, {})) if arm.uses_knowledge else ({},):
            recipe = RECIPES["ctr"].changed({**changes, "patience": 9, "epochs": 3})
            torch.manual_seed(SEED)
            problem = Watched(columns, "din", recipe, training_precision(read_processor()))
            problem.levels = []
            fit(problem, recipe, SEED)
            line = {"bench": "user_levels", "arm": name, "changes": dict(changes), "by_epoch": problem.levels, "commit": commit()}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
