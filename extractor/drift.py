"""Do a user's likes move away from what is known of them? ADWIN on the distance between a newly liked item and the knowledge.

Items and users (the encoder's vectors of their knowledge) have places in 32 dimensions (`extractor.projection`), less the mean
place of their kind: texts of one kind resemble each other, and without that the distances say more. For every like of a user
whose place is known, the cosine distance goes to an ADWIN of that user (Bifet and Gavalda, 2007; river). A change upward is
drift: liked items are further from the knowledge now. A change downward is none. New knowledge of the user starts a new ADWIN.

**Its bounds.** All of it is in memory: ``plan.max_vectors`` places and `MAX_WATCHED` users, the least recently used go first.
Nothing is written down (ADWIN can only be pickled): after a restart every ADWIN starts anew, and a verdict whose request was not
sent yet is lost. The K interactions of ``plan.interactions_per_request`` still count.

**Its parameters.** river's defaults look at every 32nd value only, and at windows of five or more; here at every value (clock
1), once there are more than `FEWEST_LIKES`, and at windows of two. ADWIN's bound is meant for values that fill 0 to 1; the
distances of one user vary by 0.15 to 0.2, and between windows of 20 and 20 not even a shift by 0.45 would pass it. So they are
stretched by `STRETCH`. What ADWIN guarantees about false alarms is then a rule of thumb only, so they are counted. ``python
benchmarks/bench_drift.py``: 300 streams, standard deviation 0.18, 20 likes before the shift; found within 30 likes (after how
many):

=====  ===========  ===========  ===========  ==========================
delta  up by 0.2    up by 0.3    up by 0.45   false alarms / 1,000 likes
=====  ===========  ===========  ===========  ==========================
0.002   3 % (26.5)  33 % (25)     98 % (17)   0.00
0.05   46 % (18)    94 % (13)    100 % (7)    0.03
0.2    79 % (13)    99 % (8)     100 % (5)    0.57
=====  ===========  ===========  ===========  ==========================

With fewer than ten likes since the last knowledge nothing is found: where K is ten, K nearly always comes first, and drift
matters where K is 30 or more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from cachetools import LRUCache

# river.drift.ADWIN is a thin wrapper of this class. Its package cannot be imported on Python 3.11: river 0.26.0 has a subclass of
# csv.DictReader[...] there, which is new in 3.12
from river._river_rust.drift import AdaptiveWindowing

from contracts.actions import liked
from contracts.subjects import item_subject, split_subject, user_subject
from extractor.projection import DIM, project, space

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.records import EncodedKnowledge, InteractionEvent
    from contracts.settings import Plan

MAX_WATCHED: Final = 50_000  # users with an ADWIN of their own, 1 to 2 KB each
STRETCH: Final = 10.0
FEWEST_LIKES: Final = 8  # before anything is compared
_SHORTEST_WINDOW: Final = 2
_PRIOR: Final = 20


class Drift:
    """Places of items and users, and a watch over the likes of each user.

    Args:
        settings: ``drift`` (ADWIN's delta; 0: nothing is watched) and ``max_vectors``.
    """

    def __init__(self, settings: Plan) -> None:
        self._delta = settings.drift
        self._places: LRUCache[str, bytes] = LRUCache(settings.max_vectors)  # subject -> (32,) float32
        self._watches: LRUCache[str, AdaptiveWindowing] = LRUCache(MAX_WATCHED)
        self._begin("")

    def learn(self, encoded: EncodedKnowledge) -> None:
        """Where an item or a user is now; other knowledge of a user than before starts a new watch. Clusters have no place.

        A vector of another encoder than the last one forgets all places: they cannot be compared.

        Raises:
            VectorError: The vector holds NaN or infinity.
        """
        kind, ident = split_subject(encoded.subject)
        if not self._delta or kind == "cluster":
            return
        if self._space != space(encoded.encoder):
            self._begin(space(encoded.encoder))
        place = project(np.frombuffer(encoded.vector, dtype="<f4")[None])[0]  # (32,)
        if self._places.get(encoded.subject) == place.tobytes():
            return  # delivered again
        self._places[encoded.subject] = place.tobytes()
        self._means[kind].learn(place)
        if kind == "user":
            self._watches.pop(ident, None)

    def forget(self, subject: str) -> None:
        """There is no such item or user any more."""
        self._places.pop(subject, None)
        kind, ident = split_subject(subject)
        if kind == "user":
            self._watches.pop(ident, None)

    def observe(self, event: InteractionEvent) -> bool:
        """Whether with this event the user's likes have moved away from what is known of them. Call it once for an event."""
        item, user = self._places.get(item_subject(event.item)), self._places.get(user_subject(event.user))
        if item is None or user is None or not liked(event.action, event.value):
            return False
        watch = self._watches.get(event.user)
        if watch is None:
            watch = self._watches[event.user] = likes_watch(self._delta)
        return moved_up(watch, self._distance(item, user))

    def _begin(self, name: str) -> None:
        """Know nothing, in this space."""
        self._space = name
        self._places.clear()
        self._watches.clear()
        self._means = {"item": _Mean(), "user": _Mean()}

    def _distance(self, item: bytes, user: bytes) -> float:
        """Cosine distance of an item from what is known of a user, 0 to 2; 1 where either is in the middle of its kind."""
        a, b = self._means["item"].without(item), self._means["user"].without(user)  # (32,) each
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        return 1 - float(a @ b) / length if length else 1.0


class _Mean:
    """The mean place of a kind so far, as if `_PRIOR` more had been in the middle: the first few do not count as typical."""

    def __init__(self) -> None:
        self._sum = np.zeros(DIM)
        self._n = _PRIOR

    def learn(self, place: NDArray[np.float32]) -> None:
        self._sum += place
        self._n += 1

    def without(self, place: bytes) -> NDArray[np.float64]:
        """A place less the mean, (32,)."""
        return np.frombuffer(place, dtype=np.float32) - self._sum / self._n


def likes_watch(delta: float) -> AdaptiveWindowing:
    """An ADWIN for the distances of one user's likes from the knowledge.

    Args:
        delta: Of ADWIN; smaller: rarer and later.
    """
    return AdaptiveWindowing(delta=delta, clock=1, max_buckets=5, min_window_length=_SHORTEST_WINDOW, grace_period=FEWEST_LIKES)


def moved_up(watch: AdaptiveWindowing, distance: float) -> bool:
    """Whether this distance, the newest, makes it certain enough that the later ones are larger than those before."""
    before = _mean(watch)
    changed = watch.update(STRETCH * distance)
    return bool(changed and _mean(watch) > before)  # at a change, ADWIN drops the older part of its window


def _mean(watch: AdaptiveWindowing) -> float:
    width = watch.get_width()
    return float(watch.get_total()) / width if width else 0.0
