"""Every vector store does the same: the suite of `contracts.ports.VectorStore`, over memory and a real Milvus Lite server."""

from __future__ import annotations

import dataclasses
import signal
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import SettingsError, UnavailableError, VectorError
from contracts.ports import VectorRow, VectorStore
from hein.stores.memory import MemoryVectorStore
from hein.stores.milvus import MilvusVectorStore, drop_collection, list_collections

if TYPE_CHECKING:
    from conftest import MilvusLite

DIM = 4
ODD_IDS = [
    "item:it's",
    'item:"q"',
    "item:a\\b\\n",
    "item:é 日本 🎬",
    "user:100%_x",
    "user:[1, 2]",
    "item:{ids}",
    "user:%27",
    "item:a:b",
]


def name() -> str:
    return f"t_{uuid.uuid4().hex}"


def row(subject: str, *numbers: float, as_of_ms: int = 1, document: str = "") -> VectorRow:
    vector = np.array(numbers or (1, 2, 3, 4), dtype=np.float32)
    return VectorRow(
        subject=subject,
        vector=vector,
        tier="individual",
        as_of_ms=as_of_ms,
        trigger_ms=7,
        source_hash="s",
        text_hash="t",
        document=document,
    )


def plain(found: VectorRow) -> dict[str, object]:
    return {field.name: getattr(found, field.name) for field in dataclasses.fields(found)} | {"vector": found.vector.tolist()}


@pytest.fixture(params=["memory", "milvus"])
def store(request: pytest.FixtureRequest) -> Iterator[VectorStore]:
    if request.param == "memory":
        made: VectorStore = MemoryVectorStore(DIM)
    else:
        server = request.getfixturevalue("milvus")
        made = MilvusVectorStore(server.uri, "", name(), DIM, 10)
    yield made
    made.close()


def test_a_row_comes_back_whole(store: VectorStore) -> None:
    wanted = row("item:1", 0.1, -2.5, 3e-20, 4, as_of_ms=253_402_300_799_999, document='{"summary": "é"}')
    store.upsert([wanted])
    assert plain(store.fetch(["item:1"])["item:1"]) == plain(wanted)
    assert store.fetch(["item:1"])["item:1"].vector.dtype == np.float32


def test_an_upsert_replaces_the_row_and_counts_once(store: VectorStore) -> None:
    store.upsert([row("item:1", as_of_ms=1), row("item:2")])
    store.upsert([row("item:1", as_of_ms=2)])
    assert store.count() == 2
    assert store.fetch(["item:1"])["item:1"].as_of_ms == 2


def test_the_last_row_of_a_subject_wins_within_a_call(store: VectorStore) -> None:
    store.upsert([row("item:1", as_of_ms=at) for at in range(450)] + [row("item:2")])
    assert store.fetch(["item:1"])["item:1"].as_of_ms == 449
    assert store.count() == 2


def test_a_fetch_skips_what_is_not_there_and_maps_by_subject(store: VectorStore) -> None:
    store.upsert([row(f"item:{n}", n, 0, 0, 0) for n in range(1200)])
    asked = [f"item:{n}" for n in reversed(range(1300))] + ["item:3"]
    found = store.fetch(asked)
    assert len(found) == 1200
    assert all(found[f"item:{n}"].vector[0] == n for n in range(1200))
    assert store.fetch([]) == {}
    store.upsert([])


@pytest.mark.parametrize("subject", ODD_IDS)
def test_ids_with_odd_characters_are_ordinary(store: VectorStore, subject: str) -> None:
    store.upsert([row(subject), row("item:other")])
    assert set(store.fetch([subject])) == {subject}
    assert subject in [hit for hit, _ in store.search(row("x").vector, 5, subject.partition(":")[0])]
    store.delete([subject])
    assert store.fetch([subject, "item:other"]).keys() == {"item:other"}


def test_deleted_subjects_are_gone_and_unknown_ones_ignored(store: VectorStore) -> None:
    store.upsert([row("item:1"), row("item:2")])
    store.delete(["item:1", "item:none"])
    store.delete([])
    assert store.count() == 1
    store.upsert([row("item:1", as_of_ms=9)])
    assert store.fetch(["item:1"])["item:1"].as_of_ms == 9


def test_a_scan_gives_every_subject_once_in_batches(store: VectorStore) -> None:
    subjects = {f"user:{n}" for n in range(105)} | set(ODD_IDS)
    store.upsert([row(subject) for subject in subjects])
    store.upsert([row("user:1", as_of_ms=2)])
    batches = list(store.scan(batch=10))
    assert max(map(len, batches)) <= 10
    assert sorted(found.subject for batch in batches for found in batch) == sorted(subjects)


def test_an_empty_store_is_no_special_case(store: VectorStore) -> None:
    assert (store.count(), store.fetch(["item:1"]), list(store.scan()), store.search(row("x").vector, 3, "item")) == (
        0,
        {},
        [],
        [],
    )


def test_a_search_gives_the_nearest_of_a_kind_best_first(store: VectorStore) -> None:
    store.upsert([row(f"item:{n}", n, 0, 0, 0) for n in range(6)] + [row("user:1", 99, 0, 0, 0)])
    hits = store.search(np.array([2, 0, 0, 0], dtype=np.float32), 3, "item")
    assert hits == [("item:5", 10.0), ("item:4", 8.0), ("item:3", 6.0)]


