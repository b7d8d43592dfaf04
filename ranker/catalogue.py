"""The items that can be ranked, hashed once when they arrive, not once per request.

Each state of hashes belongs to the table sizes of one model. The newest and the one before it are kept, so a request that still
holds the model before a swap reads features of that model's sizes, and two sizes in turn are not hashed again and again.

Threads: `apply` from one writer; everything else from any thread. Readers take no lock except in `recent`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Final

from ranker.features import FeatureConfig, ItemFeatures, item_features

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from contracts.records import ItemEvent

MAX_ITEMS = 10_000_000  # what one ranker holds (docs/architecture.md); beyond it the oldest item goes
_STATES: Final = 2  # the model in force and the one before it


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueItem:
    """What the page and the model need of an item. The text stays on its topic."""

    item: str
    title: str
    attributes: Mapping[str, tuple[str, ...]]
    published_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Hashed:
    config: FeatureConfig
    features: dict[str, ItemFeatures]

    def put(self, item: str, attributes: Mapping[str, tuple[str, ...]]) -> None:
        self.features[item] = item_features(item, attributes, self.config)

    def lookup(self, item: str) -> ItemFeatures:
        return self.features.get(item) or item_features(item, {}, self.config)


class Catalogue:
    """Items by id, with their prepared features, and by age.

    Args:
        config: Table sizes of the model that will probably read the features.
        max_items: Bound on items held; beyond it the oldest is dropped.
    """

    def __init__(self, config: FeatureConfig, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._items: dict[str, CatalogueItem] = {}
        self._by_age: list[tuple[int, str]] = []
        self._states: tuple[_Hashed, ...] = (_Hashed(config=config, features={}),)  # newest first
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    def apply(self, event: ItemEvent) -> None:
        """Take in a new or changed item, or drop a removed one; again has no effect. One writer thread."""
        with self._lock:
            if event.removed:
                self._drop(event.item)
                return
            self._forget_age(event.item)
            known = CatalogueItem(
                item=event.item, title=event.title, attributes=event.attributes, published_ms=event.published_ms
            )
            for hashed in self._states:
                hashed.put(event.item, event.attributes)
            self._items[event.item] = known
            insort(self._by_age, (event.published_ms, event.item))
            if len(self._items) > self._max_items:
                self._drop(self._by_age[0][1])

    def prepare(self, config: FeatureConfig) -> None:
        """Hash every item for a model's table sizes, before its first request; nothing to do where that was done. Any thread."""
        self._hashed_for(config)

    def lookup_for(self, config: FeatureConfig) -> Callable[[str], ItemFeatures]:
        """The items as a model of these table sizes reads them; an unknown one from its id alone. Any thread.

        Take it once per request. It stays with these sizes, whatever other model is prepared meanwhile.
        """
        return self._hashed_for(config).lookup

    def _hashed_for(self, config: FeatureConfig) -> _Hashed:
        found = self._find(config)
        if found is not None:
            return found
        with self._lock:
            hashed = self._find(config)  # another thread may have been faster
            if hashed is None:
                hashed = _Hashed(config=config, features={})
                for item, known in self._items.items():
                    hashed.put(item, known.attributes)
                self._states = (hashed, *self._states)[:_STATES]
            return hashed

    def _find(self, config: FeatureConfig) -> _Hashed | None:
        return next((hashed for hashed in self._states if hashed.config == config), None)

    def knows(self, item: str) -> bool:
        """Whether the item is here and not removed. Any thread."""
        return item in self._items

    def get(self, item: str) -> CatalogueItem | None:
        """Title, attributes and age of an item, or None. Any thread."""
        return self._items.get(item)

    def recent(self, n: int, before_ms: int | None = None) -> list[CatalogueItem]:
        """At most n items, newest first, published before ``before_ms`` where given. Any thread."""
        with self._lock:
            end = len(self._by_age) if before_ms is None else bisect_left(self._by_age, (before_ms, ""))
            newest = self._by_age[max(0, end - n) : end]
            return [self._items[item] for _, item in reversed(newest)]

    def _drop(self, item: str) -> None:
        self._forget_age(item)
        self._items.pop(item, None)
        for hashed in self._states:
            hashed.features.pop(item, None)

    def _forget_age(self, item: str) -> None:
        known = self._items.get(item)
        if known is not None:
            del self._by_age[bisect_left(self._by_age, (known.published_ms, item))]
