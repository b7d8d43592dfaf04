"""Lists as training samples, and one step of a re-ranker on them, with or without HEIN beneath.

One loss for all four re-rankers, so that they and the arms can be compared: cross-entropy between the softmax of a list's
logits and its labels divided by their sum. With labels of 0 and 1 it is the attention rank loss of DLCM and SetRank, and PRM's
loss but for the weight of a list; only MIR's paper has binary cross-entropy per item, as KAR's code for all but SetRank. MAP
and NDCG ask for an order inside each list, which this loss is about: what is common to a list, such as how generous its user
is, cancels in it. Lists in which nothing was liked teach it nothing and are left out of the mean.

Shapes: L lists, K places, H history, N rows of knowledge, d_text encoder vector, d_aug augmented vector.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from contracts.errors import DatasetError
from ranker.crm import augment_rows
from ranker.features import sample_features

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hein.network import HEIN
    from ranker.features import Features
    from ranker.rerankers import Reranker
    from ranker.samples import Samples

NOBODY: Final = -1  # at an empty place of `ListSamples.index`
_SCORING_BATCH: Final = 1_024  # lists
_TODO: Final = "build the lists again"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ListSamples:
    """L lists of samples, each of one user, best initial score first. Build with `of`.

    A list is read at the time of its earliest sample: history and the user's knowledge are those of that sample, so nothing in
    them is of the list itself or later. An item's knowledge holds no label and stays that of its own sample.
    """

    samples: Samples
    index: NDArray[np.int64]  # (L, K) rows of `samples`, `NOBODY` at empty places
    initial: NDArray[np.float32]  # (L, K) scores of the initial ranker
    earliest: NDArray[np.int64]  # (L,) rows of `samples`

    @classmethod
    def of(
        cls,
        samples: Samples,
        index: NDArray[np.integer],
        initial: NDArray[np.floating],
        earliest: NDArray[np.integer] | None = None,
    ) -> ListSamples:
        """Lists from rows of samples, in any order; each is put into its initial order, empty places last.

        Args:
            samples: What the rows name.
            index: (L, K), `NOBODY` at empty places.
            initial: (L, K) scores; equal ones keep their order.
            earliest: (L,) rows of samples; None: those with the smallest ``event_ms``, of equal ones the lowest row.

        Raises:
            DatasetError: If a list is empty, holds two users, or a score is not finite.
        """
        present = index != NOBODY  # (L, K)
        _check(samples, index, initial, present)
        order = np.argsort(np.where(present, -initial, np.inf), axis=1, kind="stable")  # (L, K)
        if earliest is None:
            when = np.where(present, samples.event_ms[index], np.iinfo(np.int64).max)  # (L, K)
            first = np.lexsort((index, when), axis=1)[:, :1]  # (L, 1)
            earliest = np.take_along_axis(index, first, axis=1)[:, 0]  # (L,)
        return cls(
            samples=samples,
            index=np.take_along_axis(index, order, axis=1).astype(np.int64),
            initial=np.take_along_axis(np.where(present, initial, 0), order, axis=1).astype(np.float32),
            earliest=earliest.astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def present(self) -> NDArray[np.bool_]:
        """(L, K), False at empty places."""
        taken: NDArray[np.bool_] = self.index != NOBODY
        return taken

    @property
    def label(self) -> NDArray[np.float32]:
        """(L, K), 0 at empty places."""
        return np.where(self.present, self.samples.label[self.index], np.float32(0))

    def take(self, rows: NDArray[np.integer] | slice) -> ListSamples:
        """Some of the lists, in the order of ``rows``."""
        return replace(self, index=self.index[rows], initial=self.initial[rows], earliest=self.earliest[rows])

    def batch(self, rows: NDArray[np.integer] | slice) -> ListBatch:
        """The lists at ``rows`` as tensors."""
        part, samples = self.take(rows), self.samples
        present, flat, users = part.present, part.index.ravel(), part.earliest
        taken = present.ravel()
        return ListBatch(
            features=sample_features(
                torch.from_numpy(samples.user[users]),
                torch.from_numpy(samples.user_attributes[users]),
                torch.from_numpy(samples.history[users]),
                torch.from_numpy(samples.history_liked[users]),
                torch.from_numpy(np.where(taken, samples.item[flat], 0)),
                samples.items,
            ),
            user_rows=torch.from_numpy(samples.user_rows[users]).long(),
            item_rows=torch.from_numpy(np.where(taken, samples.item_rows[flat], 0)).long(),
            initial=torch.from_numpy(part.initial),
            present=torch.from_numpy(present),
            label=torch.from_numpy(part.label),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ListBatch:
    """What one training step reads."""

    features: Features  # L users, L * K items
    user_rows: Tensor  # (L,) rows of the matrix, 0 where the user has no knowledge
    item_rows: Tensor  # (L * K,)
    initial: Tensor  # (L, K)
    present: Tensor  # (L, K) bool
    label: Tensor  # (L, K)

    def to(self, device: torch.device | str) -> ListBatch:
        """The same batch on a device."""
        return ListBatch(**{field.name: getattr(self, field.name).to(device) for field in fields(self)})


class JointReranker(nn.Module):
    """HEIN under a re-ranker, trained on one loss (REKI, section 3.4). HEIN runs once per distinct row of a batch.

    Args:
        reranker: The model of lists.
        hein: The hybrid-expert network, or None for the base arm.
    """

    def __init__(self, reranker: Reranker, hein: HEIN | None) -> None:
        super().__init__()
        self.reranker = reranker
        self.hein = hein

    def forward(self, batch: ListBatch, matrix: Tensor) -> Tensor:
        """Logits, (L, K), minus infinity at empty places.

        Args:
            batch: Some lists.
            matrix: (N, d_text) encoder vectors; row 0 stands for missing and is never read.
        """
        users = None if self.hein is None else augment_rows(self.hein, batch.user_rows, matrix, "user")  # (L, d_aug)
        items = None if self.hein is None else augment_rows(self.hein, batch.item_rows, matrix, "item")  # (L K, d_aug)
        logits: Tensor = self.reranker(batch.features, users, items, batch.initial, batch.present)  # (L, K)
        return logits


def list_loss(logits: Tensor, label: Tensor, present: Tensor) -> Tensor:
    """Softmax cross-entropy of lists, () mean over the lists in which something was liked; 0 if there is none.

    Args:
        logits: (L, K), anything at empty places.
        label: (L, K) 1.0 liked, 0.0 not.
        present: (L, K) bool.
    """
    lowest = torch.finfo(logits.dtype).min  # not minus infinity: an empty list would have NaN in its gradient
    log_p = functional.log_softmax(logits.masked_fill(~present, lowest), dim=1)  # (L, K)
    log_p = torch.where(present, log_p, 0)  # (L, K)
    n_liked = (label * present).sum(dim=1)  # (L,)
    each = -(log_p * label).sum(dim=1) / n_liked.clamp(min=1)  # (L,), 0 where nothing was liked
    return each.sum() / (n_liked > 0).sum().clamp(min=1)


def step_loss(model: JointReranker, batch: ListBatch, matrix: Tensor) -> Tensor:
    """The loss of one batch, (), to go backward from."""
    return list_loss(model(batch, matrix), batch.label, batch.present)


def scores(model: JointReranker, lists: ListSamples, matrix: Tensor) -> NDArray[np.float32]:
    """Logits of all lists, (L, K), minus infinity at empty places. The model must be in eval mode."""
    with torch.inference_mode():
        parts = [
            model(lists.batch(slice(start, start + _SCORING_BATCH)).to(matrix.device), matrix).cpu()
            for start in range(0, len(lists), _SCORING_BATCH)
        ]
    found: NDArray[np.float32] = torch.cat(parts).numpy() if parts else np.zeros(lists.index.shape, np.float32)
    return found


def _check(samples: Samples, index: NDArray[np.integer], initial: NDArray[np.floating], present: NDArray[np.bool_]) -> None:
    if index.ndim != 2 or index.shape != initial.shape:  # noqa: PLR2004  lists by places
        raise DatasetError(f"index {index.shape}, initial scores {initial.shape}", wanted="both (lists, places)", todo=_TODO)
    if not present.any(axis=1).all():
        raise DatasetError("a list without an item", wanted="at least one item in every list", todo=_TODO)
    user = samples.user_number[index]  # (L, K)
    if len(index) and (np.where(present, user, user.max()).min(axis=1) != np.where(present, user, 0).max(axis=1)).any():
        raise DatasetError("a list with items of two users", wanted="one user per list", todo=_TODO)
    if not np.isfinite(initial[present]).all():
        raise DatasetError("NaN or infinity in the initial scores", wanted="finite scores", todo="score the samples again")
