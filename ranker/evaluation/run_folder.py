"""The folder of one evaluation: what was asked for, and one file per finished run, so that a killed evaluation resumes.

    OUT/evaluation.json              every plan that was run into this folder, in order
    OUT/runs/BACKBONE.ARM.SEED.json  one `RunResult` each
    OUT/.lock                        held from the first look into the folder to the end of the evaluation

Every file comes into being by a rename: a reader never sees half of one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import msgspec
from filelock import FileLock, Timeout

from contracts.errors import CheckpointError, SettingsError
from ranker.checkpoint import write_atomically
from ranker.evaluation.comparison import RunKey, key_of
from ranker.evaluation.results import RunResult, Task

PLAN_FILE = "evaluation.json"
_LOCK_FILE = ".lock"
_ANOTHER = "give another --out, or the same options as before"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*")  # no dot: it separates the parts of a file name
_SHOWN = 5

Hyperparameters = dict[str, float | int | str]


class EvaluationPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to run: every backbone with every arm and every seed.

    Args:
        task: ``ctr`` or ``rerank``.
        dataset: Name of the data set.
        backbones: In the order of the report.
        arms: In any order.
        seeds: In the order of running.
        recipe: Hyperparameters of all runs.
        data_hash: Of the prepared data.
        recipes: What differs from ``recipe`` for some, under ``BACKBONE/ARM``.
        encoder: Name of the text encoder; empty where no arm reads vectors, and in plans of older releases.
    """

    task: Task
    dataset: str
    backbones: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    recipe: Hyperparameters
    data_hash: str
    recipes: dict[str, Hyperparameters] = {}
    encoder: str = ""

    def recipe_of(self, backbone: str, arm: str) -> Hyperparameters:
        """Every hyperparameter of the runs of a backbone with an arm."""
        return self.recipe | self.recipes.get(f"{backbone}/{arm}", {})

    def run_keys(self) -> list[RunKey]:
        """Every run, backbone by backbone, arm by arm."""
        return [
            RunKey(task=self.task, dataset=self.dataset, backbone=backbone, arm=arm, seed=seed)
            for backbone in self.backbones
            for arm in self.arms
            for seed in self.seeds
        ]


class _Asked(msgspec.Struct, frozen=True, kw_only=True):
    plans: list[EvaluationPlan]


class RunFolder:
    """Use `hold` or `read`; the constructor does not touch the disk.

    Args:
        path: The folder.
        plans: All that was asked for in it.
    """

    def __init__(self, path: Path, plans: list[EvaluationPlan]) -> None:
        self.path = path
        self.plans = plans

    @classmethod
    @contextmanager
    def hold(cls, path: Path, plan: EvaluationPlan) -> Iterator[Self]:
        """Take a new or empty folder, resume the same plan, or extend a folder by other backbones, arms and seeds.

        The folder is locked while the context lasts: two evaluations never write into one.

        Raises:
            SettingsError: The folder holds something else, another task, data or encoder, or the same backbone and arm with
                another recipe; another evaluation writes into it; or a name of the plan cannot be part of a file name.
            CheckpointError: A run's file is damaged.
        """
        for name in (*plan.backbones, *plan.arms):
            _check_name(name)
        _asked(path)  # before anything is written: a folder of others gets no lock file
        _made(path / "runs")
        with _lock(path):
            asked = _asked(path)
            for before in asked:
                _check_fits(path, before, plan)
            for half in (*path.glob(".*.part"), *path.glob("runs/.*.part")):  # left by a killed evaluation
                half.unlink()
            if plan not in asked:
                asked.append(plan)
                write_atomically(path / PLAN_FILE, msgspec.json.format(msgspec.json.encode(_Asked(plans=asked))))
            folder = cls(path, asked)
            folder.results()  # a damaged file is found now, not after hours
            yield folder

    @classmethod
    def read(cls, path: Path) -> Self:
        """An existing folder, to report on it.

        Raises:
            SettingsError: There is no evaluation in it.
        """
        asked = _asked(path)
        if not asked:
            raise SettingsError(
                f"no evaluation in {path}", wanted="a folder with evaluation.json", todo="run `reki evaluate` first"
            )
        return cls(path, asked)

    def planned(self) -> list[RunKey]:
        """Every run that was ever asked for here, each once."""
        return list(dict.fromkeys(key for plan in self.plans for key in plan.run_keys()))

    def done(self, backbone: str, arm: str, seed: int) -> bool:
        """Whether this run is finished."""
        return self._file(backbone, arm, seed).is_file()

    def results(self) -> list[RunResult]:
        """All finished runs: in the order of the plans, then those that no plan names (the initial ranker).

        Raises:
            CheckpointError: A file is damaged, or is not the run that its name says.
        """
        order = {key: place for place, key in enumerate(self.planned())}
        runs = [self._result(file) for file in sorted((self.path / "runs").glob("*.json"))]
        return sorted(runs, key=lambda run: order.get(key_of(run), len(order)))

    def save(self, result: RunResult) -> Path:
        """Write a finished run; a run of the same name is replaced.

        Raises:
            SettingsError: The run is of another task, data set or data, or holds NaN or infinity.
        """
        plan = self.plans[0]
        got, wanted = [(one.task, one.dataset, one.data_hash) for one in (result, plan)]
        if got != wanted:
            raise SettingsError(f"a run of {' '.join(got)}", wanted=" ".join(wanted), todo="save it into another folder")
        raw = msgspec.json.encode(result)
        try:
            msgspec.json.decode(raw, type=RunResult)  # NaN is written as null, and null is no number
        except msgspec.ValidationError as error:
            raise SettingsError(
                f"a run of {result.backbone}/{result.arm} that cannot be read back ({error})",
                wanted="finite numbers",
                todo="look at the run's loss: lower the learning rate if it diverged",
            ) from None
        file = self._file(result.backbone, result.arm, result.seed)
        write_atomically(file, msgspec.json.format(raw))
        return file

    def _file(self, backbone: str, arm: str, seed: int) -> Path:
        return self.path / "runs" / f"{_check_name(backbone)}.{_check_name(arm)}.{seed}.json"

    def _result(self, file: Path) -> RunResult:
        try:
            run = msgspec.json.decode(file.read_bytes(), type=RunResult)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CheckpointError(
                f"a damaged run: {file} ({error})", wanted="one finished run", todo="delete this file; the run is made again"
            ) from None
        plan = self.plans[0]
        named = f"{run.backbone}.{run.arm}.{run.seed}.json"
        if file.name != named or (run.task, run.dataset, run.data_hash) != (plan.task, plan.dataset, plan.data_hash):
            raise CheckpointError(
                f"{file} with the run {named} of {run.task} {run.dataset} {run.data_hash}",
                wanted=f"the run of its name, of {plan.task} {plan.dataset} {plan.data_hash}",
                todo="delete this file; the run is made again",
            )
        return run


