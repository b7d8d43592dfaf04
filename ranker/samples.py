"""Training samples from the log, point in time: nothing in a sample was made of its own label or of what came after.

* History: the user's interactions strictly before the event; those of the same millisecond are left out.
* The user's knowledge was written from interactions, labels included: ``as_of_ms`` must be strictly before the event.
* An item's knowledge holds no label: ``as_of_ms`` at the event itself is fine.
* Of several pieces of knowledge the one that stood then counts, by the rule of `contracts.precedence`.

Shapes: B samples, H history, A attributes, M items, N rows of knowledge, d_text encoder vector.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from contracts.actions import liked
from contracts.errors import DatasetError, VectorError
from contracts.precedence import supersedes
from contracts.subjects import item_subject, user_subject
from ranker.features import LIKED, LIKED_CODES, Features, ItemTable, hash_id, item_features, sample_features

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.records import EncodedKnowledge, InteractionEvent, ItemEvent
    from ranker.features import FeatureConfig

Ints = NDArray[np.int64]
MAX_INTERACTIONS = 5_000_000  # about 1 GB; beyond it the oldest go
MAX_ENCODINGS = 500_000  # 0.8 GB at 384 floats; beyond it the oldest go
_TODO = "send more interactions that say whether the user liked the item (click, like, dislike, rate, skip ...)"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """B samples in event-time order. Items and knowledge are named by row, so a sample costs about 5 bytes per history item."""

    user: NDArray[np.int32]  # (B,) bucket
    user_number: NDArray[np.int32]  # (B,) one number per user id: for GAUC and splits, where buckets would collide
    user_attributes: NDArray[np.int32]  # (B, A_u) buckets; A_u is 0 on a stream of interactions
    item: NDArray[np.int32]  # (B,) row of `items`
    history: NDArray[np.int32]  # (B, H) rows of `items`, oldest first, 0 padding
    history_liked: NDArray[np.int8]  # (B, H)
    label: NDArray[np.float32]  # (B,)
    event_ms: Ints  # (B,)
    user_rows: NDArray[np.int32]  # (B,) rows of `matrix`, 0 where the user had no knowledge
    item_rows: NDArray[np.int32]  # (B,)
    items: ItemTable  # (M + 1,)
    matrix: NDArray[np.float32]  # (N, d_text), row 0 stands for missing

    def __len__(self) -> int:
        return len(self.label)

    def take(self, index: NDArray[np.integer] | slice) -> Samples:
        """Some of the samples, in the order of ``index``."""
        per_sample = [f.name for f in fields(self) if f.name not in {"items", "matrix"}]
        return replace(self, **{name: getattr(self, name)[index] for name in per_sample})

    def split(self, fraction: float, by: Literal["time", "user"], seed: int = 0) -> tuple[Samples, Samples]:
        """Two parts, the second holding about ``fraction`` of the samples (the latest) or of the users (drawn by ``seed``)."""
        if by == "time":
            border = len(self) - round(len(self) * fraction)
            return self.take(slice(None, border)), self.take(slice(border, None))
        users = np.unique(self.user_number)
        held_out = np.random.default_rng(seed).choice(users, round(len(users) * fraction), replace=False)
        inside = np.isin(self.user_number, held_out)
        return self.take(np.flatnonzero(~inside)), self.take(np.flatnonzero(inside))

    def batch(self, index: NDArray[np.integer] | slice) -> Batch:
        """The samples at ``index`` as tensors."""
        return Batch(
            features=sample_features(
                torch.from_numpy(self.user[index]),
                torch.from_numpy(self.user_attributes[index]),
                torch.from_numpy(self.history[index]),
                torch.from_numpy(self.history_liked[index]),
                torch.from_numpy(self.item[index]),
                self.items,
            ),
            user_rows=torch.from_numpy(self.user_rows[index]).long(),
            item_rows=torch.from_numpy(self.item_rows[index]).long(),
            label=torch.from_numpy(self.label[index]),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """What one training step reads."""

    features: Features
    user_rows: torch.Tensor  # (B,)
    item_rows: torch.Tensor  # (B,)
    label: torch.Tensor  # (B,)


class SampleLog:
    """Collects the log, in any order and any number of times, and builds samples from it.

    Args:
        encoder: Only vectors of this text encoder are used; empty: of the one that was seen last.
        max_interactions: Bound; the oldest received go.
        max_encodings: Bound; the oldest received go.
    """

    def __init__(
        self, *, encoder: str = "", max_interactions: int = MAX_INTERACTIONS, max_encodings: int = MAX_ENCODINGS
    ) -> None:
        self._encoder = encoder
        self._attributes: dict[str, Mapping[str, Sequence[str]]] = {}
        self._interactions: deque[tuple[str, str, int, int]] = deque(maxlen=max_interactions)  # user, item, liked, event_ms
        self._encodings: OrderedDict[tuple[str, int, str], EncodedKnowledge] = OrderedDict()
        self._max_encodings = max_encodings

    @property
    def encoder_used(self) -> str:
        """The text encoder whose vectors the samples hold; empty where there are no vectors yet."""
        return self._encoder or next((e.encoder for e in reversed(self._encodings.values())), "")

    def add_item(self, item: ItemEvent) -> None:
        """A new or changed item; the last one counts. A removal is passed over: histories still name the item."""
        if not item.removed:
            self._attributes[item.item] = item.attributes

    def add_interaction(self, interaction: InteractionEvent) -> None:
        """One thing that a user did. A mere view is passed over: in serving it is no history either (`ranker.histories`)."""
        said = liked(interaction.action, interaction.value)
        if said is not None:
            self._interactions.append((interaction.user, interaction.item, LIKED_CODES[said], interaction.event_ms))

    def add_encoding(self, encoding: EncodedKnowledge) -> None:
        """One subject's knowledge as a vector."""
        self._encodings[encoding.subject, encoding.as_of_ms, encoding.tier] = encoding
        if len(self._encodings) > self._max_encodings:
            self._encodings.popitem(last=False)

    def build(self, config: FeatureConfig) -> Samples:
        """All samples of the log: one for every interaction that says whether the user liked the item.

        Args:
            config: Sizes of the model that will read them.

        Raises:
            DatasetError: If no interaction says so.
            VectorError: If a vector holds NaN, or vectors differ in size.
        """
        log = sorted(dict.fromkeys(self._interactions), key=lambda row: row[3])
        codes = np.array([row[2] for row in log], np.int8)
        if not log:
            raise DatasetError("no interaction with a label", wanted="at least one", todo=_TODO)
        users, user_number = _number([row[0] for row in log])
        items, item_number = _number([row[1] for row in log])
        event_ms = np.array([row[3] for row in log], np.int64)
        matrix, standing = self._knowledge()
        history, valid = _history(user_number, event_ms, config.history)
        buckets = np.array([hash_id(user, config.user_buckets) for user in users], np.int32)
        table = ItemTable.of([item_features(i, self._attributes.get(i, {}), config) for i in items], config.n_attributes)
        item_row = (item_number + 1).astype(np.int32)
        user_subjects, item_subjects = [user_subject(u) for u in users], [item_subject(i) for i in items]
        return Samples(
            user=buckets[user_number],
            user_number=user_number.astype(np.int32),
            user_attributes=np.zeros((len(log), config.n_user_attributes), np.int32),
            item=item_row,
            history=np.where(valid, item_row[history], 0).astype(np.int32),
            history_liked=np.where(valid, codes[history], 0).astype(np.int8),
            label=(codes == LIKED).astype(np.float32),
            event_ms=event_ms,
            user_rows=_standing_at(user_subjects, user_number, event_ms, standing, strictly_before=True),
            item_rows=_standing_at(item_subjects, item_number, event_ms, standing, strictly_before=False),
            items=table,
            matrix=matrix,
        )

    def _knowledge(self) -> tuple[NDArray[np.float32], dict[str, list[tuple[int, int]]]]:
        """The matrix (N, d_text), and by subject (as_of_ms, row) of each piece that stood from then on."""
        encoder = self.encoder_used
        pieces = sorted((e for e in self._encodings.values() if e.encoder == encoder), key=lambda e: (e.subject, e.as_of_ms))
        sizes = {len(piece.vector) for piece in pieces}
        if len(sizes) > 1:
            raise VectorError(
                f"vectors of {sorted(sizes)} bytes from {encoder}", wanted="one size", todo="encode the knowledge again"
            )
        d_text = next(iter(sizes), 0) // 4
        rows = np.frombuffer(b"".join(piece.vector for piece in pieces), "<f4").reshape(len(pieces), d_text)
        broken = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if broken.size:
            raise VectorError(
                f"NaN or infinity in the vector of {pieces[broken[0]].subject}", wanted="finite", todo="encode it again"
            )
        standing: dict[str, list[tuple[int, int]]] = {}
        last: dict[str, EncodedKnowledge] = {}
        for row, piece in enumerate(pieces, start=1):
            before = last.get(piece.subject)
            old = None if before is None else (before.tier, before.as_of_ms, before.source_hash)
            if supersedes(piece.subject, (piece.tier, piece.as_of_ms, piece.source_hash), old):
                last[piece.subject] = piece
                standing.setdefault(piece.subject, []).append((piece.as_of_ms, row))
        return np.concatenate([np.zeros((1, d_text), np.float32), rows]), standing


