"""How a model is trained in an evaluation: every number of it in one record, which travels in the result of a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from contracts.errors import SettingsError
from ranker.evaluation.results import Task

Positive = Annotated[int, msgspec.Meta(ge=1)]
Rate = Annotated[float, msgspec.Meta(ge=0, lt=1)]
Size = Annotated[float, msgspec.Meta(ge=0)]
LearningRate = Annotated[float, msgspec.Meta(gt=0)]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Hyperparameters of one run. The defaults are the shapes of the authors' code, and no regularisation.

    Args:
        batch: Samples (ctr) or lists (rerank) of a step; at least 2, because Dice standardises over them.
        together: Samples of one user that stand together in a batch. 1 shuffles every sample alone; more makes a batch hold fewer
            users, and HEIN runs once per user.
        epochs: At most.
        patience: Epochs without a better validation score after which training ends.
        learning_rate: Adam, of the backbone.
        hein_learning_rate: Adam, of HEIN.
        hein_weight_decay: Of HEIN, decoupled (AdamW).
        decay: Factor on both rates after each epoch.
        d_embedding: Size of an embedding.
        d_hidden: Hidden units of an expert.
        d_aug: Size of an augmented vector.
        n_shared: Experts of both streams.
        n_dedicated: Experts of each stream alone.
        user_dropout: Rate at which numbers of a user's encoder vector are dropped in training.
        item_dropout: The same of an item's.
        expert_dropout: Rate at which hidden units of the experts are dropped.
        user_default_rate: Rate at which a user's augmented vector becomes the default vector in training.
        user_noise: Standard deviation of noise on a user's encoder vector; at 1 the noise is as long as the vector.
    """

    batch: Annotated[int, msgspec.Meta(ge=2)] = 512
    together: Positive = 8
    epochs: Positive = 4
    patience: Positive = 1
    learning_rate: LearningRate = 1e-3
    hein_learning_rate: LearningRate = 1e-3
    hein_weight_decay: Size = 0.0
    decay: LearningRate = 0.5
    d_embedding: Positive = 32
    d_hidden: Positive = 128
    d_aug: Positive = 32
    n_shared: Annotated[int, msgspec.Meta(ge=0)] = 2
    n_dedicated: Annotated[int, msgspec.Meta(ge=0)] = 5
    user_dropout: Rate = 0.0
    item_dropout: Rate = 0.0
    expert_dropout: Rate = 0.0
    user_default_rate: Rate = 0.0
    user_noise: Size = 0.0

    def changed(self, given: Mapping[str, str | float | int]) -> Recipe:
        """The same with other numbers.

        Args:
            given: By name, numbers or texts of them.

        Raises:
            SettingsError: A name is unknown or a number out of its range.
        """
        try:
            merged: Recipe = msgspec.convert({**self.as_dict(), **given}, Recipe, strict=False)
        except msgspec.ValidationError as error:
            names = ", ".join(Recipe.__struct_fields__)
            raise SettingsError(
                f"recipe {dict(given)}: {error}", wanted=f"numbers for {names}", todo="correct --recipe"
            ) from error
        if merged.n_shared + merged.n_dedicated < 1:
            raise SettingsError(
                f"recipe {dict(given)}: no expert", wanted="at least one, shared or dedicated", todo="correct --recipe"
            )
        return merged

    def as_dict(self) -> dict[str, float | int | str]:
        """All numbers by name."""
        return msgspec.structs.asdict(self)


RECIPES: Final[Mapping[Task, Recipe]] = {"ctr": Recipe(), "rerank": Recipe(batch=64, together=1)}

_WEAK: Final = {"user_dropout": 0.3, "item_dropout": 0.2}
_STRONG: Final = {"user_dropout": 0.7, "item_dropout": 0.3}
_OF_ARMS: Final[Mapping[str, Mapping[str, float | int]]] = {
    "random": _STRONG,
    "metadata": _WEAK,
    "attributes": _STRONG,
    "item-knowledge": _WEAK,
    "metadata-long": _WEAK,  # not tuned, and so the next two: each as its sister
    "item-knowledge-long": _WEAK,
    "item-knowledge-disliked": _WEAK,
    "knowledge": _STRONG,
}
ARM_RECIPES: Final[Mapping[Task, Mapping[str, Mapping[str, float | int]]]] = {"ctr": _OF_ARMS, "rerank": _OF_ARMS}
"""What an arm's recipe changes: the best of six for each, by AUC of validation users under DIN (benchmarks/tune_ctr.py prints the
table, docs/results/tuning.md keeps it). Re-ranking takes what CTR prediction chose. A text written about a user, or a random
vector, tells users apart, and the network learns their levels by heart; it takes more dropout than a mean of item vectors."""
