"""An evaluation from end to end: prepare the data, run what is not done yet in some processes, write the report.

Each finished run is a file, and a killed evaluation goes on behind the last one.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import platformdirs

from contracts.errors import CheckpointError, RekiError, SettingsError
from contracts.settings import Encoder
from hein.encoder import load_encoder
from ranker.evaluation.arms import get_arm
from ranker.evaluation.comparison import BASE, INITIAL
from ranker.evaluation.origin import find_origin
from ranker.evaluation.recipe import ARM_RECIPES, RECIPES
from ranker.evaluation.report import write_report
from ranker.evaluation.results import Task
from ranker.evaluation.run import RunSpec, check_models, initial_result
from ranker.evaluation.run_folder import EvaluationPlan, RunFolder
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared
from streams.evaluation_pool import Shared, Watcher, run_all
from streams.wiring import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.ports import TextEncoder
    from ranker.evaluation.comparison import RunKey
    from ranker.evaluation.origin import Origin
    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.report import Report
    from ranker.evaluation.task import EvaluationTask

PROTOCOLS: Final = {"ml-1m": PaperProtocol}
"""The data sets that have an evaluation protocol, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """What to evaluate.

    Args:
        task: ``ctr`` or ``rerank``.
        dataset: A key of `PROTOCOLS`.
        path: Its folder.
        backbones: Models of the task.
        arms: Keys of `ranker.evaluation.arms.ARMS`.
        seeds: One run each.
        out: Folder of runs and report.
        jobs: Processes.
        changes: Hyperparameters other than the recipes', by name.
        command: As typed, for the report.
        notes: Markdown, put at the end of the report.
        cache: Folder of prepared data; None: the user's cache.
    """

    task: Task
    dataset: str
    path: Path
    backbones: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    out: Path
    jobs: int
    changes: Mapping[str, str]
    command: str
    notes: str = ""
    cache: Path | None = None


def evaluate(asked: Evaluation, encoder_settings: Encoder, watcher: Watcher) -> Report:
    """Run what is missing and write the report of everything in the folder.

    Args:
        asked: What to run.
        encoder_settings: Section ``encoder``; its vectors are cached by the encoder's name.
        watcher: Told of progress.

    Raises:
        SettingsError: An unknown data set, model, arm or hyperparameter, or a folder that holds something else.
        DatasetError: Missing or damaged data.
        TrainingError: A run failed or a worker was killed; what was finished is saved and stands in the report.
    """
    check_models(asked.task, asked.backbones)
    arms = [get_arm(name) for name in asked.arms]
    sources = [source for arm in arms for source in arm.sources]
    recipes = {arm: _recipe(asked, arm) for arm in asked.arms}
    prepared = _prepared(asked)
    data = prepared.task()
    encoder = load_encoder(encoder_settings, cache_folder()) if sources else None
    plan = _plan(asked, data, recipes, encoder)
    with RunFolder.hold(asked.out, plan) as folder:
        vectors = {} if encoder is None else prepared.vectors(sources, encoder, watcher.encoding)
        origin = _origin(encoder)
        if asked.task == "rerank" and not folder.done(INITIAL, BASE, 0):
            folder.save(initial_result(data, origin))
        keys = sorted(plan.run_keys(), key=lambda key: key.seed)  # stable: one seed of everything, then the next
        missing = [key for key in keys if not folder.done(key.backbone, key.arm, key.seed)]
        watcher.started(len(keys), len(keys) - len(missing))
        specs = [_spec(key, recipes[key.arm]) for key in missing]
        shared = Shared(prepared=_prepared(asked), vectors=vectors, origin=origin)  # a new one: this one's texts stay here
        return _reported(asked, folder, run_all(specs, asked.jobs, shared, folder, watcher))


def _plan(asked: Evaluation, data: EvaluationTask, recipes: Mapping[str, Recipe], encoder: TextEncoder | None) -> EvaluationPlan:
    return EvaluationPlan(
        task=asked.task,
        dataset=data.name,
        backbones=asked.backbones,
        arms=asked.arms,
        seeds=asked.seeds,
        recipe=RECIPES[asked.task].as_dict(),
        data_hash=data.data_hash,
        recipes={f"{backbone}/{arm}": recipes[arm].as_dict() for backbone in asked.backbones for arm in asked.arms},
        encoder="" if encoder is None else encoder.name,
    )


def _origin(encoder: TextEncoder | None) -> Origin:
    origin = find_origin(threads=1, device="cpu")
    return origin if encoder is None else dataclasses.replace(origin, versions={**origin.versions, "encoder": encoder.name})


def _reported(asked: Evaluation, folder: RunFolder, error: RekiError | None) -> Report:
    """The report of what is finished.

    Raises:
        RekiError: What stopped some runs, once the report of the others is written; or the report cannot be written.
    """
    runs = folder.results()
    if error is not None and not runs:
        raise error
    try:
        report = write_report(folder.path, runs, planned=folder.planned(), command=asked.command, notes=asked.notes)
    except OSError as failed:
        raise error or CheckpointError(
            f"{failed} while the report was written",
            wanted="room for a report",
            todo="give the same command again: runs are kept",
        ) from failed
    if error is not None:
        raise error
    return report


def _prepared(asked: Evaluation) -> Prepared:
    if asked.dataset not in PROTOCOLS:
        raise SettingsError(f"--dataset {asked.dataset}", wanted=f"one of {', '.join(PROTOCOLS)}", todo="correct --dataset")
    cache = asked.cache or Path(platformdirs.user_cache_dir("reki")) / "evaluation"
    return Prepared(PROTOCOLS[asked.dataset](asked.path), cache)


def _recipe(asked: Evaluation, arm: str) -> Recipe:
    chosen = ARM_RECIPES[asked.task].get(arm, {})
    return RECIPES[asked.task].changed({**chosen, **asked.changes})


def _spec(key: RunKey, recipe: Recipe) -> RunSpec:
    return RunSpec(task=key.task, backbone=key.backbone, arm=key.arm, seed=key.seed, recipe=recipe)
