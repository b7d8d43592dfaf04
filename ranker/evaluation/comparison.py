"""From single runs to an answer: means over seeds, paired differences, and whether a lift is one (issue 4, points 4 and 5).

A difference is taken between two arms of the same backbone and the same seed. Every arm is compared with ``base``; an arm that
is not a control itself is compared with every control as well, an arm with the longer history with those that have it too.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import groupby
from statistics import fmean
from typing import Literal

import msgspec

from contracts.errors import SettingsError
from ranker.evaluation.results import RunResult, Task
from ranker.evaluation.verdicts import HIGHER_IS_BETTER, Score, Verdict, higher_is_better, score, verdict, yardstick

BASE = "base"
BASE_LONG = "base-long"
CONTROLS = ("base-long", "random", "metadata", "metadata-long", "attributes")
_SHORT_CONTROLS = ("base-long", "random", "metadata", "attributes")
_LONG_CONTROLS = ("base-long", "metadata-long")
INITIAL = "initial"  # the ranker whose lists the re-rankers get: one run, nothing is trained
ARM_ORDER = (BASE, *CONTROLS, "item-knowledge", "item-knowledge-long", "item-knowledge-disliked", "knowledge")


class RunKey(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """Which run: what tells two runs of an evaluation apart."""

    task: Task
    dataset: str
    backbone: str
    arm: str
    seed: int


class ArmSummary(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm of one backbone reached on the test users, by metric."""

    task: Task
    dataset: str
    backbone: str
    arm: str
    seeds: tuple[int, ...]
    scores: dict[str, Score]


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """Arm minus reference, seed by seed.

    Args:
        task: As in `RunResult`; so are dataset, backbone and arm.
        dataset: Of both arms.
        backbone: Of both arms.
        arm: What is judged.
        reference: ``base`` or a control.
        metric: A key of `HIGHER_IS_BETTER`.
        mean: Of the paired differences, not turned round where lower is better; None without a pair.
        sd: Of the paired differences; None below two pairs.
        yardstick: The standard deviation that the verdict uses, see `yardstick`; None below two pairs.
        n: Number of pairs.
        percent: The mean in % of the reference's mean over the same seeds.
        verdict: See `verdict`.
        missing_seeds: Seeds that other arms of this backbone have, or the plan names, and this pair has not.
    """

    task: Task
    dataset: str
    backbone: str
    arm: str
    reference: str
    metric: str
    mean: float | None
    sd: float | None
    yardstick: float | None
    n: int
    percent: float | None
    verdict: Verdict
    missing_seeds: tuple[int, ...]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Does this arm beat base and every control that was run?

    Args:
        task: As in `RunResult`; so are dataset, backbone and arm.
        dataset: Of all arms.
        backbone: Of all arms.
        arm: What is judged.
        metric: A key of `HIGHER_IS_BETTER`.
        beats_all: ``yes`` if every difference is beyond 3 sd; ``no verdict`` if none speaks against it but one cannot be judged,
            or if no control was run.
        not_beaten: The references that it does not beat.
        undecided: The references without a verdict.
        absent: The controls of which no run is there.
        n: The least number of pairs.
    """

    task: Task
    dataset: str
    backbone: str
    arm: str
    metric: str
    beats_all: Literal["yes", "no", "no verdict"]
    not_beaten: tuple[str, ...]
    undecided: tuple[str, ...]
    absent: tuple[str, ...]
    n: int


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All that can be said from the runs.

    ``missing`` are the unfinished runs of the plan; without a plan, those that the other arms of a backbone let expect.
    """

    summaries: tuple[ArmSummary, ...]
    differences: tuple[Difference, ...]
    answers: tuple[Answer, ...]
    missing: tuple[RunKey, ...]


def controls_of(arm: str) -> tuple[str, ...]:
    """The controls that an arm is compared with beside base."""
    if arm.endswith("-long"):
        return () if arm == BASE_LONG else tuple(control for control in _LONG_CONTROLS if control != arm)
    return () if arm in CONTROLS else _SHORT_CONTROLS


def arm_rank(arm: str) -> tuple[int, str]:
    """Sorts arms: base, the controls, then what is to be shown."""
    return (ARM_ORDER.index(arm) if arm in ARM_ORDER else len(ARM_ORDER), arm)


