from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import UnavailableError, VectorError
from contracts.ports import VectorRow
from contracts.precedence import supersedes
from contracts.records import AugmentedVector
from hein.stores.memory import MemoryVectorStore
from ranker.vectors import NO_TIER, TIERS, VectorMatrix

DIM = 4


def vector(subject, value=1.0, tier="attributes", as_of_ms=1, *, version=1, source_hash=""):
    raw = np.full(DIM, value, np.float32).tobytes()
    return AugmentedVector(
        subject=subject, vector=raw, version=version, tier=tier, as_of_ms=as_of_ms, trigger_ms=0, source_hash=source_hash
    )


def row(subject, value=1.0):
    return VectorRow(subject=subject, vector=np.full(DIM, value, np.float32), tier="individual", as_of_ms=9)


class Store(MemoryVectorStore):
    """A store that counts reads, and may wait or fail."""

    def __init__(self, *rows):
        super().__init__(DIM)
        self.upsert(rows)
        self.reads = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def fetch(self, subjects):
        self.reads.append(list(subjects))
        self.gate.wait(10)
        if self.error is not None:
            raise self.error
        return super().fetch(subjects)


def matrix_of(store=None, now=None):
    now = [0.0] if now is None else now
    return VectorMatrix(DIM, store, 5.0, version=1, clock=lambda: now[0])


def test_vectors_come_back_in_the_order_asked_for_and_missing_ones_are_zeros():
    matrix = matrix_of()
    matrix.apply(vector("item:a", 1.0, "collective", 7))
    matrix.apply(vector("item:b", 2.0))
    found = matrix.lookup(["item:b", "item:x", "item:a", "item:b"])
    assert found.matrix[:, 0].tolist() == [2.0, 0.0, 1.0, 2.0]
    assert found.found.tolist() == [True, False, True, True]
    assert [TIERS[t] if t != NO_TIER else None for t in found.tiers] == ["attributes", None, "collective", "attributes"]
    assert found.as_of_ms.tolist() == [1, 0, 7, 1]
    assert (matrix.counts.misses, matrix.counts.defaults) == (1, 1)


@pytest.mark.parametrize(
    "bad",
    [
        vector("item:a", version=2),
        vector("item:a", float("nan")),
        AugmentedVector(subject="item:a", vector=b"12345678", version=1, tier="attributes", as_of_ms=1, trigger_ms=0),
        AugmentedVector(subject="item:a", vector=b"12345", version=1, tier="attributes", as_of_ms=1, trigger_ms=0),
    ],
)
def test_a_vector_that_does_not_fit_is_refused_and_nothing_changes(bad):
    matrix = matrix_of()
    with pytest.raises(VectorError, match="wanted"):
        matrix.apply(bad)
    assert len(matrix) == 0


records = st.lists(
    st.builds(
        vector,
        st.sampled_from(["item:a", "item:b", "user:a"]),
        st.floats(-9, 9, width=32),
        st.sampled_from(TIERS),
        st.integers(0, 5),
        source_hash=st.sampled_from(["", "h1", "h2"]),
    )
)


@given(records)
def test_what_stands_is_what_precedence_says_and_again_changes_nothing(drawn):
    matrix = matrix_of()
    standing = {}
    for one in drawn:
        new = (one.tier, one.as_of_ms, one.source_hash)
        old = standing.get(one.subject)
        wins = supersedes(one.subject, new, None if old is None else (old.tier, old.as_of_ms, old.source_hash))
        assert matrix.apply(one) == wins
        assert not matrix.apply(one)
        if wins:
            standing[one.subject] = one
    found = matrix.lookup(list(standing))
    assert [vector.tobytes() for vector in found.matrix] == [one.vector for one in standing.values()]


