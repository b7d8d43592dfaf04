"""A model version becomes ready when every subject has its row, not before; old ones go."""

import threading

import numpy as np
import pytest

from contracts.errors import UnavailableError
from contracts.ports import VectorRow
from contracts.topics import MODELS, VECTORS
from hein.stores.memory import MemoryVectorStore
from streams.roles.versions import Versions


@pytest.fixture
def knowledge(encoding):
    store = MemoryVectorStore(6)
    for n in range(5):
        one = encoding(f"item:n{n}", seed=n)
        vector = np.frombuffer(one.vector, "<f4")
        store.upsert([VectorRow(subject=one.subject, vector=vector, tier=one.tier, as_of_ms=1, trigger_ms=5, text_hash="t1")])
    return store


@pytest.fixture
def versions(small, knowledge, stores, publisher):
    made = Versions(small, knowledge, stores.open, stores.drop, publisher)
    made._loaded.set()
    return made


def subjects(store):
    return {row.subject for batch in store.scan() for row in batch}


def test_a_trained_version_is_filled_and_then_announced_last(versions, trained, stores, publisher, knowledge):
    versions._follow(trained(1))
    assert subjects(stores.by_name["augmented_v1"]) == subjects(knowledge)
    assert [topic for topic, _ in publisher.acked] == [VECTORS] * 5 + [MODELS]
    (announced,) = publisher.of(MODELS)
    assert (announced.version, announced.state) == (1, "ready")
    assert {vector.version for vector in publisher.of(VECTORS)} == {1}


def test_a_version_is_not_announced_while_the_store_fails_and_nothing_is_missing_after_another_try(
    versions, trained, stores, publisher
):
    store = stores.open("augmented_v1", 4)
    upsert = store.upsert
    script = [UnavailableError("down", wanted="up", todo="wait")]

    def failing(rows):
        if script:
            raise script.pop()
        upsert(rows)

    store.upsert = failing
    manifest = trained(1)
    with pytest.raises(UnavailableError):
        versions._follow(manifest)
    assert publisher.of(MODELS) == []
    versions._follow(manifest)
    assert [one.state for one in publisher.of(MODELS)] == ["ready"]
    assert len(subjects(store)) == 5


def test_what_arrives_while_a_version_is_filled_has_its_row_too(versions, trained, stores, publisher, encoding):
    """The agent's thread comes between two batches of the backfill, with a new subject and with newer knowledge of an old one."""
    flush, arrived = publisher.flush, []

    def meanwhile():
        flush()
        if not arrived:
            newer = [encoding("item:late"), encoding("item:n0", as_of_ms=9, seed=9)]
            agent = threading.Thread(target=lambda: arrived.extend(versions.augment_many(newer)))
            agent.start()
            agent.join(timeout=20)

    publisher.flush = meanwhile
    versions._follow(trained(1))
    assert [(vector.subject, vector.version) for vector in arrived] == [("item:late", 1), ("item:n0", 1)]
    store = stores.by_name["augmented_v1"]
    assert store.fetch(["item:n0"])["item:n0"].as_of_ms == 9
    assert subjects(store) == {*(f"item:n{n}" for n in range(5)), "item:late"}


def test_while_a_new_version_is_trained_both_are_served_and_then_only_the_new_one(versions, trained, stores, encoding):
    versions._follow(trained(1))
    assert [one.version for one in versions.augment_many([encoding("item:a")])] == [1]
    versions._follow(trained(2))
    assert [one.version for one in versions.augment_many([encoding("item:b")])] == [2]
    assert "item:a" not in subjects(stores.by_name["augmented_v2"])  # it is not in `knowledge`: encode did not store it here


def test_collections_beyond_the_kept_ones_are_dropped(versions, trained, stores):
    for version in (1, 2, 3):
        versions._follow(trained(version))
    assert stores.dropped == ["augmented_v1"]  # two are kept
    assert set(stores.by_name) == {"augmented_v2", "augmented_v3"}


def test_after_a_restart_a_ready_version_is_served_without_filling_it_again(versions, trained, publisher, encoding):
    versions._follow(trained(1, state="ready"))
    assert publisher.acked == []
    assert [one.version for one in versions.augment_many([encoding("item:a")])] == [1]


def test_a_removed_subject_leaves_every_version(versions, trained, stores):
    versions._follow(trained(1))
    versions.forget(["item:n0"])
    assert "item:n0" not in subjects(stores.by_name["augmented_v1"])


def test_a_version_whose_files_are_damaged_is_passed_over(versions, trained, small, publisher):
    manifest = trained(1)
    (small.checkpoints / "v0001" / "hein.safetensors").write_bytes(b"damaged")
    versions._follow(manifest)
    assert publisher.acked == []
    assert versions.augment_many([]) == []


def test_a_version_that_goes_closes_its_connection_and_stays_counted(versions, trained, stores, encoding):
    closed = []
    for version in (1, 2, 3):
        stores.open(f"augmented_v{version}", 4).close = lambda version=version: closed.append(version)
    versions._follow(trained(1))
    versions.augment_many([encoding("item:a")])
    assert (closed, versions.counts()) == ([], {"augmented": 6})
    versions._follow(trained(2))
    assert (closed, versions.counts()) == ([1], {"augmented": 11})
    versions._follow(trained(2, state="retired"))
    assert (closed, versions.counts()) == ([1, 2], {"augmented": 11})
    versions._follow(trained(3))
    assert closed == [1, 2]


def test_a_try_that_failed_half_way_leaves_no_connection_open(versions, trained, stores, publisher):
    store, closed = stores.open("augmented_v1", 4), []
    store.close = lambda: closed.append(1)
    publisher.fail_flushes = 1
    manifest = trained(1)
    with pytest.raises(UnavailableError):
        versions._follow(manifest)
    versions._follow(manifest)
    assert closed == [1]
