"""The re-rankers: models that score the items of a list together, each in its own file, all with one interface, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from contracts.errors import CheckpointError
from ranker.rerankers.base import Reranker
from ranker.rerankers.dlcm import DLCM
from ranker.rerankers.mir import MIR
from ranker.rerankers.prm import PRM
from ranker.rerankers.setrank import SetRank

if TYPE_CHECKING:
    from collections.abc import Callable

    from ranker.features import FeatureConfig

__all__ = ["RERANKERS", "Reranker", "build_reranker"]

RERANKERS: Final[dict[str, Callable[[FeatureConfig, int, int], Reranker]]] = {
    "dlcm": DLCM,
    "prm": PRM,
    "setrank": SetRank,
    "mir": MIR,
}


def build_reranker(name: str, config: FeatureConfig, d_aug: int, n_places: int) -> Reranker:
    """A new re-ranker with random weights.

    Args:
        name: A key of `RERANKERS`.
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.
        n_places: The longest list that will be read.

    Raises:
        CheckpointError: If there is no re-ranker of this name.
    """
    if name not in RERANKERS:
        raise CheckpointError(
            f"re-ranker {name!r}", wanted=f"one of {', '.join(sorted(RERANKERS))}", todo="name one of these, or update reki"
        )
    return RERANKERS[name](config, d_aug, n_places)
