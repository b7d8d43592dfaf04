"""What a ranking model reads: ids and attributes as hashed buckets, in tensors of one shape for training and for serving.

There is no vocabulary. Users and items arrive on a stream, so a table of known ids would be out of date with the first event;
here an unseen id hashes to a bucket like any other and the same id gets the same bucket in every process, for ever. The price is
that two ids may share a row (of 6,040 users in 65,535 buckets about one in eleven does). Tables that grow, with admission and
expiry, are later work.

Shapes: B candidates or samples, U users (B in training, 1 in a ranking), H history, A attributes per item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contracts.records import HistoryItem
from contracts.settings import Model

PAD = 0  # of ids, attributes and `history_liked`
DISLIKED, LIKED, NOT_SAID = 1, 2, 3
N_LIKED = 4
MAX_ATTRIBUTE_BUCKETS = 8_192  # attribute values (sections, genres, years) are far fewer than ids
_HASHES_KEPT = 65_536  # bound on the cache: about 10 MB

Buckets = NDArray[np.int32]
LIKED_CODES: Mapping[bool | None, int] = {False: DISLIKED, True: LIKED, None: NOT_SAID}


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureConfig:
    """Sizes of everything that a model reads. Travels with the weights, so that loading needs no settings.

    Args:
        user_buckets: Rows of the user table, row 0 is padding.
        item_buckets: Rows of the item table.
        attribute_buckets: Rows of the table of attribute values.
        history: H, the most recent interactions that are read.
        n_attributes: A, attribute values of one item that are read.
        d_embedding: Size of an embedding.
    """

    user_buckets: int
    item_buckets: int
    attribute_buckets: int
    history: int
    n_attributes: int
    d_embedding: int

    @classmethod
    def of(cls, model: Model) -> FeatureConfig:
        """The sizes that the settings ask for."""
        return cls(
            user_buckets=model.hash_buckets,
            item_buckets=model.hash_buckets,
            attribute_buckets=min(model.hash_buckets, MAX_ATTRIBUTE_BUCKETS),
            history=model.history,
            n_attributes=model.n_attributes,
            d_embedding=model.d_embedding,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemFeatures:
    """An item as the model reads it, hashed once: its bucket and those of its attribute values, (A,), 0 where there are fewer."""

    item: int
    attributes: Buckets


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """One batch. The user side has U rows: B in training, or 1 in a ranking, where one user meets B candidates."""

    user: Tensor  # (U,)
    history_items: Tensor  # (U, H) oldest first, 0 behind the last
    history_attributes: Tensor  # (U, H, A)
    history_liked: Tensor  # (U, H) 0 padding, 1 disliked, 2 liked, 3 not said
    item: Tensor  # (B,)
    item_attributes: Tensor  # (B, A)

    def to(self, device: torch.device | str) -> Features:
        """The same batch on a device."""
        return Features(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def per_item(self) -> Features:
        """The same batch with the user side repeated for every candidate, so that batches of several users can be joined."""
        n = self.item.shape[0]
        if self.user.shape[0] == n:
            return self
        return Features(
            user=self.user.expand(n),
            history_items=self.history_items.expand(n, -1),
            history_attributes=self.history_attributes.expand(n, -1, -1),
            history_liked=self.history_liked.expand(n, -1),
            item=self.item,
            item_attributes=self.item_attributes,
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemTable:
    """All items of a training set, hashed: row 0 is padding, a sample names items by row."""

    item: Tensor  # (M + 1,)
    attributes: Tensor  # (M + 1, A)

    @classmethod
    def of(cls, items: Sequence[ItemFeatures], n_attributes: int) -> ItemTable:
        """A table with ``items[i]`` in row i + 1."""
        padding = ItemFeatures(item=PAD, attributes=np.zeros(n_attributes, np.int32))
        buckets, attributes = _stack([padding, *items])
        return cls(item=buckets, attributes=attributes)


@lru_cache(maxsize=_HASHES_KEPT)
def hash_id(text: str, buckets: int) -> int:
    """The bucket of an id, in 1..buckets-1 (0 is padding); the same in every process and release.

    >>> hash_id("n001", 65_536) == hash_id("n001", 65_536)
    True
    """
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return 1 + int.from_bytes(digest, "little") % max(buckets - 1, 1)


def item_features(item_id: str, attributes: Mapping[str, Sequence[str]], config: FeatureConfig) -> ItemFeatures:
    """An item hashed: do this once per item, not per request. An item without known attributes has all-zero attribute buckets.

    Args:
        item_id: Any id, seen before or not.
        attributes: Values by name; the first A (name, value) pairs are read, names in alphabetical order.
        config: Table sizes.
    """
    pairs = [f"{name}={value}" for name in sorted(attributes) for value in attributes[name]][: config.n_attributes]
    row = np.zeros(config.n_attributes, np.int32)
    row[: len(pairs)] = [hash_id(pair, config.attribute_buckets) for pair in pairs]
    return ItemFeatures(item=hash_id(item_id, config.item_buckets), attributes=row)


def rank_features(
    user: str,
    history: Sequence[HistoryItem],
    items: Sequence[str],
    lookup: Callable[[str], ItemFeatures],
    config: FeatureConfig,
) -> Features:
    """One user and B candidates, with U = 1.

    Args:
        user: Any id.
        history: Oldest first; the last H are read.
        items: Candidates, in the order in which logits come back.
        lookup: An item's prepared features; must answer for unknown ids too (`item_features` with no attributes).
        config: Table sizes.
    """
    recent = history[-config.history :]
    history_items = np.zeros((1, config.history), np.int64)
    history_attributes = np.zeros((1, config.history, config.n_attributes), np.int64)
    history_liked = np.zeros((1, config.history), np.int64)
    for column, entry in enumerate(recent):
        known = lookup(entry.item)
        history_items[0, column] = known.item
        history_attributes[0, column] = known.attributes
        history_liked[0, column] = LIKED_CODES[entry.liked]
    buckets, attributes = _stack([lookup(item) for item in items], config.n_attributes)
    return Features(
        user=torch.tensor([hash_id(user, config.user_buckets)]),
        history_items=torch.from_numpy(history_items),
        history_attributes=torch.from_numpy(history_attributes),
        history_liked=torch.from_numpy(history_liked),
        item=buckets,
        item_attributes=attributes,
    )


def sample_features(user: Tensor, history: Tensor, history_liked: Tensor, item: Tensor, items: ItemTable) -> Features:
    """Training samples with U = B: rows of the item table become buckets here, so that a sample set stays small.

    Args:
        user: (B,) user buckets.
        history: (B, H) rows of ``items``, 0 padding.
        history_liked: (B, H) codes.
        item: (B,) rows of ``items``.
        items: The table that the rows name.
    """
    return Features(
        user=user.long(),
        history_items=items.item[history.long()],
        history_attributes=items.attributes[history.long()],
        history_liked=history_liked.long(),
        item=items.item[item.long()],
        item_attributes=items.attributes[item.long()],
    )


def join_batches(parts: Sequence[Features]) -> Features:
    """Several batches as one, with U = B."""
    whole = [part.per_item() for part in parts]
    return Features(**{field.name: torch.cat([getattr(part, field.name) for part in whole]) for field in fields(Features)})


def _stack(items: Sequence[ItemFeatures], n_attributes: int | None = None) -> tuple[Tensor, Tensor]:
    """Buckets (B,) and attribute buckets (B, A). One concatenate: `np.stack` costs five times as much for 200 small rows."""
    width = n_attributes if n_attributes is not None else len(items[0].attributes)
    buckets = np.fromiter((item.item for item in items), np.int64, len(items))
    if not items:
        return torch.from_numpy(buckets), torch.zeros((0, width), dtype=torch.long)
    attributes = np.concatenate([item.attributes for item in items]).reshape(len(items), width).astype(np.int64)
    return torch.from_numpy(buckets), torch.from_numpy(attributes)
