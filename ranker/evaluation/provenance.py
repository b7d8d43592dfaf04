"""Where runs come from, and what a reader has to know before believing a table of them."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import TypeVar

import msgspec

from ranker.evaluation.comparison import RunKey
from ranker.evaluation.results import RunResult, Task

Hyperparameters = dict[str, float | int | str]
_Pairs = tuple[tuple[str, float | int | str], ...]
H = TypeVar("H", bound=Hashable)


class DataHash(msgspec.Struct, frozen=True, kw_only=True):
    """The prepared data of one task."""

    task: Task
    dataset: str
    data_hashes: tuple[str, ...]
    n_samples: dict[str, int]


class ArmRecipe(msgspec.Struct, frozen=True, kw_only=True):
    """The hyperparameters in which the runs of these backbones with these arms differ from others."""

    backbones: tuple[str, ...]
    arms: tuple[str, ...]
    recipe: Hyperparameters


class Provenance(msgspec.Struct, frozen=True, kw_only=True):
    """Code, data, machine, command and hyperparameters of all runs of a report.

    Args:
        commits: Of the code, each once.
        data: By task and data set.
        versions: Of python and libraries, each combination once.
        machines: Each once.
        command: As typed; may be empty.
        recipe: Hyperparameters that all runs share.
        recipes: The others.
    """

    commits: tuple[str, ...]
    data: tuple[DataHash, ...]
    versions: tuple[dict[str, str], ...]
    machines: tuple[dict[str, str | int], ...]
    command: str
    recipe: Hyperparameters
    recipes: tuple[ArmRecipe, ...]


def provenance(runs: Sequence[RunResult], command: str) -> Provenance:
    """Gather what is common to the runs, and what is not. A hyperparameter ``seed`` is left out: it differs by design."""
    of_task: dict[tuple[Task, str], list[RunResult]] = {}
    of_arm: dict[tuple[str, str], Hyperparameters] = {}
    for run in runs:
        of_task.setdefault((run.task, run.dataset), []).append(run)
        of_arm.setdefault((run.backbone, run.arm), _recipe(run))
    trained = [recipe for recipe in of_arm.values() if recipe]  # the initial ranker has none
    common = (
        {name: value for name, value in trained[0].items() if all(one.get(name) == value for one in trained)} if trained else {}
    )
    own = {key: {name: value for name, value in one.items() if name not in common} for key, one in of_arm.items()}
    return Provenance(
        commits=_once(run.commit for run in runs),
        data=tuple(
            DataHash(
                task=task,
                dataset=dataset,
                data_hashes=_once(run.data_hash for run in some),
                n_samples=max((run.n_samples for run in some), key=len),
            )
            for (task, dataset), some in of_task.items()
        ),
        versions=tuple(dict(one) for one in _once(tuple(sorted(run.versions.items())) for run in runs)),
        machines=tuple(dict(one) for one in _once(tuple(run.machine.items()) for run in runs)),
        command=command,
        recipe=common,
        recipes=tuple(_grouped(own)),
    )


def warnings(runs: Sequence[RunResult], found: Provenance, missing: Sequence[RunKey]) -> list[str]:
    """What the top of the report has to say: mixed origins, uncommitted code, unequal recipes and runs that are not there."""
    said = []
    if len(found.commits) > 1:
        said.append(f"The runs come from {len(found.commits)} commits: {', '.join(found.commits)}.")
    if any(commit.endswith("+changes") for commit in found.commits):
        said.append("Some runs were made with uncommitted changes to the code.")
    if len(found.machines) > 1:
        said.append(f"The runs come from {len(found.machines)} machines: {'; '.join(map(pairs_text, found.machines))}.")
    if len(found.versions) > 1:
        said.append(
            f"The runs were made with {len(found.versions)} sets of versions: {'; '.join(map(pairs_text, found.versions))}."
        )
    said += [
        f"The runs of {one.task} on {one.dataset} read {len(one.data_hashes)} different data: {', '.join(one.data_hashes)}."
        for one in found.data
        if len(one.data_hashes) > 1
    ]
    recipes: dict[tuple[str, str, str, str], set[_Pairs]] = {}
    for run in runs:
        recipes.setdefault((run.task, run.dataset, run.backbone, run.arm), set()).add(tuple(sorted(_recipe(run).items())))
    said += [
        f"The runs of {backbone}/{arm} have {len(some)} recipes."
        for (_, _, backbone, arm), some in recipes.items()
        if len(some) > 1
    ]
    if missing:
        arms = groupby(missing, key=lambda key: (key.task, key.backbone, key.arm))
        listed = "; ".join(
            f"{task} {backbone}/{arm} seed {', '.join(str(key.seed) for key in some)}" for (task, backbone, arm), some in arms
        )
        said.append(f"Unfinished: {len(missing)} runs are missing, and so are their pairs: {listed}.")
    return said


def pairs_text(pairs: Mapping[str, float | int | str]) -> str:
    """``name value, name value``."""
    return ", ".join(f"{name} {value}" for name, value in pairs.items())


def _grouped(own: dict[tuple[str, str], Hyperparameters]) -> list[ArmRecipe]:
    """One entry for backbones whose same arms share a recipe: nine backbones with seven arms would be 63 rows."""
    arms: dict[tuple[str, _Pairs], list[str]] = {}
    for (backbone, arm), recipe in own.items():
        arms.setdefault((backbone, tuple(recipe.items())), []).append(arm)
    backbones: dict[tuple[tuple[str, ...], _Pairs], list[str]] = {}
    for (backbone, pairs), some in arms.items():
        backbones.setdefault((tuple(some), pairs), []).append(backbone)
    return [
        ArmRecipe(backbones=tuple(names), arms=some, recipe=dict(pairs)) for (some, pairs), names in backbones.items() if pairs
    ]


def _recipe(run: RunResult) -> Hyperparameters:
    return {name: value for name, value in run.recipe.items() if name != "seed"}


def _once(values: Iterable[H]) -> tuple[H, ...]:
    return tuple(dict.fromkeys(values))
