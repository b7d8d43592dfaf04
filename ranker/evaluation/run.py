"""One run of an evaluation, from prepared data to its result. It reads no setting and writes no file: the same in any process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from contracts.errors import DatasetError, SettingsError
from hein.gates import gate_load
from hein.network import STREAMS, training_precision
from hein.processor import read_processor
from ranker.backbones import BACKBONES
from ranker.evaluation.arms import Matrix, arm_knowledge, get_arm
from ranker.evaluation.columns import arm_columns
from ranker.evaluation.comparison import INITIAL
from ranker.evaluation.ctr import CtrProblem
from ranker.evaluation.lists import RerankProblem, initial_quality
from ranker.evaluation.results import RunResult, Task
from ranker.evaluation.training import fit
from ranker.rerankers import RERANKERS

if TYPE_CHECKING:
    from hein.network import HEIN
    from ranker.evaluation.columns import ArmColumns
    from ranker.evaluation.origin import Origin
    from ranker.evaluation.recipe import Recipe
    from ranker.evaluation.task import EvaluationTask


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """What to run.

    Args:
        task: ``ctr`` or ``rerank``.
        backbone: A key of `models_of` the task.
        arm: A key of `ranker.evaluation.arms.ARMS`.
        seed: Of weights, order and dropout.
        recipe: How to train.
    """

    task: Task
    backbone: str
    arm: str
    seed: int
    recipe: Recipe


def models_of(task: Task) -> tuple[str, ...]:
    """The backbones or re-rankers that there are for a task."""
    return tuple(BACKBONES if task == "ctr" else RERANKERS)


def check_models(task: Task, names: tuple[str, ...]) -> None:
    """Refuse a name that is no model of the task.

    Raises:
        SettingsError: With the names that there are.
    """
    unknown = [name for name in names if name not in models_of(task)]
    if unknown:
        raise SettingsError(
            f"--backbones {', '.join(unknown)}", wanted=f"some of {', '.join(models_of(task))}", todo="correct --backbones"
        )


def build_problem(
    spec: RunSpec, data: EvaluationTask, vectors: Mapping[str, Matrix]
) -> tuple[ArmColumns, CtrProblem | RerankProblem]:
    """What a run trains, with the initial weights of its seed.

    Args:
        spec: What to run.
        data: The prepared data set.
        vectors: By text source, those of the arm at least.

    Raises:
        SettingsError: An unknown model or arm.
        DatasetError: A part without samples, or a text source that is missing.
        VectorError: NaN or a wrong size among the vectors.
    """
    check_models(spec.task, (spec.backbone,))
    arm = get_arm(spec.arm)
    columns = arm_columns(data, arm, arm_knowledge(arm, data, vectors), spec.recipe.d_embedding)
    problem_class = CtrProblem if spec.task == "ctr" else RerankProblem
    torch.manual_seed(spec.seed)
    problem = problem_class(columns, spec.backbone, spec.recipe, training_precision(read_processor()))
    empty = [part for part, n in problem.n_samples().items() if n == 0]
    if empty:
        raise DatasetError(
            f"{data.name} without a sample of {spec.task} in {', '.join(empty)}",
            wanted="at least one in each part",
            todo="evaluate on a data set with more users",
        )
    return columns, problem


def run(
    spec: RunSpec,
    data: EvaluationTask,
    vectors: Mapping[str, Matrix],
    origin: Origin,
    progress: Callable[[float], None] | None = None,
) -> RunResult:
    """Train one model and score it once on the test users. The same spec and data give the same result on one thread.

    Args:
        spec: What to run.
        data: The prepared data set.
        vectors: By text source, those of the arm at least.
        origin: What the result says of code and machine.
        progress: Told the part of the run that is done, 0 to 1.

    Raises:
        SettingsError: An unknown model or arm.
        DatasetError: A part without samples, or a text source that is missing.
        TrainingError: The loss is not a number.
        VectorError: NaN or a wrong size among the vectors.
    """
    columns, problem = build_problem(spec, data, vectors)
    fitted = fit(problem, spec.recipe, spec.seed, progress)
    n_samples = problem.n_samples()
    return RunResult(
        task=spec.task,
        dataset=data.name,
        backbone=spec.backbone,
        arm=spec.arm,
        seed=spec.seed,
        metrics=problem.quality("test"),
        epochs=fitted.epochs,
        best_epoch=fitted.best_epoch,
        n_samples=n_samples,
        n_parameters=sum(weight.numel() for weight in problem.module.parameters()),
        samples_per_s=n_samples["train"] * len(fitted.epochs) / fitted.train_s,
        recipe=spec.recipe.as_dict(),
        gates={} if problem.module.hein is None else _gates(problem.module.hein, columns, problem.matrix),
        commit=origin.commit,
        data_hash=data.data_hash,
        versions=origin.versions,
        machine=origin.machine,
    )


def initial_result(data: EvaluationTask, origin: Origin) -> RunResult:
    """The initial ranker as a run, so that it stands beside the re-rankers."""
    return RunResult(
        task="rerank",
        dataset=data.name,
        backbone=INITIAL,
        arm="base",
        seed=0,
        metrics=initial_quality(data),
        epochs=[],
        best_epoch=0,
        n_samples={"test": len(data.lists("test").samples)},
        n_parameters=0,
        samples_per_s=0.0,
        recipe={},
        gates={},
        commit=origin.commit,
        data_hash=data.data_hash,
        versions=origin.versions,
        machine=origin.machine,
    )


def _gates(hein: HEIN, columns: ArmColumns, matrix: torch.Tensor) -> dict[str, list[float]]:
    """Mean gate weight of each expert, shared ones first, over the test users and all items that have a vector."""
    users = columns.knowledge.user_rows[columns.task.user[columns.task.part("test")]]
    found: dict[str, list[float]] = {}
    for stream, rows in zip(STREAMS, (users, columns.knowledge.item_rows), strict=True):
        distinct = torch.unique(torch.from_numpy(rows[rows != 0]).long())
        if len(distinct):
            load = gate_load(hein, matrix[distinct], stream)
            found[stream] = [*load.shared, *load.dedicated]
    return found