def test_it_grows_and_reuses_rows_of_updates_and_removals():
    matrix = matrix_of()
    for update in range(40):
        for n in range(300):
            matrix.apply(vector(f"item:{n}", n, as_of_ms=update))
    for n in range(150):
        matrix.drop(f"item:{n}")
    for n in range(1_000, 3_000):
        matrix.apply(vector(f"item:{n}", n))
    found = matrix.lookup([f"item:{n}" for n in (*range(300), *range(1_000, 3_000))])
    assert found.found.sum() == len(matrix) == 2_150
    assert found.matrix[150:, 0].tolist() == [*map(float, range(150, 300)), *map(float, range(1_000, 3_000))]
    assert len(matrix._rows.matrix) <= 4 * 2_150


def test_a_boot_does_not_undo_newer_records():
    matrix = matrix_of()
    matrix.apply(vector("item:a", 5.0, "individual", 10))
    assert matrix.boot([[row("item:a"), row("item:b", 2.0)]]) == 1
    assert matrix.lookup(["item:a", "item:b"]).matrix[:, 0].tolist() == [5.0, 2.0]


def test_misses_are_read_in_one_batch_once_and_absent_ones_not_again_for_a_while():
    now = [0.0]
    store = Store(row("item:a", 3.0))
    matrix = matrix_of(store, now)
    for _ in range(3):
        assert matrix.lookup(["item:a", "item:x", "item:y"]).matrix[:, 0].tolist() == [3.0, 0.0, 0.0]
    assert store.reads == [["item:a", "item:x", "item:y"]]
    now[0] = 60.0
    matrix.lookup(["item:x"])
    assert store.reads[1:] == [["item:x"]]


def test_a_late_answer_is_not_waited_for_but_kept():
    store = Store(row("item:a", 3.0))
    store.gate.clear()
    matrix = VectorMatrix(DIM, store, 0.01, version=1)
    assert not matrix.lookup(["item:a"]).found[0]
    assert matrix.counts.reads_late == 1
    matrix.lookup(["item:z"])
    assert (len(store.reads), matrix.counts.reads_skipped) == (1, 1)
    store.gate.set()
    matrix._pool.shutdown()
    assert matrix.lookup(["item:a"]).found[0]


def test_a_store_that_is_down_costs_one_try_a_while_and_never_an_answer():
    now = [0.0]
    store = Store(row("item:a"))
    store.error = UnavailableError("no answer", wanted="one", todo="wait")
    matrix = matrix_of(store, now)
    for n in range(5):
        assert not matrix.lookup([f"item:{n}"]).found[0]
    assert (len(store.reads), matrix.counts.reads_failed, matrix.counts.defaults) == (1, 1, 5)
    store.error = None
    now[0] = 2.0
    assert matrix.lookup(["item:a"]).found[0]


def test_a_removed_subject_is_not_brought_back_by_a_read_under_way():
    store = Store(row("item:a"))
    store.gate.clear()
    matrix = VectorMatrix(DIM, store, 0.01, version=1)
    matrix.lookup(["item:a"])
    matrix.drop("item:a")
    store.gate.set()
    matrix._pool.shutdown()
    assert len(matrix) == 0


def test_readers_see_whole_rows_while_one_thread_writes():
    matrix = VectorMatrix(64, None, version=1)
    subjects = [f"item:{n}" for n in range(50)]
    stop = threading.Event()
    torn = []

    def read():
        while not stop.is_set():
            found = matrix.lookup(subjects).matrix
            torn.extend(found[(found != found[:, :1]).any(axis=1)])

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for update in range(1, 200):
        for subject in subjects:
            raw = np.full(64, update, np.float32).tobytes()
            matrix.apply(
                AugmentedVector(subject=subject, vector=raw, version=1, tier="attributes", as_of_ms=update, trigger_ms=0)
            )
    stop.set()
    for reader in readers:
        reader.join()
    assert torn == []


def test_a_matrix_that_is_closed_while_a_request_is_under_way_still_answers():
    store = Store(row("item:a"))
    matrix = matrix_of(store)
    matrix._pool.shutdown()
    for n in range(5):
        assert not matrix.lookup([f"item:{n}"]).found[0]
    matrix.close()
    assert not matrix.lookup(["item:a"]).found[0]
    assert store.reads == []