def _made(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise SettingsError(f"a file where {folder} should be", wanted="a folder", todo="give another --out") from None


def _check_name(name: str) -> str:
    """A backbone's or arm's name as part of a file name: it cannot lead out of the folder."""
    if not _NAME.fullmatch(name):
        raise SettingsError(f"the name {name!r}", wanted="letters, digits, - and _", todo="give it another name")
    return name


def _asked(path: Path) -> list[EvaluationPlan]:
    """The plans of a folder; none if it is new or empty."""
    file = path / PLAN_FILE
    if file.is_file():
        try:
            return msgspec.json.decode(file.read_bytes(), type=_Asked).plans
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{file}, not readable ({error})", wanted="the plan of an evaluation", todo=_ANOTHER) from None
    if path.is_dir():
        there = sorted(one.name for one in path.iterdir() if one.name != _LOCK_FILE and not _empty_runs(one))
        if there:
            more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
            raise SettingsError(
                f"{path} with {', '.join(there[:_SHOWN])}{more} in it",
                wanted="a new folder or one of `reki evaluate`",
                todo=_ANOTHER,
            )
    return []


def _empty_runs(entry: Path) -> bool:
    """What an evaluation leaves that was killed before its plan was written."""
    return entry.match(f".{PLAN_FILE}.*part") or (entry.name == "runs" and entry.is_dir() and not any(entry.iterdir()))


def _check_fits(path: Path, before: EvaluationPlan, plan: EvaluationPlan) -> None:
    """Runs of both plans may lie side by side.

    Raises:
        SettingsError: They may not.
    """
    for name in ("task", "dataset", "data_hash", "encoder"):
        was, now = getattr(before, name), getattr(plan, name)
        if was != now and not (name == "encoder" and "" in {was, now}):
            raise SettingsError(f"{path} with an evaluation of {name} {was}", wanted=f"{name} {now}", todo=_ANOTHER)
    for backbone in plan.backbones:
        for arm in plan.arms:
            if backbone not in before.backbones or arm not in before.arms:
                continue
            old, new = before.recipe_of(backbone, arm), plan.recipe_of(backbone, arm)
            if old != new:
                changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
                raise SettingsError(
                    f"{path} with runs of {backbone}/{arm} where " + ", ".join(f"{name} is {old.get(name)}" for name in changed),
                    wanted=", ".join(f"{name} {new.get(name)}" for name in changed),
                    todo=_ANOTHER,
                )


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    lock = FileLock(path / _LOCK_FILE)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingsError(
            f"{path}, into which another evaluation writes", wanted="one at a time", todo="wait for it, or give another --out"
        ) from None
    try:
        yield
    finally:
        lock.release()
