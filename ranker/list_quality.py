"""How good re-ranked lists are: MAP and NDCG of the first k places.

The definitions are those of KAR's `evaluate_rerank`, so that figures can stand beside those of REKI:

* A list without a liked item counts 0 in every mean; it is the same for every model, so it makes all figures smaller and no
  difference between two models larger. How many there are is said beside the figures. (LibRerank counts 0 too.)
* Average precision divides by the number of liked items among the first k, not by all that could have stood there (min(k, liked
  items of the list), as in trec_eval's habit). It says how early the liked items among the first k come, not how many there are;
  NDCG, whose ideal is the whole list sorted by label, says that.
* Gain 2^label - 1, discount log2(place + 1), places from 1.

Equal scores keep the initial order. KAR does the same; LibRerank's first `evaluate` reads a place too far and is not followed.

Shapes: L lists, K places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from numpy.typing import NDArray

    Floats = NDArray[np.floating[Any]]

CUTS: Final = (1, 3, 5, 7)  # REKI, section 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ListQuality:
    """What scores of a set of lists are worth.

    Args:
        metrics: ``map@k`` and ``ndcg@k``; empty if there is no list.
        n_lists: How many lists the means are over.
        n_without_liked: How many of them count 0 because nothing in them was liked.
    """

    metrics: dict[str, float]
    n_lists: int
    n_without_liked: int


def list_quality(
    labels: Floats, scores: Floats, present: NDArray[np.bool_] | None = None, cuts: Sequence[int] = CUTS
) -> ListQuality:
    """MAP@k and NDCG@k, means over lists.

    Args:
        labels: (L, K) 1.0 liked, 0.0 not; what stands at empty places does not matter.
        scores: (L, K) on any scale, higher is better; places in the initial order, which decides between equal scores.
        present: (L, K), False at empty places; None: every place is taken.
        cuts: The values of k; a k beyond the list means the whole list.

    Example:
        >>> list_quality(np.array([[0.0, 1.0, 1.0]]), np.array([[0.3, 0.2, 0.1]]), cuts=[3]).metrics["map@3"]
        0.5833333333333333
    """
    if present is None:
        present = np.ones(labels.shape, np.bool_)
    gains = np.where(present, np.exp2(labels.astype(np.float64)) - 1, 0)  # (L, K)
    order = np.argsort(np.where(present, -scores.astype(np.float64), np.inf), axis=1, kind="stable")  # (L, K)
    ranked = np.take_along_axis(gains, order, axis=1)  # (L, K)
    ideal = -np.sort(-gains, axis=1)  # (L, K)
    n_lists, n_places = labels.shape
    metrics: dict[str, float] = {}
    for k in cuts if n_lists else ():
        metrics[f"map@{k}"] = float(_average_precision(ranked[:, :k] > 0).mean())
        discount = 1 / np.log2(np.arange(2, min(k, n_places) + 2))
        metrics[f"ndcg@{k}"] = float(_ratio(ranked[:, :k] @ discount, ideal[:, :k] @ discount).mean())
    return ListQuality(metrics=metrics, n_lists=n_lists, n_without_liked=int((~(gains > 0).any(axis=1)).sum()))


def _average_precision(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of the precision at each hit, (L, k) -> (L,); 0 without a hit."""
    found = np.cumsum(hits, axis=1)  # (L, k)
    precision = found / np.arange(1, hits.shape[1] + 1)  # (L, k)
    return _ratio((precision * hits).sum(axis=1), hits.sum(axis=1))


def _ratio(part: Floats, whole: NDArray[Any]) -> NDArray[np.float64]:
    """Quotients of two columns, 0 where the second is 0."""
    out = np.zeros(len(part))
    np.divide(part, whole, out=out, where=whole > 0)
    return out