def _number(ids: list[str]) -> tuple[list[str], Ints]:
    """Distinct ids in order of appearance, and the number of each: (n,)."""
    numbers: dict[str, int] = {}
    column = np.fromiter((numbers.setdefault(i, len(numbers)) for i in ids), np.int64, len(ids))
    return list(numbers), column


def _history(user: Ints, event_ms: Ints, n_history: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The H interactions of the same user strictly before each (in time order): positions (n, H), and which are there."""
    order = np.lexsort((event_ms, user))  # by user, then time; stable
    sorted_user, sorted_ms = user[order], event_ms[order]
    place = np.arange(len(order))
    new_user = np.r_[True, sorted_user[1:] != sorted_user[:-1]]
    new_time = new_user | np.r_[True, sorted_ms[1:] != sorted_ms[:-1]]
    user_start = np.maximum.accumulate(np.where(new_user, place, 0))
    end = np.maximum.accumulate(np.where(new_time, place, 0))  # first interaction of the same user and time
    start = np.maximum(user_start, end - n_history)
    columns = start[:, None] + np.arange(n_history)  # (n, H)
    valid = columns < end[:, None]
    history, inside = np.empty_like(columns), np.empty_like(valid)
    history[order] = order[np.where(valid, columns, 0)]
    inside[order] = valid
    return history, inside


def _standing_at(
    subjects: list[str],
    number: Ints,
    event_ms: Ints,
    standing: Mapping[str, list[tuple[int, int]]],
    *,
    strictly_before: bool,
) -> NDArray[np.int32]:
    """The knowledge row that stood for each subject at each time, 0 if none, (n,): an as-of join by one sorted search."""
    known = [(n, as_of_ms, row) for n, subject in enumerate(subjects) for as_of_ms, row in standing.get(subject, ())]
    if not known:
        return np.zeros(len(number), np.int32)
    owner, as_of, rows = (np.array(column, np.int64) for column in zip(*known, strict=True))
    times = np.unique(np.concatenate([as_of, event_ms]))  # ranks of times, so that (subject, time) fits one integer
    keys = owner * len(times) + np.searchsorted(times, as_of)
    asked = number * len(times) + np.searchsorted(times, event_ms)
    found = np.searchsorted(keys, asked, side="left" if strictly_before else "right") - 1
    there = (found >= 0) & (owner[np.maximum(found, 0)] == number)
    return np.where(there, rows[np.maximum(found, 0)], 0).astype(np.int32)
