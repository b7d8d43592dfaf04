"""When a lift counts: mean and standard deviation over seeds, each metric's direction, and the verdict (issue 4, point 5)."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import fmean, stdev
from typing import Literal

import msgspec

from contracts.errors import SettingsError

HIGHER_IS_BETTER: dict[str, bool] = {"auc": True, "gauc": True, "logloss": False} | {
    f"{name}@{k}": True for name in ("map", "ndcg") for k in (1, 3, 5, 7)
}
N_SD = 3  # "a lift counts only beyond three standard deviations over seeds"
_ENOUGH_SEEDS = 3

Verdict = Literal[
    "beyond 3 sd",
    "beyond 3 sd (2 seeds)",
    "within 3 sd",
    "within 3 sd (2 seeds)",
    "worse beyond 3 sd",
    "worse beyond 3 sd (2 seeds)",
    "one seed: no verdict",
    "no pair: no verdict",
]
_VERDICTS: dict[int, tuple[Verdict, Verdict]] = {  # direction of the lift -> with enough seeds, with two
    1: ("beyond 3 sd", "beyond 3 sd (2 seeds)"),
    0: ("within 3 sd", "within 3 sd (2 seeds)"),
    -1: ("worse beyond 3 sd", "worse beyond 3 sd (2 seeds)"),
}


class Score(msgspec.Struct, frozen=True, kw_only=True):
    """One metric over seeds: mean, standard deviation (ddof 1; None for one seed) and number of seeds."""

    mean: float
    sd: float | None
    n: int


def higher_is_better(metric: str) -> bool:
    """The direction of a metric.

    Raises:
        SettingsError: It has none here.
    """
    try:
        return HIGHER_IS_BETTER[metric]
    except KeyError:
        known = ", ".join(HIGHER_IS_BETTER)
        raise SettingsError(
            f"the metric {metric!r}", wanted=f"one of {known}", todo="give it a direction in verdicts.py"
        ) from None


def score(values: Sequence[float]) -> Score:
    """Mean and standard deviation of at least one value."""
    return Score(mean=fmean(values), sd=stdev(values) if len(values) > 1 else None, n=len(values))


def yardstick(arm: Sequence[float], reference: Sequence[float]) -> float:
    """The standard deviation over seeds that a mean difference is measured with: the larger of two.

    The sd of the paired differences is the right one where a seed moves both arms alike, but with two to five seeds it may come
    out near zero by luck, and a lift of nothing would then be "beyond". The pooled sd of the two arms' scores has twice the
    degrees of freedom, but is too small where the seeds move the arms apart. The larger one is wrong only on the careful side.

    Args:
        arm: Scores by seed, at least two.
        reference: Scores of the same seeds.
    """
    paired = stdev([a - b for a, b in zip(arm, reference, strict=True)])
    return max(paired, sqrt((stdev(arm) ** 2 + stdev(reference) ** 2) / 2))


def verdict(mean: float, sd: float | None, n: int, *, metric: str) -> Verdict:
    """Whether a mean difference counts: more than 3 sd, in the direction that is better for the metric.

    >>> verdict(0.004, 0.001, 5, metric="auc"), verdict(0.004, 0.001, 2, metric="logloss")
    ('beyond 3 sd', 'worse beyond 3 sd (2 seeds)')
    """
    if sd is None:
        return "one seed: no verdict" if n == 1 else "no pair: no verdict"
    direction = 0
    if abs(mean) > N_SD * sd:
        direction = 1 if (mean > 0) == higher_is_better(metric) else -1
    return _VERDICTS[direction][n < _ENOUGH_SEEDS]
