"""The arms of an evaluation: what each lets the model know beyond ids, histories and item attributes.

`base` is the reference. The others add one thing each, so that a lift can be laid at one door: a longer history and demographics,
an encoder without a language model, a language model's texts of items, of users, or vectors of the same size that know nothing.
The two `-long` ones with vectors ask whether these still help a model that has the longer history.

Shapes: M items, U users, P prefix, N rows of knowledge, d_text encoder vector.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
from numpy.typing import NDArray

from contracts.errors import DatasetError, SettingsError, VectorError
from ranker.features import DISLIKED, LIKED, PAD

if TYPE_CHECKING:
    from ranker.evaluation.task import EvaluationTask

Matrix = NDArray[np.float32]

METADATA: Final = "metadata"  # names of text sources: where vectors of texts come from
ATTRIBUTES: Final = "attributes"
ATTRIBUTES_USERS: Final = "attributes-users"
KNOWLEDGE_ITEMS: Final = "knowledge-items"
KNOWLEDGE_USERS: Final = "knowledge-users"
SOURCES: Final = {  # and of whom each speaks
    KNOWLEDGE_USERS: "user",
    KNOWLEDGE_ITEMS: "item",
    METADATA: "item",
    ATTRIBUTES: "item",
    ATTRIBUTES_USERS: "user",
}

SEED: Final = 1234  # of random vectors
SHORT: Final = 5  # history that KAR and REKI feed their models
LONG: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """What one arm reads.

    Args:
        name: Key in `ARMS`.
        description: One line for the report.
        item_source: Text source of the items' vectors; empty: none.
        user_source: Text source of the users' vectors; empty: none, or made from the items' (``user_from``).
        user_from: ``liked``: the mean of the item vectors of the liked items of the user's prefix; ``liked-minus-disliked``: that
            less the mean of the disliked ones; ``source``: the text source; ``nothing``: no user vectors.
        random: The vectors are random; only who has one is taken from the sources.
        history: H, interactions that the model reads.
        demographics: Whether it reads the user's demographics.
    """

    name: str
    description: str
    item_source: str = ""
    user_source: str = ""
    user_from: Literal["nothing", "source", "liked", "liked-minus-disliked"] = "nothing"
    random: bool = False
    history: int = SHORT
    demographics: bool = False

    @property
    def uses_knowledge(self) -> bool:
        """Whether there are vectors, so that the model has a HEIN."""
        return bool(self.item_source)

    @property
    def sources(self) -> tuple[str, ...]:
        """The text sources that it reads."""
        return tuple(source for source in (self.item_source, self.user_source) if source)


_ALL: Final = (
    Arm(name="base", description="ids, item attributes, the last 5 interactions; no vectors"),
    Arm(
        name="base-long",
        description="base with the last 30 interactions and demographics",
        history=LONG,
        demographics=True,
    ),
    Arm(
        name="random",
        description="random unit vectors, one for each item and user that has a text in `knowledge`",
        item_source=KNOWLEDGE_ITEMS,
        user_source=KNOWLEDGE_USERS,
        user_from="source",
        random=True,
    ),
    Arm(
        name="metadata",
        description="title, year and genres, encoded; users: mean of the liked items of the prefix; no language model",
        item_source=METADATA,
        user_from="liked",
    ),
    Arm(
        name="metadata-long",
        description="base-long and metadata together",
        item_source=METADATA,
        user_from="liked",
        history=LONG,
        demographics=True,
    ),
    Arm(
        name="attributes",
        description="texts of the backend `attributes` about items and about users' prefixes; no language model",
        item_source=ATTRIBUTES,
        user_source=ATTRIBUTES_USERS,
        user_from="source",
    ),
    Arm(
        name="item-knowledge",
        description="a language model's texts of items; users: mean of the liked items of the prefix",
        item_source=KNOWLEDGE_ITEMS,
        user_from="liked",
    ),
    Arm(
        name="item-knowledge-long",
        description="base-long and item-knowledge together",
        item_source=KNOWLEDGE_ITEMS,
        user_from="liked",
        history=LONG,
        demographics=True,
    ),
    Arm(
        name="item-knowledge-disliked",
        description="a language model's texts of items; users: mean of the liked less mean of the disliked items of the prefix",
        item_source=KNOWLEDGE_ITEMS,
        user_from="liked-minus-disliked",
    ),
    Arm(
        name="knowledge",
        description="a language model's texts of items and of users",
        item_source=KNOWLEDGE_ITEMS,
        user_source=KNOWLEDGE_USERS,
        user_from="source",
    ),
)
ARMS: Final[Mapping[str, Arm]] = {arm.name: arm for arm in _ALL}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Knowledge:
    """An arm's vectors, as `ranker.samples.Samples` reads them."""

    matrix: Matrix  # (N, d_text), row 0 is zero and stands for missing; (1, 0) in an arm without vectors
    user_rows: NDArray[np.int32]  # (U,) rows of `matrix`
    item_rows: NDArray[np.int32]  # (M + 1,) by item row