def compare(runs: Iterable[RunResult], planned: Collection[RunKey] = ()) -> Comparison:
    """Summaries, paired differences and answers of any mixture of tasks, data sets and backbones.

    Args:
        runs: The finished ones; backbones keep the order in which they come, with `INITIAL` first.
        planned: What was to be run; empty: every seed of a backbone with every arm of it.

    Raises:
        SettingsError: Two runs are the same run, or a metric has no direction.
    """
    found: dict[RunKey, RunResult] = {}
    for run in runs:
        key = key_of(run)
        if key in found:
            raise SettingsError(f"two runs of {key}", wanted="one result for each seed", todo="leave one of them out")
        found[key] = run
    expected = {*found, *planned}
    settings = list(dict.fromkeys((key.task, key.dataset, key.backbone) for key in [*found, *sorted(planned)]))
    settings.sort(key=lambda setting: (setting[:2], setting[2] != INITIAL))
    summaries: list[ArmSummary] = []
    differences: list[Difference] = []
    missing: list[RunKey] = []
    for setting in settings:
        keys = {key for key in expected if (key.task, key.dataset, key.backbone) == setting}
        seeds = {key.seed for key in keys}
        arms = sorted({key.arm for key in keys}, key=arm_rank)
        every = [msgspec.structs.replace(next(iter(keys)), arm=arm, seed=seed) for arm in arms for seed in sorted(seeds)]
        missing += [key for key in every if key not in found and (not planned or key in expected)]
        by_arm = {arm: {key.seed: found[key] for key in every if key.arm == arm and key in found} for arm in arms}
        by_arm = {arm: of_arm for arm, of_arm in by_arm.items() if of_arm}
        summaries += [_summary(of_arm) for of_arm in by_arm.values()]
        differences += _differences(by_arm, seeds)
    return Comparison(
        summaries=tuple(summaries),
        differences=tuple(differences),
        answers=tuple(_answers(differences)),
        missing=tuple(missing),
    )


def key_of(run: RunResult) -> RunKey:
    """Which run a result is of."""
    return RunKey(task=run.task, dataset=run.dataset, backbone=run.backbone, arm=run.arm, seed=run.seed)


def _metrics(runs: Iterable[RunResult]) -> list[str]:
    """Names of the metrics in the order of `HIGHER_IS_BETTER`."""
    names = {name for run in runs for name in run.metrics}
    for name in names:
        higher_is_better(name)
    return [name for name in HIGHER_IS_BETTER if name in names]


def _summary(by_seed: dict[int, RunResult]) -> ArmSummary:
    runs = list(by_seed.values())
    scores = {name: score([run.metrics[name] for run in runs if name in run.metrics]) for name in _metrics(runs)}
    first = runs[0]
    return ArmSummary(
        task=first.task, dataset=first.dataset, backbone=first.backbone, arm=first.arm, seeds=tuple(by_seed), scores=scores
    )


def _differences(by_arm: dict[str, dict[int, RunResult]], seeds: set[int]) -> list[Difference]:
    """All differences of one backbone, in the order arm, reference, metric."""
    names = _metrics(run for of_arm in by_arm.values() for run in of_arm.values())
    return [
        _difference(by_arm[arm], by_arm[reference], name, seeds)
        for arm in by_arm
        for reference in (BASE, *controls_of(arm))
        if arm != BASE and reference in by_arm
        for name in names
    ]


def _difference(arm: dict[int, RunResult], reference: dict[int, RunResult], metric: str, seeds: set[int]) -> Difference:
    paired = [seed for seed in sorted(seeds) if all(seed in runs and metric in runs[seed].metrics for runs in (arm, reference))]
    scores = [arm[seed].metrics[metric] for seed in paired]
    against = [reference[seed].metrics[metric] for seed in paired]
    over_seeds = score([a - b for a, b in zip(scores, against, strict=True)]) if paired else None
    sd = yardstick(scores, against) if len(paired) > 1 else None
    level = fmean(against) if paired else 0.0
    one, other = next(iter(arm.values())), next(iter(reference.values()))
    return Difference(
        task=one.task,
        dataset=one.dataset,
        backbone=one.backbone,
        arm=one.arm,
        reference=other.arm,
        metric=metric,
        mean=over_seeds.mean if over_seeds else None,
        sd=over_seeds.sd if over_seeds else None,
        yardstick=sd,
        n=len(paired),
        percent=100 * over_seeds.mean / level if over_seeds and level else None,
        verdict=verdict(over_seeds.mean if over_seeds else 0.0, sd, len(paired), metric=metric),
        missing_seeds=tuple(sorted(seeds - set(paired))),
    )


def _answers(differences: Iterable[Difference]) -> list[Answer]:
    """One for each arm that is no control and each metric."""

    def place(one: Difference) -> tuple[str, str, str, tuple[int, str], str]:
        return one.task, one.dataset, one.backbone, arm_rank(one.arm), one.metric

    treated = [one for one in differences if one.arm not in CONTROLS]
    order = list(dict.fromkeys(map(place, treated)))
    return [_answer(list(group)) for _, group in groupby(sorted(treated, key=lambda one: order.index(place(one))), key=place)]


def _answer(against: list[Difference]) -> Answer:
    undecided = tuple(one.reference for one in against if one.verdict.endswith("no verdict"))
    not_beaten = tuple(
        one.reference for one in against if not one.verdict.startswith("beyond") and one.reference not in undecided
    )
    references = {one.reference for one in against}
    said: Literal["yes", "no", "no verdict"] = "yes"
    if not_beaten:
        said = "no"
    elif undecided or references.isdisjoint(controls_of(against[0].arm)):
        said = "no verdict"
    first = against[0]
    return Answer(
        task=first.task,
        dataset=first.dataset,
        backbone=first.backbone,
        arm=first.arm,
        metric=first.metric,
        beats_all=said,
        not_beaten=not_beaten,
        undecided=undecided,
        absent=tuple(name for name in controls_of(first.arm) if name not in references),
        n=min(one.n for one in against),
    )
