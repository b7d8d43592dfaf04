"""How good scores are: AUC over all, AUC inside each user's samples (GAUC), and LogLoss.

Exact, by ranks (scipy comes with river). GAUC weighs each group by its number of samples, here and in `ranker.online_quality`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import rankdata

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

_CLIP = 1e-7  # a score of exactly 0 or 1 would cost an infinite LogLoss


def auc(labels: Floats, scores: Floats) -> float | None:
    """The chance that a liked sample scores above another one, ties count half; None if all labels are equal.

    >>> auc(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.4, 0.35, 0.8]))
    0.75
    """
    n_liked = int((labels > 0).sum())
    n_others = len(labels) - n_liked
    if n_liked == 0 or n_others == 0:
        return None
    ranks = rankdata(scores)
    return float((ranks[labels > 0].sum() - n_liked * (n_liked + 1) / 2) / (n_liked * n_others))


def gauc(groups: NDArray[np.integer], labels: Floats, scores: Floats) -> float | None:
    """Mean of the groups' AUC, weighted by their numbers of samples; groups with equal labels do not count. None if none counts.

    Args:
        groups: (B,) user or ranking of each sample.
        labels: (B,) 1.0 liked, 0.0 not.
        scores: (B,) on any scale.
    """
    order = np.argsort(groups, kind="stable")
    borders = np.flatnonzero(np.diff(groups[order])) + 1
    total, weight = 0.0, 0
    for part in np.split(order, borders):
        one = auc(labels[part], scores[part])
        if one is not None:
            total += one * len(part)
            weight += len(part)
    return total / weight if weight else None


def log_loss(labels: Floats, probabilities: Floats) -> float:
    """Mean negative log-likelihood of labels (B,) under probabilities (B,)."""
    p = np.clip(probabilities.astype(np.float64), _CLIP, 1 - _CLIP)
    return float(-(labels * np.log(p) + (1 - labels) * np.log1p(-p)).mean())


def quality(groups: NDArray[np.integer], labels: Floats, probabilities: Floats) -> dict[str, float]:
    """AUC, GAUC and LogLoss by name; what is not defined for these labels is left out."""
    found = {"auc": auc(labels, probabilities), "gauc": gauc(groups, labels, probabilities)}
    return {name: value for name, value in found.items() if value is not None} | {"logloss": log_loss(labels, probabilities)}
