"""The items that can be ranked, hashed once when they arrive, not once per request.

Threads: `apply` from one writer; everything else from any thread. Readers take no lock except in `recent`.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from ranker.features import FeatureConfig, ItemFeatures, item_features

if TYPE_CHECKING:
    from collections.abc import Mapping

    from contracts.records import ItemEvent

MAX_ITEMS = 10_000_000  # what one ranker holds (docs/architecture.md); beyond it the oldest item goes


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


class Catalogue:
    """Items by id, with their prepared features, and by age.

    Args:
        config: Table sizes of the model that reads the features.
        max_items: Bound on items held; beyond it the oldest is dropped.
    """

    def __init__(self, config: FeatureConfig, max_items: int = MAX_ITEMS) -> None:
        self._max_items = max_items
        self._items: dict[str, CatalogueItem] = {}
        self._by_age: list[tuple[int, str]] = []
        self._hashed = _Hashed(config=config, features={})
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def config(self) -> FeatureConfig:
        """The table sizes in force."""
        return self._hashed.config

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
            self._hashed.features[event.item] = item_features(event.item, event.attributes, self.config)
            self._items[event.item] = known
            insort(self._by_age, (event.published_ms, event.item))
            if len(self._items) > self._max_items:
                self._drop(self._by_age[0][1])

    def use(self, config: FeatureConfig) -> None:
        """Hash every item again where a model has other table sizes; nothing to do where they are the same. Any thread."""
        if config == self.config:
            return
        with self._lock:
            hashed = {item: item_features(item, known.attributes, config) for item, known in self._items.items()}
            self._hashed = _Hashed(config=config, features=hashed)

    def features(self, item: str) -> ItemFeatures:
        """The item as the model reads it; an unknown one from its id alone. Any thread."""
        hashed = self._hashed
        return hashed.features.get(item) or item_features(item, {}, hashed.config)

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
        self._hashed.features.pop(item, None)

    def _forget_age(self, item: str) -> None:
        known = self._items.get(item)
        if known is not None:
            del self._by_age[bisect_left(self._by_age, (known.published_ms, item))]
