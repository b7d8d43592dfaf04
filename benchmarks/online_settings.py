"""In which settings the online learners run.

Each was chosen by AUC on the first 30 % of ML-1M, among those that `Learner.tried` lists; `bench_online.py --tune` does it again.
"vw" stands apart: Vowpal Wabbit's own defaults, as in issue 4.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from online_baselines import Floats, Stream, means, reki, river_fm, river_logistic, river_mf, vowpal_wabbit

Setting = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Learner:
    """One of the learners: how it is run, in which setting, and among which that was chosen."""

    run: Callable[..., Floats]
    setting: Setting
    tried: Sequence[Setting] = field(default=())

    def scores(self, stream: Stream, setting: Setting | None = None) -> Floats:
        """What it says of each event before it learns from it, (n,)."""
        return self.run(stream, **(self.setting if setting is None else setting))


VW = "-q ui -q ug -b 24"
VW_TRIED = (
    "",
    "-l 0.1",
    "-l 0.2",
    "-l 1",
    "-l 2",
    "-l 0.7 --power_t 0.4",
    "-l 1 --power_t 0.4",
    "-l 1 --power_t 0.3",
    "--l2 1e-6",
    "--coin",
    "--lrq ui4",
    "--ftrl",
    "--ftrl --ftrl_alpha 0.3",
    "--ftrl --ftrl_alpha 0.7",
    "--ftrl --ftrl_alpha 0.7 --ftrl_beta 3",
    "--ftrl --l1 0.3",
)
SMOOTHINGS = (1.0, 3.0, 5.0, 10.0, 20.0)
RATES = (
    ("sgd", 0.05),
    ("sgd", 0.1),
    ("adagrad", 0.2),
    ("adagrad", 0.3),
    ("adagrad", 0.5),
    ("adagrad", 0.7),
    ("ftrl", 0.5),
    ("ftrl", 1.0),
)

LEARNERS: Mapping[str, Learner] = {
    "item-mean": Learner(
        run=means,
        setting={"smoothing": 3.0, "by_user": False},
        tried=[{"smoothing": smoothing, "by_user": False} for smoothing in SMOOTHINGS],
    ),
    "user-item-means": Learner(
        run=means,
        setting={"smoothing": 5.0, "by_user": True},
        tried=[{"smoothing": smoothing, "by_user": True} for smoothing in SMOOTHINGS],
    ),
    "river-logistic": Learner(
        run=river_logistic,
        setting={"optimizer": "adagrad", "rate": 0.5},
        tried=[{"optimizer": optimizer, "rate": rate} for optimizer, rate in RATES],
    ),
    "river-mf": Learner(
        run=river_mf,
        setting={"optimizer": "adagrad", "rate": 0.3, "factors_rate": 0.1},
        tried=[
            {"optimizer": "adagrad", "rate": rate, "factors_rate": factors_rate}
            for rate in (0.3, 0.5)
            for factors_rate in (0.05, 0.1, 0.2)
        ],
    ),
    "river-fm": Learner(
        run=river_fm,
        setting={"optimizer": "adagrad", "rate": 0.5, "factors_rate": 0.05},
        tried=[
            {"optimizer": "adagrad", "rate": rate, "factors_rate": factors_rate}
            for rate in (0.3, 0.5)
            for factors_rate in (0.02, 0.05, 0.1)
        ],
    ),
    "vw": Learner(run=vowpal_wabbit, setting={"arguments": VW}),
    "vw-tuned": Learner(
        run=vowpal_wabbit,
        setting={"arguments": f"{VW} --ftrl --l1 0.3"},
        tried=[{"arguments": f"{VW} {more}".strip()} for more in VW_TRIED],
    ),
    "reki": Learner(
        run=reki,
        setting={"batch": 256, "learning_rate": 2e-3},
        tried=[
            {"batch": batch, "learning_rate": rate}
            for batch, rates in ((64, (5e-4, 1e-3, 2e-3, 4e-3)), (256, (5e-4, 1e-3, 2e-3, 4e-3)), (1024, (2e-3, 4e-3)))
            for rate in rates
        ],
    ),
}