def get_arm(name: str) -> Arm:
    """The arm of that name.

    Raises:
        SettingsError: There is none; with those that there are.
    """
    if name not in ARMS:
        raise SettingsError(f"arm {name!r}", wanted=f"one of {', '.join(ARMS)}", todo="choose among them with --arms")
    return ARMS[name]


def arm_knowledge(arm: Arm, task: EvaluationTask, vectors: Mapping[str, Matrix], seed: int = SEED) -> Knowledge:
    """The vectors that an arm gives to a task's items and users.

    Args:
        arm: Which.
        task: Whose items and users.
        vectors: By text source: (M, d_text) in the order of ``task.items``, or (U, d_text) of ``task.users``; zero where missing.
        seed: Of random vectors. A subject's vector depends on the seed and on its place alone.

    Raises:
        DatasetError: A text source of the arm is not among ``vectors``.
        VectorError: NaN or infinity, or a matrix of the wrong size.
    """
    n_users, n_items = len(task.users), len(task.items)
    if not arm.uses_knowledge:
        zeros = np.zeros(n_users, np.int32), np.zeros(n_items + 1, np.int32)
        return Knowledge(matrix=np.zeros((1, 0), np.float32), user_rows=zeros[0], item_rows=zeros[1])
    read = {source: _checked(source, vectors, n_items if SOURCES[source] == "item" else n_users) for source in arm.sources}
    if len(sizes := {matrix.shape[1] for matrix in read.values()}) > 1:
        raise VectorError(f"vectors of sizes {sorted(sizes)}", wanted="one size", todo="encode all texts with one encoder")
    items = read[arm.item_source]  # (M, d_text)
    users = read[arm.user_source] if arm.user_source else _of_prefixes(arm, task, items)  # (U, d_text)
    if arm.random:
        draw = np.random.default_rng(seed)
        items, users = _random_like(items, draw), _random_like(users, draw)
    has_item, has_user = _present(items), _present(users)
    item_rows, user_rows = np.zeros(n_items + 1, np.int32), np.zeros(n_users, np.int32)
    item_rows[1:][has_item] = 1 + np.arange(has_item.sum())
    user_rows[has_user] = 1 + has_item.sum() + np.arange(has_user.sum())
    missing = np.zeros((1, items.shape[1]), np.float32)
    return Knowledge(matrix=np.concatenate([missing, items[has_item], users[has_user]]), user_rows=user_rows, item_rows=item_rows)


def _checked(source: str, vectors: Mapping[str, Matrix], n_rows: int) -> Matrix:
    if source not in vectors:
        given = ", ".join(vectors) or "none"
        raise DatasetError(
            f"no vectors of the text source {source!r} (only {given})",
            wanted="every text source that the arm reads",
            todo="check that the data set has these texts, or leave the arm out",
        )
    matrix = vectors[source]
    if matrix.ndim != 2 or len(matrix) != n_rows or matrix.shape[1] == 0:  # noqa: PLR2004 - rows and columns
        raise VectorError(
            f"vectors of {source!r} of shape {matrix.shape}",
            wanted=f"({n_rows}, d_text)",
            todo="delete the cache of vectors and encode again",
        )
    broken = np.flatnonzero(~np.isfinite(matrix).all(axis=1))
    if broken.size:
        raise VectorError(
            f"NaN or infinity in vector {broken[0]} of {source!r}", wanted="finite", todo="delete the cache and encode again"
        )
    return np.asarray(matrix, np.float32)


def _of_prefixes(arm: Arm, task: EvaluationTask, items: Matrix) -> Matrix:
    """Users' vectors from those of the items of their prefix, (U, d_text). A mean of no vectors is zero."""
    liked = _mean(task.prefix, task.prefix_liked == LIKED, items)
    return liked if arm.user_from == "liked" else liked - _mean(task.prefix, task.prefix_liked == DISLIKED, items)


def _mean(rows: NDArray[np.int32], counts: NDArray[np.bool_], items: Matrix) -> Matrix:
    """Mean of the vectors of the items that count and have one: (U, P) -> (U, d_text)."""
    table = np.concatenate([np.zeros((1, items.shape[1]), np.float32), items])  # (M + 1, d_text)
    used = counts & (rows != PAD) & _present(table)[rows]  # (U, P)
    total = np.zeros((len(rows), items.shape[1]), np.float32)
    for column in range(rows.shape[1]):  # by column: (U, P, d_text) at once would take 280 MB
        total += np.where(used[:, column, None], table[rows[:, column]], 0)
    mean: Matrix = total / np.maximum(used.sum(axis=1), 1)[:, None].astype(np.float32)
    return mean


def _present(vectors: Matrix) -> NDArray[np.bool_]:
    """Which rows are not all zero: (n, d_text) -> (n,)."""
    return np.asarray(vectors.any(axis=1))


def _random_like(matrix: Matrix, draw: np.random.Generator) -> Matrix:
    """Random unit vectors for the subjects that have one, zero for the others."""
    vectors = draw.standard_normal(matrix.shape, np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(_present(matrix)[:, None], vectors, 0).astype(np.float32)
