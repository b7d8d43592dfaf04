"""The live state: what it takes in, and when it swaps."""

import msgspec
import numpy as np
import pytest

from contracts.codec import key_of
from contracts.ports import VectorRow
from contracts.records import InteractionEvent, ItemEvent
from contracts.topics import INTERACTIONS, ITEMS, MODELS, VECTORS
from streams.roles.live import Live
from streams.tail import Tailed


def tailed(topic, record):
    key = record if isinstance(record, str) else key_of(topic, record).decode()
    return Tailed(topic=topic, key=key, record=None if isinstance(record, str) else record, partition=0, offset=0, at_ms=1)


@pytest.fixture
def live(small, stores):
    live = Live(small, stores.open, stores.open, steps=True)
    yield live
    if live.holder.current:
        live.holder.current.vectors.close()


@pytest.fixture
def take(live, never):
    def take(*pairs):
        live.take([tailed(topic, record) for topic, record in pairs], never)

    return take


@pytest.fixture
def in_force(live, trained, stores, take):
    """Version 1, with one vector in its store."""
    store = stores.open("augmented_v1", 4)
    store.upsert([VectorRow(subject="item:a", vector=np.ones(4, np.float32), tier="individual", as_of_ms=1)])
    live.caught_up.set()
    take((MODELS, trained(1, state="ready")))
    return live.holder.current


def item(ident, **fields):
    return ItemEvent(item=ident, published_ms=1, title="T", **fields)


def test_items_come_change_and_go(live, take):
    take((ITEMS, item("a")), (ITEMS, item("b")), (ITEMS, item("c")))
    take((ITEMS, item("a", removed=True)), (ITEMS, "b"))
    assert [live.catalogue.knows(one) for one in "abc"] == [False, False, True]


def test_interactions_become_histories(live, take):
    take(*((INTERACTIONS, InteractionEvent(user="u", item=f"i{n}", action="click", event_ms=n)) for n in range(5)))
    assert [one.item for one in live.histories.of("u", before_ms=99)][-1] == "i4"


def test_nothing_is_in_force_before_everything_was_read(live, take, trained):
    take((MODELS, trained(1, state="ready")))
    assert live.holder.current is None
    assert live.missing()


def test_a_version_that_is_only_trained_is_not_used(live, take, trained):
    live.caught_up.set()
    take((MODELS, trained(1)))
    assert live.holder.current is None


def test_a_ready_version_is_booted_from_its_store_and_follows_its_changelog(in_force, take, augmented):
    assert in_force.version == 1
    take((VECTORS, augmented("item:b", seed=2)), (VECTORS, augmented("item:c", version=2)))
    found = in_force.vectors.lookup(["item:a", "item:b", "item:c"])
    np.testing.assert_array_equal(found.matrix[0], np.ones(4))
    np.testing.assert_array_equal(found.matrix[1], np.frombuffer(augmented("item:b", seed=2).vector, "<f4"))
    np.testing.assert_array_equal(found.matrix[2], np.zeros(4))  # of a version that is not in force


def test_a_removed_subject_loses_its_vector(in_force, take, stores):
    stores.by_name["augmented_v1"].delete(["item:a"])
    take((VECTORS, "item:a"))
    np.testing.assert_array_equal(in_force.vectors.lookup(["item:a"]).matrix[0], np.zeros(4))


def test_a_vector_of_the_wrong_size_is_passed_over(in_force, take, augmented):
    take((VECTORS, msgspec.structs.replace(augmented("item:b"), vector=b"\0" * 8)))
    np.testing.assert_array_equal(in_force.vectors.lookup(["item:b"]).matrix[0], np.zeros(4))


def test_the_newest_ready_version_is_swapped_in_as_a_whole(live, in_force, take, trained):
    take((MODELS, trained(2)))
    assert live.holder.current is in_force
    take((MODELS, trained(2, state="ready")))
    assert (live.holder.current.version, live.holder.current.vectors is in_force.vectors) == (2, False)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_in_force(live, in_force, take, trained, small):
    manifest = trained(2, state="ready")
    (small.checkpoints / manifest.weights).write_bytes(b"damaged")
    take((MODELS, manifest))
    assert live.holder.current is in_force
