"""A ranking request to a ranking: history at request time, prestored vectors, one pass of the model.

No store, no broker, no language model.

Leak guard: a user's vector was written from interactions, so it counts only where its ``as_of_ms`` is before the request's time,
as in training (`ranker.samples`); else the default vector stands in, flagged and counted. An item's vector holds no label.

Threads: `rank` and `explain` from any thread; each takes the bundle of the moment once, so a swap never shows inside an answer.

Shapes: B candidates, H history, d_aug size of an augmented vector.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from contracts.errors import RankRequestError, UnavailableError
from contracts.records import FeatureSnapshot, HistoryItem, Ranking, ScoredItem
from contracts.subjects import item_subject, user_subject
from ranker.features import rank_features
from ranker.vectors import NO_TIER, TIERS, Found

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.ports import Matrix
    from contracts.records import RankRequest, Tier
    from contracts.settings import Settings
    from ranker.bundle import Bundle, BundleHolder
    from ranker.catalogue import Catalogue
    from ranker.features import Features
    from ranker.histories import Histories


class NotReadyError(UnavailableError):
    """No ready model version yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Weighed:
    """An item of the user's history and how much it counted for one candidate."""

    item: str
    liked: bool | None
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why an item stands where it stands. Places count from 1; ``*_without``: by the same model, all knowledge vectors zero."""

    item: str
    score: float
    place: int
    score_without: float
    place_without: int
    history: tuple[Weighed, ...]  # the weightiest first
    tier: Tier | None
    knowledge_age_ms: int | None
    default_vector: bool
    unknown_item: bool


@dataclass(slots=True)
class ScoreCounts:
    """What a `Scorer` counts since it was made. Written without a lock: exact to a few."""

    rankings: int = 0
    candidates: int = 0
    unknown_users: int = 0
    unknown_items: int = 0
    default_user_vectors: int = 0  # no vector, or one that is not older than the request
    default_item_vectors: int = 0


class _Read(NamedTuple):
    """What one request reads before the model runs. Row 0 of ``found`` is the user, row i + 1 candidate i."""

    candidates: tuple[str, ...]
    history: tuple[HistoryItem, ...]
    features: Features
    found: Found  # (1 + B, d_aug)


class Scorer:
    """Ranks with the bundle in force.

    Args:
        holder: The bundle in force.
        histories: What users did.
        catalogue: The items.
        settings: Section ``rank`` is read.
    """

    def __init__(self, holder: BundleHolder, histories: Histories, catalogue: Catalogue, settings: Settings) -> None:
        self.holder = holder
        self.histories = histories
        self.catalogue = catalogue
        self.counts = ScoreCounts()
        self._max_candidates = settings.rank.max_candidates

    def rank(self, request: RankRequest) -> Ranking:
        """The k best candidates, best first; equal scores in the order of item ids. The request's id is the ranking's.

        Candidates are looked at once each. Unknown users and items are ranked too, and flagged.

        Raises:
            RankRequestError: For no candidates, or more than ``rank.max_candidates``.
            NotReadyError: If no version is ready yet.
        """
        started = time.perf_counter()
        bundle = self._bundle()
        read = self._read(bundle, request.user, request.candidates, request.event_ms)
        scores = _scores(bundle, read.features, read.found.matrix)
        best = _order(scores, read.candidates)[: request.k]
        items = tuple(self._scored(read, i, float(scores[i]), request.event_ms) for i in best)
        with_vector = bool(read.found.found[0])
        ranking = Ranking(
            ranking=request.request,
            user=request.user,
            items=items,
            version=bundle.version,
            step=bundle.step,
            event_ms=request.event_ms,
            took_ms=(time.perf_counter() - started) * 1_000,
            unknown_user=not self.histories.knows(request.user),
            user_tier=_tier(read.found, 0),
            user_knowledge_age_ms=_age_ms(read.found, 0, request.event_ms),
            user_default_vector=not with_vector,
            snapshot=FeatureSnapshot(history=read.history, user_vector=read.found.matrix[0].tobytes() if with_vector else None),
        )
        self._count(ranking, read)
        return ranking

    def explain(self, user: str, items: Sequence[str], event_ms: int) -> list[Explanation]:
        """Why these items stand in this order, best first.

        Args:
            user: Any id.
            items: The candidates of a ranking.
            event_ms: The time of the ranking: what came later is not looked at.

        Raises:
            RankRequestError: For no items, or more than ``rank.max_candidates``.
            NotReadyError: If no version is ready yet.
        """
        bundle = self._bundle()
        read = self._read(bundle, user, items, event_ms)
        scores = _scores(bundle, read.features, read.found.matrix)  # (B,)
        without = _scores(bundle, read.features, np.zeros_like(read.found.matrix))  # (B,)
        with torch.inference_mode():
            weights = bundle.crm.attention(read.features).numpy()  # (B, H)
        places_without = {i: place for place, i in enumerate(_order(without, read.candidates), 1)}
        return [
            Explanation(
                item=read.candidates[i],
                score=float(scores[i]),
                place=place,
                score_without=float(without[i]),
                place_without=places_without[i],
                history=_weighed(read.history[-weights.shape[1] :], weights[i]),
                tier=_tier(read.found, i + 1),
                knowledge_age_ms=_age_ms(read.found, i + 1, event_ms),
                default_vector=not read.found.found[i + 1],
                unknown_item=not self.catalogue.knows(read.candidates[i]),
            )
            for place, i in enumerate(_order(scores, read.candidates), 1)
        ]

    def _bundle(self) -> Bundle:
        bundle = self.holder.current
        if bundle is None:
            raise NotReadyError(
                "no model version that is ready", wanted="at least one", todo="wait for the first version, or run `reki train`"
            )
        return bundle

    def _read(self, bundle: Bundle, user: str, candidates: Sequence[str], event_ms: int) -> _Read:
        distinct = tuple(dict.fromkeys(candidates))
        if not 1 <= len(distinct) <= self._max_candidates:
            raise RankRequestError(
                f"{len(distinct)} candidates",
                wanted=f"1 to {self._max_candidates}",
                todo="send fewer, or raise rank.max_candidates" if distinct else "send the ids of the items to rank",
            )
        config = bundle.crm.config.features
        lookup = self.catalogue.lookup_for(config)
        history = self.histories.of(user, before_ms=event_ms)
        features = rank_features(user, history, distinct, lookup, config)
        if bundle.crm.config.d_aug:
            found = bundle.vectors.lookup([user_subject(user), *map(item_subject, distinct)])
            if found.as_of_ms[0] >= event_ms:
                _forget_user(found)
        else:
            found = Found.nothing(1 + len(distinct))
        return _Read(distinct, history, features, found)

    def _scored(self, read: _Read, i: int, score: float, event_ms: int) -> ScoredItem:
        return ScoredItem(
            item=read.candidates[i],
            score=score,
            tier=_tier(read.found, i + 1),
            knowledge_age_ms=_age_ms(read.found, i + 1, event_ms),
            default_vector=not read.found.found[i + 1],
            unknown_item=not self.catalogue.knows(read.candidates[i]),
        )

    def _count(self, ranking: Ranking, read: _Read) -> None:
        counts = self.counts
        counts.rankings += 1
        counts.candidates += len(read.candidates)
        counts.unknown_users += ranking.unknown_user
        counts.unknown_items += sum(item.unknown_item for item in ranking.items)
        counts.default_user_vectors += ranking.user_default_vector
        counts.default_item_vectors += int((~read.found.found[1:]).sum())


def _forget_user(found: Found) -> None:
    """Make row 0 a missing one; `VectorMatrix.lookup` gave us copies."""
    found.matrix[0], found.found[0], found.tiers[0], found.as_of_ms[0] = 0.0, False, NO_TIER, 0


def _scores(bundle: Bundle, features: Features, vectors: Matrix) -> Matrix:
    """Probabilities, (B,). ``vectors`` (1 + B, d_aug): the user's, then the candidates'."""
    both = torch.from_numpy(vectors)
    with torch.inference_mode():
        scores: Matrix = torch.sigmoid(bundle.crm(features, both[:1], both[1:])).numpy()
    return scores


def _order(scores: Matrix, names: Sequence[str]) -> list[int]:
    """Positions, best score first, then by name: the order in which candidates came must not show."""
    values = scores.tolist()
    return sorted(range(len(values)), key=lambda i: (-values[i], names[i]))


def _weighed(history: Sequence[HistoryItem], weights: Matrix) -> tuple[Weighed, ...]:
    """``history`` fills the first of the (H,) columns."""
    read = [Weighed(item=one.item, liked=one.liked, weight=float(w)) for one, w in zip(history, weights, strict=False)]
    return tuple(sorted(read, key=lambda one: -abs(one.weight)))


def _tier(found: Found, row: int) -> Tier | None:
    return TIERS[found.tiers[row]] if found.found[row] else None


def _age_ms(found: Found, row: int, event_ms: int) -> int | None:
    """An item's knowledge can be younger than the request where a replay runs behind: its age is then 0."""
    return max(0, event_ms - int(found.as_of_ms[row])) if found.found[row] else None
