from __future__ import annotations

from dataclasses import replace

import numpy as np

from contracts.records import ItemEvent
from ranker.catalogue import Catalogue
from ranker.features import FeatureConfig, item_features

SIZES = FeatureConfig(user_buckets=50, item_buckets=60, attribute_buckets=20, history=5, n_attributes=3, d_embedding=8)


def item(name, published_ms=1, section="s", **more):
    return ItemEvent(item=name, published_ms=published_ms, title=name.upper(), attributes={"section": (section,)}, **more)


def ids(catalogue, n=10, before_ms=None):
    return [one.item for one in catalogue.recent(n, before_ms)]


def test_items_come_change_and_go_and_the_newest_stand_first():
    catalogue = Catalogue(SIZES)
    for name, at in [("a", 3), ("b", 1), ("c", 2)]:
        catalogue.apply(item(name, at))
    assert ids(catalogue) == ["a", "c", "b"]
    assert ids(catalogue, 1, before_ms=3) == ["c"]
    catalogue.apply(item("a", 3))
    catalogue.apply(item("b", 9, "other"))
    assert ids(catalogue) == ["b", "a", "c"]
    assert catalogue.get("b").attributes == {"section": ("other",)}
    for _ in range(2):
        catalogue.apply(ItemEvent(item="b", published_ms=0, removed=True))
    assert ids(catalogue) == ["a", "c"]
    assert (catalogue.knows("b"), catalogue.get("b"), len(catalogue)) == (False, None, 2)


def test_unknown_and_removed_items_have_features_from_their_id_alone():
    catalogue = Catalogue(SIZES)
    catalogue.apply(item("a"))
    catalogue.apply(item("b"))
    catalogue.apply(ItemEvent(item="b", published_ms=0, removed=True))
    lookup = catalogue.lookup_for(SIZES)
    assert lookup("a").attributes.any()
    for name in ("b", "never seen"):
        assert lookup(name).item == item_features(name, {}, SIZES).item
        assert not lookup(name).attributes.any()


def test_a_model_of_other_sizes_gets_all_items_hashed_again():
    catalogue = Catalogue(SIZES)
    catalogue.apply(item("a"))
    wider = replace(SIZES, item_buckets=6_000, n_attributes=4)
    catalogue.prepare(wider)
    assert_as_hashed_for(wider, catalogue.lookup_for(wider))


def assert_as_hashed_for(sizes, lookup):
    expected = item_features("a", {"section": ("s",)}, sizes)
    assert lookup("a").item == expected.item
    np.testing.assert_array_equal(lookup("a").attributes, expected.attributes)


def test_a_request_keeps_the_features_of_its_own_model_whatever_is_prepared_meanwhile():
    sizes = [SIZES, *(replace(SIZES, item_buckets=6_000, n_attributes=n) for n in (4, 5, 6))]
    catalogue = Catalogue(SIZES)
    catalogue.apply(item("a"))
    lookups = [catalogue.lookup_for(one) for one in sizes]
    for one, lookup in zip(sizes, lookups, strict=True):
        assert_as_hashed_for(one, lookup)


def test_two_sizes_in_turn_are_hashed_once_each_and_both_follow_the_items(monkeypatch):
    hashed = []
    monkeypatch.setattr("ranker.catalogue.item_features", lambda *args: hashed.append(args) or item_features(*args))
    wider, catalogue = replace(SIZES, item_buckets=6_000, n_attributes=4), Catalogue(SIZES)
    catalogue.apply(item("a", section="old"))
    for _ in range(5):
        catalogue.prepare(wider)
        catalogue.prepare(SIZES)
    assert len(hashed) == 2
    catalogue.apply(item("a"))
    for sizes in (SIZES, wider):
        assert_as_hashed_for(sizes, catalogue.lookup_for(sizes))
    assert len(hashed) == 4


def test_beyond_the_bound_the_oldest_item_goes():
    catalogue = Catalogue(SIZES, max_items=2)
    for name, at in [("a", 3), ("b", 1), ("c", 2)]:
        catalogue.apply(item(name, at))
    assert ids(catalogue) == ["a", "c"]
    assert [len(one.features) for one in catalogue._states] == [2]
