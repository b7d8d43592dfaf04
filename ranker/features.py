"""What a ranking model reads: ids and attributes as hashed buckets, in tensors of one shape for training and for serving.

There is no vocabulary. Users and items arrive on a stream, so a table of known ids would be out of date with the first event;
here an unseen id hashes to a bucket like any other and the same id gets the same bucket in every process, for ever. The price is
that two ids may share a row (of 6,040 users in 65,535 buckets about one in eleven does). Tables that grow, with admission and
expiry, are later work.

Shapes: B candidates or samples, U users (B in training, 1 in a ranking), H history, R items of a batch, A attributes of an item,
A_u attributes of a user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
        n_user_attributes: A_u, attribute values of a user that are read; a stream of interactions brings none.
        user_attribute_buckets: Rows of the table of their values.
    """

    user_buckets: int
    item_buckets: int
    attribute_buckets: int
    history: int
    n_attributes: int
    d_embedding: int
    n_user_attributes: int = 0
    user_attribute_buckets: int = 1

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
    """One batch. Its items stand once each in a table of the batch; histories and candidates name them by row.

    So an item is embedded once, however many histories hold it. The user side has U rows: B in training, or 1 in a ranking,
    where one user meets B candidates.
    """

    items: Tensor  # (R,) buckets, row 0 is padding
    attributes: Tensor  # (R, A) buckets
    user: Tensor  # (U,) buckets
    user_attributes: Tensor  # (U, A_u) buckets
    history: Tensor  # (U, H) rows of `items`, oldest first, 0 behind the last
    history_liked: Tensor  # (U, H) 0 padding, 1 disliked, 2 liked, 3 not said
    item: Tensor  # (B,) rows of `items`

    def to(self, device: torch.device | str) -> Features:
        """The same batch on a device."""
        return Features(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})

    def per_item(self) -> Features:
        """The same batch with the user side repeated for every candidate, so that batches of several users can be joined."""
        n = self.item.shape[0]
        if self.user.shape[0] == n:
            return self
        return replace(
            self,
            user=self.user.expand(n),
            user_attributes=self.user_attributes.expand(n, -1),
            history=self.history.expand(n, -1),
            history_liked=self.history_liked.expand(n, -1),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ItemTable:
    """All items of a training set, hashed: row 0 is padding, a sample names items by row."""

    item: Tensor  # (M + 1,)
    attributes: Tensor  # (M + 1, A)

    @classmethod
    def of(cls, items: Sequence[ItemFeatures], n_attributes: int) -> ItemTable:
        """A table with ``items[i]`` in row i + 1."""
        buckets, attributes = _stack([_padding(n_attributes), *items])
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
    rows = np.zeros((1, config.history), np.int64)
    rows[0, : len(recent)] = 1 + len(items) + np.arange(len(recent))
    history_liked = np.zeros((1, config.history), np.int64)
    history_liked[0, : len(recent)] = [LIKED_CODES[entry.liked] for entry in recent]
    known = [lookup(item) for item in items] + [lookup(entry.item) for entry in recent]
    buckets, attributes = _stack([_padding(config.n_attributes), *known])
    return Features(
        items=buckets,
        attributes=attributes,
        user=torch.tensor([hash_id(user, config.user_buckets)]),
        user_attributes=torch.zeros((1, config.n_user_attributes), dtype=torch.long),
        history=torch.from_numpy(rows),
        history_liked=torch.from_numpy(history_liked),
        item=1 + torch.arange(len(items)),
    )


def sample_features(  # noqa: PLR0913,PLR0917 - the columns of a sample
    user: Tensor, user_attributes: Tensor, history: Tensor, history_liked: Tensor, item: Tensor, items: ItemTable
) -> Features:
    """Training samples with U = B. A small item table goes with every batch as it is; of a large one only the rows in use.

    Args:
        user: (B,) user buckets.
        user_attributes: (B, A_u) buckets.
        history: (B, H) rows of ``items``, 0 padding.
        history_liked: (B, H) codes.
        item: (B,) rows of ``items``.
        items: The table that the rows name.
    """
    history, item = history.long(), item.long()
    buckets, attributes = items.item, items.attributes
    if len(buckets) > history.numel() + item.numel():
        named = torch.cat([history.new_zeros(1), history.flatten(), item])  # row 0 first: it is the smallest, so it stays row 0
        distinct, rows = torch.unique(named, return_inverse=True)  # (R,), (1 + B H + B,)
        buckets, attributes = buckets[distinct], attributes[distinct]
        history, item = rows[1 : 1 + history.numel()].view(history.shape), rows[1 + history.numel() :]
    return Features(
        items=buckets,
        attributes=attributes,
        user=user.long(),
        user_attributes=user_attributes.long(),
        history=history,
        history_liked=history_liked.long(),
        item=item,
    )


def join_batches(parts: Sequence[Features]) -> Features:
    """Several batches as one, with U = B; each brings its own item rows."""
    whole = [part.per_item() for part in parts]
    starts = np.cumsum([0, *(len(part.items) for part in whole)]).tolist()
    moved = [
        replace(part, history=torch.where(part.history == 0, 0, part.history + start), item=part.item + start)
        for part, start in zip(whole, starts, strict=False)
    ]
    return Features(**{field.name: torch.cat([getattr(part, field.name) for part in moved]) for field in fields(Features)})


def _padding(n_attributes: int) -> ItemFeatures:
    return ItemFeatures(item=PAD, attributes=np.zeros(n_attributes, np.int32))


def _stack(items: Sequence[ItemFeatures]) -> tuple[Tensor, Tensor]:
    """Buckets (R,) and attribute buckets (R, A). One concatenate: `np.stack` costs five times as much for 200 small rows."""
    buckets = np.fromiter((item.item for item in items), np.int64, len(items))
    attributes = np.concatenate([item.attributes for item in items]).reshape(len(items), -1).astype(np.int64)
    return torch.from_numpy(buckets), torch.from_numpy(attributes)
