"""An evaluation from end to end: prepare the data, run what is not done yet in some processes, write the report.

A run is a minute or so of one thread, so runs, not threads, are what the cores share. Each finished run is a file, and a killed
evaluation goes on behind the last one.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Final, Protocol

import platformdirs
import torch

from contracts.errors import RekiError, SettingsError
from contracts.settings import Encoder
from hein.encoder import load_encoder
from ranker.evaluation.arms import get_arm
from ranker.evaluation.origin import find_origin
from ranker.evaluation.recipe import ARM_RECIPES, RECIPES
from ranker.evaluation.report import write_report
from ranker.evaluation.results import RunResult, Task
from ranker.evaluation.run import RunSpec, check_models, initial_result, run
from ranker.evaluation.run_folder import EvaluationPlan, RunFolder
from streams.datasets.paper_protocol import PaperProtocol
from streams.datasets.prepared import Prepared
from streams.wiring import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from multiprocessing.queues import Queue

    from contracts.ports import Matrix
    from ranker.evaluation.comparison import RunKey
    from ranker.evaluation.origin import Origin
    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.report import Report
    from ranker.evaluation.task import EvaluationTask

    Told = Queue[tuple[str, float] | None]  # name of a run and the part of it that is done; None ends the listening

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


class Watcher(Protocol):
    """Who is told how far an evaluation is."""

    def encoding(self, source: str, n_done: int, n_texts: int) -> None:
        """Texts of a source have been encoded."""
        ...

    def started(self, n_runs: int, n_done: int) -> None:
        """Training begins; some runs were finished before."""
        ...

    def moved(self, name: str, done: float) -> None:
        """A run is at this part of its work, 0 to 1."""
        ...

    def finished(self, result: RunResult) -> None:
        """A run is finished and saved."""
        ...


def evaluate(asked: Evaluation, encoder_settings: Encoder, watcher: Watcher) -> Report:
    """Run what is missing and write the report of everything in the folder.

    Args:
        asked: What to run.
        encoder_settings: Section ``encoder``; its vectors are cached by model and precision.
        watcher: Told of progress.

    Raises:
        SettingsError: An unknown data set, model, arm or hyperparameter, or a folder that holds something else.
        DatasetError: Missing or damaged data.
        TrainingError: A run diverged; the others were finished and saved.
    """
    check_models(asked.task, asked.backbones)
    arms = [get_arm(name) for name in asked.arms]
    recipes = {arm: _recipe(asked, arm) for arm in asked.arms}
    prepared = _prepared(asked)
    data = prepared.task()
    default = RECIPES[asked.task].as_dict()
    plan = EvaluationPlan(
        task=asked.task,
        dataset=data.name,
        backbones=asked.backbones,
        arms=asked.arms,
        seeds=asked.seeds,
        recipe=default,
        data_hash=data.data_hash,
        recipes={f"{backbone}/{arm}": recipes[arm].as_dict() for backbone in asked.backbones for arm in asked.arms},
    )
    folder = RunFolder.open(asked.out, plan)
    encoder = load_encoder(encoder_settings, cache_folder())
    vectors = prepared.vectors([source for arm in arms for source in arm.sources], encoder, watcher.encoding)
    origin = find_origin(threads=1, device="cpu")
    with folder.locked():
        if asked.task == "rerank":
            folder.save(initial_result(data, origin))
        keys = sorted(plan.run_keys(), key=lambda key: key.seed)  # stable: one seed of everything, then the next
        missing = [key for key in keys if not folder.done(key.backbone, key.arm, key.seed)]
        watcher.started(len(keys), len(keys) - len(missing))
        specs = [_spec(key, recipes[key.arm]) for key in missing]
        _run_all(specs, asked.jobs, _Shared(data=data, vectors=vectors, origin=origin), folder, watcher)
        runs = folder.results()
        return write_report(folder.path, runs, planned=folder.planned(), command=asked.command, notes=asked.notes)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Shared:
    """What every worker is given once."""

    data: EvaluationTask
    vectors: Mapping[str, Matrix]
    origin: Origin


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


def _run_all(specs: Sequence[RunSpec], jobs: int, shared: _Shared, folder: RunFolder, watcher: Watcher) -> None:
    """Every run in a pool of processes; results are saved as they come.

    Raises:
        RekiError: The first error of a run, when all others are done.
    """
    if not specs:
        return
    context = multiprocessing.get_context("spawn")  # torch's threads do not survive a fork
    errors: list[RekiError] = []
    told: Told = context.Queue()
    with (
        _listening(told, watcher),
        ProcessPoolExecutor(min(jobs, len(specs)), context, initializer=_start, initargs=(shared, told)) as pool,
    ):
        for future in as_completed([pool.submit(_work, spec) for spec in specs]):
            result = _result(future, errors)
            if result is not None:
                folder.save(result)
                watcher.finished(result)
    if errors:
        raise errors[0]


def _result(future: Future[RunResult], errors: list[RekiError]) -> RunResult | None:
    try:
        return future.result()
    except RekiError as error:
        errors.append(error)
        return None


@contextmanager
def _listening(told: Told, watcher: Watcher) -> Iterator[None]:
    """A thread that passes on what the workers tell."""

    def listen() -> None:
        while (one := told.get()) is not None:
            watcher.moved(*one)

    thread = Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield
    finally:
        told.put(None)
        thread.join()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Worker:
    shared: _Shared
    tell: Callable[[str, float], None]


_WORKER: list[_Worker] = []  # of this process: one after `_start`, none in the process that evaluates


def _start(shared: _Shared, told: Told) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a traceback
    Thread(target=_end_with_the_parent, daemon=True).start()
    torch.set_num_threads(1)
    _WORKER.append(_Worker(shared=shared, tell=lambda name, done: told.put((name, done))))


def _end_with_the_parent() -> None:
    """Wait for the evaluation to end. A pool tells its workers so, unless it was killed: then nobody waits for their runs."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _work(spec: RunSpec) -> RunResult:
    worker, name = _WORKER[0], f"{spec.backbone} {spec.arm} {spec.seed}"
    shared = worker.shared
    return run(spec, shared.data, shared.vectors, shared.origin, lambda done: worker.tell(name, done))