@pytest.mark.parametrize("bad", [(1.0, 2.0), (1.0, float("nan"), 0.0, 0.0), (float("inf"), 0.0, 0.0, 0.0)])
def test_a_bad_vector_is_refused_before_anything_is_written(store: VectorStore, bad: tuple[float, ...]) -> None:
    with pytest.raises(VectorError, match="item:bad"):
        store.upsert([row("item:good"), row("item:bad", *bad)])
    assert store.count() == 0
    with pytest.raises(VectorError):
        store.search(np.array(bad, dtype=np.float32), 1, "item")


def test_a_document_may_fill_its_row_and_not_more(store: VectorStore) -> None:
    store.upsert([row("item:1", document="é" * 32_767)])
    assert len(store.fetch(["item:1"])["item:1"].document) == 32_767
    with pytest.raises(VectorError, match="65536 bytes"):
        store.upsert([row("item:1", document="é" * 32_768)])


def test_what_a_caller_does_to_its_arrays_does_not_reach_the_store(store: VectorStore) -> None:
    mine = row("item:1", 1, 1, 1, 1)
    store.upsert([mine])
    mine.vector[:] = 5
    store.fetch(["item:1"])["item:1"].vector[:] = 6
    assert store.fetch(["item:1"])["item:1"].vector.tolist() == [1, 1, 1, 1]


writes = st.lists(st.tuples(st.sampled_from(["item:1", "item:2", "user:'"]), st.integers(0, 5) | st.none()), max_size=12)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=writes)
def test_milvus_holds_what_a_dict_would(milvus: MilvusLite, steps: list[tuple[str, int | None]]) -> None:
    wanted: dict[str, int] = {}
    store = MilvusVectorStore(milvus.uri, "", "t_model", DIM, 10)
    store.delete(["item:1", "item:2", "user:'"])
    for subject, at in steps:
        if at is None:
            store.delete([subject])
            wanted.pop(subject, None)
        else:
            store.upsert([row(subject, as_of_ms=at)])
            wanted[subject] = at
    assert {subject: found.as_of_ms for subject, found in store.fetch(["item:1", "item:2", "user:'"]).items()} == wanted
    assert store.count() == len(wanted)
    store.close()


def test_a_reopened_collection_has_its_rows_and_refuses_another_size(milvus: MilvusLite) -> None:
    collection = name()
    first = MilvusVectorStore(milvus.uri, "", collection, DIM, 10)
    first.upsert([row("item:1")])
    first.close()
    assert MilvusVectorStore(milvus.uri, "", collection, DIM, 10).count() == 1
    with pytest.raises(VectorError, match="wanted 8"):
        MilvusVectorStore(milvus.uri, "", collection, 8, 10).count()


def test_collections_are_listed_by_prefix_and_dropped(milvus: MilvusLite) -> None:
    prefix = name()
    for version in (1, 2):
        MilvusVectorStore(milvus.uri, "", f"{prefix}_v{version}", DIM, 10).count()
    drop_collection(milvus.uri, "", f"{prefix}_v1")
    drop_collection(milvus.uri, "", f"{prefix}_v1")
    assert list_collections(milvus.uri, "", prefix) == [f"{prefix}_v2"]


def test_rows_survive_a_kill_of_the_server_and_the_same_store_works_again(own_milvus: MilvusLite) -> None:
    store = MilvusVectorStore(own_milvus.uri, "", name(), DIM, 10)
    idle = MilvusVectorStore(own_milvus.uri, "", name(), DIM, 10)
    store.upsert([row(f"item:{n}", n, 0, 0, 0) for n in range(300)])
    idle.upsert([row("item:1")])
    own_milvus.kill()
    with pytest.raises(UnavailableError, match=f"no answer from Milvus at {own_milvus.uri}") as refused:
        store.fetch(["item:1"])
    assert refused.value.retriable
    with pytest.raises(UnavailableError):
        store.upsert([row("item:1")])
    own_milvus.start()
    assert store.count() == 300
    assert store.fetch(["item:7"])["item:7"].vector[0] == 7
    assert idle.fetch(["item:1"]).keys() == {"item:1"}  # it did not notice that the server was away
    store.upsert([row("item:300")])
    assert len(store.fetch([f"item:{n}" for n in range(301)])) == 301
    store.close()
    idle.close()


def test_a_server_that_hangs_is_given_up_at_the_deadline(own_milvus: MilvusLite) -> None:
    store = MilvusVectorStore(own_milvus.uri, "", name(), DIM, 1)
    store.upsert([row("item:1")])
    assert own_milvus.process is not None
    own_milvus.process.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(UnavailableError):
            store.fetch(["item:1"])
        with pytest.raises(UnavailableError):  # now without a connection
            store.fetch(["item:1"])
    finally:
        own_milvus.process.send_signal(signal.SIGCONT)
    assert store.fetch(["item:1"]).keys() == {"item:1"}
    store.close()


def test_a_store_made_while_the_server_is_down_says_so_and_works_later(own_milvus: MilvusLite) -> None:
    own_milvus.kill()
    store = MilvusVectorStore(own_milvus.uri, "", name(), DIM, 10)
    with pytest.raises(UnavailableError, match="start it or mend"):
        store.count()
    with pytest.raises(UnavailableError):
        list_collections(own_milvus.uri, "")
    own_milvus.start()
    assert store.count() == 0
    store.close()


def test_an_address_that_is_none_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match=r"milvus\.uri"):
        MilvusVectorStore("nowhere", "", "c", DIM, 1).count()
