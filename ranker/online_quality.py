"""How good the online model is while it learns: rolling (river) and since the start, for several sets of scores side by side.

river's `ROCAUC` keeps one confusion matrix per threshold in Python: with thresholds fine enough to compare two models it would
cost more than the model. So the AUC since the start comes from a histogram of scores in numpy, bounded, exact up to ties inside a
bin of 0.0001. river's rolling metrics cannot be written down, so the window itself is kept and they are rebuilt from it.

GAUC weighs each ranking by its number of labelled items, as `ranker.quality.gauc` does.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from river.metrics import LogLoss, RollingROCAUC
from river.utils import Rolling

from ranker.quality import auc, log_loss

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

N_BINS = 10_000
WINDOW = 2_000  # labelled items: about a hundred rankings of twenty


class _Metric(Protocol):
    def update(self, y_true: bool, y_pred: float) -> None: ...

    def get(self) -> float: ...


class OnlineQuality:
    """AUC and LogLoss of one set of scores: of all items, of the last `WINDOW`, and inside rankings (GAUC)."""

    def __init__(self) -> None:
        self._bins = np.zeros((2, N_BINS), np.int64)  # labels 0 and 1
        self._sums = {"n": 0.0, "loss": 0.0, "grouped": 0.0, "grouped_auc": 0.0}
        self._window: deque[tuple[bool, float]] = deque(maxlen=WINDOW)
        self._rolling_auc = cast("Callable[..., _Metric]", RollingROCAUC)(window_size=WINDOW)  # river's metrics have no types
        self._rolling_loss = cast("_Metric", Rolling(LogLoss, window_size=WINDOW))

    def update(self, labels: Floats, probabilities: Floats) -> None:
        """One ranking's labels (B,), 0.0 or 1.0, and probabilities (B,)."""
        if len(labels) == 0:
            return
        liked = labels > 0
        bins = np.clip((probabilities * N_BINS).astype(np.int64), 0, N_BINS - 1)
        np.add.at(self._bins, (liked.astype(np.int64), bins), 1)
        self._sums["n"] += len(labels)
        self._sums["loss"] += log_loss(labels, probabilities) * len(labels)
        inside = auc(labels, probabilities)
        if inside is not None:
            self._sums["grouped"] += len(labels)
            self._sums["grouped_auc"] += inside * len(labels)
        self._roll(zip(liked.tolist(), probabilities.tolist(), strict=True))

    def _roll(self, scored: Iterable[tuple[bool, float]]) -> None:
        for label, probability in scored:
            self._window.append((label, probability))
            self._rolling_auc.update(label, probability)
            self._rolling_loss.update(label, probability)

    def metrics(self) -> dict[str, float]:
        """``auc``, ``logloss``, ``gauc``, ``rolling_auc``, ``rolling_logloss``; what is not defined yet is left out."""
        found: dict[str, float] = {}
        if self._sums["n"]:
            found["logloss"] = self._sums["loss"] / self._sums["n"]
            found["rolling_logloss"] = float(self._rolling_loss.get())
        if self._sums["grouped"]:
            found["gauc"] = self._sums["grouped_auc"] / self._sums["grouped"]
        others, liked = self._bins
        if others.any() and liked.any():
            below = np.cumsum(others) - others  # (bins,) others in lower bins
            found["auc"] = float((liked * (below + others / 2)).sum() / (liked.sum() * others.sum()))
        if len({label for label, _ in self._window}) > 1:
            found["rolling_auc"] = float(self._rolling_auc.get())
        return found

    def state(self) -> tuple[dict[str, float], dict[str, NDArray[Any]]]:
        """Everything: sums, and arrays."""
        window = np.array(list(self._window), np.float64).reshape(-1, 2)
        return dict(self._sums), {"bins": self._bins.copy(), "window": window}

    def restore(self, sums: dict[str, float], arrays: dict[str, NDArray[Any]]) -> None:
        """Go on from a `state`. Only on a new object."""
        self._sums = {name: sums.get(name, 0.0) for name in self._sums}  # a state from before GAUC had weights has no such sums
        self._bins = arrays["bins"].copy()
        self._roll((bool(label), float(probability)) for label, probability in arrays["window"])
