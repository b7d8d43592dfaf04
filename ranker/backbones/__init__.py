"""The backbones: conventional ranking models, each in its own file, all with one interface, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from contracts.errors import CheckpointError
from ranker.backbones.autoint import AutoInt
from ranker.backbones.base import Backbone
from ranker.backbones.dcn import DCN
from ranker.backbones.dcnv2 import DCNv2
from ranker.backbones.deepfm import DeepFM
from ranker.backbones.dien import DIEN
from ranker.backbones.din import DIN
from ranker.backbones.fibinet import FiBiNET
from ranker.backbones.fignn import FiGNN
from ranker.backbones.xdeepfm import XDeepFM

if TYPE_CHECKING:
    from collections.abc import Callable

    from ranker.features import FeatureConfig

__all__ = ["BACKBONES", "Backbone", "build_backbone"]

BACKBONES: Final[dict[str, Callable[[FeatureConfig, int], Backbone]]] = {
    "din": DIN,
    "dien": DIEN,
    "dcn": DCN,
    "dcnv2": DCNv2,
    "deepfm": DeepFM,
    "xdeepfm": XDeepFM,
    "autoint": AutoInt,
    "fibinet": FiBiNET,
    "fignn": FiGNN,
}


def build_backbone(name: str, config: FeatureConfig, d_aug: int) -> Backbone:
    """A new backbone with random weights.

    Args:
        name: A key of `BACKBONES`.
        config: Table sizes.
        d_aug: Size of an augmented vector; 0 for the base arm.

    Raises:
        CheckpointError: If there is no backbone of this name (a setting is checked before it comes here; a checkpoint is not).
    """
    if name not in BACKBONES:
        raise CheckpointError(
            f"backbone {name!r}",
            wanted=f"one of {', '.join(sorted(BACKBONES))}",
            todo="use the release of reki that wrote this checkpoint",
        )
    return BACKBONES[name](config, d_aug)
