"""Encode and augment: what supersedes is written, what stands is repeated, what is older is dropped; in any order, any number of times."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import UnavailableError, VectorError
from contracts.ports import Matrix, VectorRow
from contracts.records import AugmentedVector, EncodedKnowledge, Knowledge, Tier
from hein.augmenting import Augmenting, augmented_collection
from hein.documents import MAX_SUMMARY_CHARS, MAX_VERSIONS, Document, Version, read_document
from hein.encoding import Encoding
from hein.network import HEIN, HeinConfig
from hein.stores.memory import MemoryVectorStore
from hein.stores.rows import MAX_DOCUMENT_BYTES
from hein.text import knowledge_text

DIM = 6


class FakeEncoder:
    """A vector from the text's hash; counts what it was asked."""

    dim = DIM

    def __init__(self, name: str = "fake/1") -> None:
        self.name = name
        self.asked: list[str] = []

    def encode(self, texts: Sequence[str]) -> Matrix:
        self.asked += texts
        digests = [hashlib.sha256(f"{self.name}{text}".encode()).digest()[:DIM] for text in texts]
        vectors = np.array([list(digest) for digest in digests], dtype=np.float32).reshape(-1, DIM) + 1
        unit: Matrix = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        return unit


def knowledge(
    subject: str = "item:1", tier: Tier = "individual", as_of_ms: int = 1, source_hash: str = "", text: str = "", **factors: str
) -> Knowledge:
    return Knowledge(
        subject=subject,
        factors=factors,
        summary=text or f"{subject} {tier} {as_of_ms} {source_hash}",
        tier=tier,
        backend="fake",
        scenario="news",
        prompt_version="1",
        model="m",
        as_of_ms=as_of_ms,
        trigger_ms=5,
        source_hash=source_hash,
    )


def hein(d_text: int = DIM) -> HEIN:
    torch.manual_seed(0)
    return HEIN(HeinConfig(d_text=d_text, d_hidden=4, d_aug=3))


@pytest.fixture
def store() -> MemoryVectorStore:
    return MemoryVectorStore(DIM)


@pytest.fixture
def encoder() -> FakeEncoder:
    return FakeEncoder()


def test_knowledge_is_encoded_written_and_returned(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    record = knowledge(text="a farce", tone="dry")
    (out,) = Encoding(encoder, store).encode_many([record])
    row = store.fetch(["item:1"])["item:1"]
    assert np.frombuffer(out.vector, "<f4").tolist() == row.vector.tolist() == encoder.encode(["a farce\ntone: dry"])[0].tolist()
    assert (out.encoder, out.tier, out.as_of_ms, out.trigger_ms) == ("fake/1", "individual", 1, 5)
    assert msgspec.json.decode(row.document, type=Knowledge) == record


def test_a_redelivery_is_returned_again_without_encoding(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    first = Encoding(encoder, store).encode_many([knowledge()])
    again = Encoding(encoder, store)
    assert again.encode_many([knowledge(), knowledge()]) == first
    assert (again.n_encoded, again.n_reused, again.n_stale) == (0, 1, 1)


def test_the_same_text_under_a_newer_date_reuses_its_vector(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    stage.encode_many([knowledge(text="same", as_of_ms=1)])
    (out,) = stage.encode_many([knowledge(text="same", as_of_ms=2)])
    assert (encoder.asked, out.as_of_ms, store.fetch(["item:1"])["item:1"].as_of_ms) == (["same"], 2, 2)


def test_older_and_worse_knowledge_is_dropped(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    stage.encode_many([knowledge(as_of_ms=5)])
    assert stage.encode_many([knowledge(as_of_ms=4), knowledge(tier="attributes", as_of_ms=9)]) == []
    assert stage.n_stale == 2


def test_changed_content_wins_whatever_its_tier_through_both_stages(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    encoding, augmenting = Encoding(encoder, store), Augmenting(hein(), 1, MemoryVectorStore(3))
    augmenting.augment_many(encoding.encode_many([knowledge(source_hash="old", as_of_ms=1)]))
    (out,) = augmenting.augment_many(encoding.encode_many([knowledge(source_hash="new", tier="attributes", as_of_ms=2)]))
    assert (out.tier, out.as_of_ms) == ("attributes", 2)


def test_another_answer_to_the_same_request_does_not_replace_the_first(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    first = stage.encode_many([knowledge(text="one")])
    assert stage.encode_many([knowledge(text="two")]) == first
    assert encoder.asked == ["one"]


def test_rows_of_another_encoder_are_encoded_again(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    (old,) = Encoding(encoder, store).encode_many([knowledge()])
    (new,) = Encoding(FakeEncoder("fake/2"), store).encode_many([knowledge()])
    assert new.encoder == "fake/2"
    assert new.vector != old.vector
    assert store.fetch(["item:1"])["item:1"].vector.tobytes() == new.vector


def test_the_order_of_the_records_is_kept_and_one_per_subject_returned(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    records = [knowledge("user:b"), knowledge("item:a"), knowledge("user:b", as_of_ms=2), knowledge("item:c")]
    out = Encoding(encoder, store).encode_many(records)
    assert [(record.subject, record.as_of_ms) for record in out] == [("item:a", 1), ("user:b", 2), ("item:c", 1)]


def test_a_document_too_long_for_its_row_is_cut_and_counted_but_encoded_whole(
    store: MemoryVectorStore, encoder: FakeEncoder
) -> None:
    record = knowledge(text="s", **{f"f{n}": "é" * 2000 for n in range(30)})
    stage = Encoding(encoder, store)
    stage.encode_many([record])
    assert encoder.asked == [knowledge_text(record)]
    kept = msgspec.json.decode(store.fetch(["item:1"])["item:1"].document, type=Knowledge)
    assert kept.factors.keys() == record.factors.keys()
    assert stage.n_cut == 1
    assert stage.encode_many([record])[0].subject == "item:1"


def test_forgotten_subjects_are_gone_and_may_come_back(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    stage.encode_many([knowledge(as_of_ms=5)])
    stage.forget(["item:1", "item:none"])
    assert store.count() == 0
    assert len(stage.encode_many([knowledge(as_of_ms=4)])) == 1


class DownOnce(MemoryVectorStore):
    """Refuses the first write."""

    is_down = True

    def upsert(self, rows: Sequence[VectorRow]) -> None:
        if self.is_down:
            self.is_down = False
            raise UnavailableError("no answer", wanted="one", todo="try again")
        super().upsert(rows)


def test_a_store_that_was_down_loses_nothing_when_the_batch_is_done_again(encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, DownOnce(DIM))
    with pytest.raises(UnavailableError):
        stage.encode_many([knowledge()])
    assert [out.subject for out in stage.encode_many([knowledge()])] == ["item:1"]


# --- what stood before ---


def document(store: MemoryVectorStore, subject: str = "item:1") -> Document:
    return read_document(store.fetch([subject])[subject].document)


def stood(store: MemoryVectorStore, subject: str = "item:1") -> list[tuple[str, int]]:
    return [(version.tier, version.as_of_ms) for version in document(store, subject).versions]


def test_what_stood_before_is_kept_without_its_factors(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    first = knowledge(tier="attributes", text="s" * 300, tone="dry")
    stage.encode_many([first])
    assert stood(store) == []
    paid = msgspec.structs.replace(knowledge(as_of_ms=2), model="big", prompt_version="news-1/2", tokens_in=300, tokens_out=90)
    stage.encode_many([paid])
    stage.encode_many([knowledge(as_of_ms=3)])
    newest, oldest = document(store).versions
    assert newest == Version(
        tier="individual", as_of_ms=2, trigger_ms=5, model="big", prompt_version="news-1/2", tokens_in=300, tokens_out=90,
        summary=paid.summary,
    )  # fmt: skip
    assert (oldest.tier, oldest.summary, oldest.tokens_in) == ("attributes", "s" * MAX_SUMMARY_CHARS, None)
    assert msgspec.json.decode(store.fetch(["item:1"])["item:1"].document, type=Knowledge) == knowledge(as_of_ms=3)


def test_what_never_stood_or_comes_again_is_no_version(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    for as_of_ms in (5, 5, 3, 6, 5, 6):
        stage.encode_many([knowledge(as_of_ms=as_of_ms)])
    assert stood(store) == [("individual", 5)]
    stage.encode_many([knowledge(tier="attributes", as_of_ms=9)])
    Encoding(FakeEncoder("fake/2"), store).encode_many([knowledge(as_of_ms=6)])  # encoded again, the same knowledge
    assert stood(store) == [("individual", 5)]


def test_the_last_ten_versions_stay(store: MemoryVectorStore, encoder: FakeEncoder) -> None:
    stage = Encoding(encoder, store)
    for as_of_ms in range(20):
        stage.encode_many([knowledge(as_of_ms=as_of_ms)])
    assert stood(store) == [("individual", 18 - n) for n in range(MAX_VERSIONS)]


def test_where_the_row_is_full_the_oldest_versions_go_and_the_factors_stay_whole(
    store: MemoryVectorStore, encoder: FakeEncoder
) -> None:
    stage = Encoding(encoder, store)
    for as_of_ms in range(1, 6):
        stage.encode_many([knowledge(as_of_ms=as_of_ms, text="s" * 200)])
    factors = {f"f{n:02}": "x" * 1_999 for n in range(32)}
    room = MAX_DOCUMENT_BYTES - len(msgspec.json.encode(knowledge(as_of_ms=6, text="s", rest="", **factors)))
    full = knowledge(as_of_ms=6, text="s", rest="x" * (room - 900), **factors)  # two or three versions fit into 900 bytes
    stage.encode_many([full])
    kept = document(store)
    assert kept.factors == full.factors
    assert stage.n_cut == 0
    assert stood(store) in ([("individual", 5), ("individual", 4)], [("individual", 5), ("individual", 4), ("individual", 3)])


@pytest.mark.parametrize("old", [msgspec.json.encode(knowledge()).decode(), "", "{", '{"versions": [3]}'])
def test_rows_without_versions_or_with_damaged_ones_go_on(store: MemoryVectorStore, encoder: FakeEncoder, old: str) -> None:
    vector = np.ones(DIM, dtype=np.float32)
    store.upsert([VectorRow(subject="item:1", vector=vector, tier="individual", as_of_ms=1, trigger_ms=5, document=old)])
    Encoding(encoder, store).encode_many([knowledge(as_of_ms=2)])
    assert stood(store) == [("individual", 1)]


# --- augment ---


def encoded(subject: str = "item:1", as_of_ms: int = 1, tier: Tier = "individual") -> EncodedKnowledge:
    return Encoding(FakeEncoder(), MemoryVectorStore(DIM)).encode_many([knowledge(subject, tier, as_of_ms)])[0]


def test_each_stream_goes_through_its_own_experts(encoder: FakeEncoder) -> None:
    network, store = hein(), MemoryVectorStore(3)
    records = [encoded("user:1"), encoded("item:1"), encoded("user:2")]
    out = Augmenting(network, 4, store).augment_many(records)
    for record, augmented in zip(records, out, strict=True):
        x = torch.from_numpy(np.frombuffer(record.vector, "<f4").copy())[None]
        wanted = network(x, "user" if record.subject.startswith("user") else "item")[0]
        torch.testing.assert_close(torch.frombuffer(bytearray(augmented.vector), dtype=torch.float32), wanted)
        assert store.fetch([record.subject])[record.subject].vector.tobytes() == augmented.vector
        assert augmented.version == 4


def test_an_augmented_redelivery_is_returned_again_and_older_ones_dropped() -> None:
    stage = Augmenting(hein(), 1, MemoryVectorStore(3))
    first = stage.augment_many([encoded(as_of_ms=5)])
    assert stage.augment_many([encoded(as_of_ms=5), encoded(as_of_ms=4)]) == first
    assert (stage.n_augmented, stage.n_reused, stage.n_stale) == (1, 1, 1)


def test_a_vector_of_another_encoder_is_refused_before_anything_is_written() -> None:
    store = MemoryVectorStore(3)
    bad = msgspec.structs.replace(encoded("item:2"), vector=b"\0" * 7)
    with pytest.raises(VectorError, match="wanted 6 float32"):
        Augmenting(hein(), 1, store).augment_many([encoded("item:1"), bad])
    assert store.count() == 0


def test_clusters_have_no_stream_and_are_counted() -> None:
    stage = Augmenting(hein(), 1, MemoryVectorStore(3))
    assert stage.augment_many([encoded("cluster:1")]) == []
    assert stage.n_without_stream == 1


def test_a_backfill_gives_every_subject_its_row_and_agrees_with_the_live_path() -> None:
    knowledge_store, live, late = MemoryVectorStore(DIM), MemoryVectorStore(3), MemoryVectorStore(3)
    records = Encoding(FakeEncoder(), knowledge_store).encode_many([knowledge(f"item:{n}") for n in range(25)])
    wanted = Augmenting(hein(), 2, live).augment_many(records)
    batches = list(Augmenting(hein(), 2, late).backfill(knowledge_store, batch=10))
    assert [len(batch) for batch in batches] == [10, 10, 5]
    assert contents(late) == contents(live)
    assert {out.subject for batch in batches for out in batch} == {out.subject for out in wanted}


def test_the_network_is_frozen_and_out_of_training_here() -> None:
    network = hein().train()
    Augmenting(network, 1, MemoryVectorStore(3))
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def test_a_collection_belongs_to_a_version() -> None:
    assert augmented_collection("p_", 3) == "p_augmented_v3"


# --- idempotence: any order, any repetition ---


def contents(store: MemoryVectorStore) -> dict[str, tuple[object, ...]]:
    """What stands; what stood before depends on the order in which it came, and has its own test below."""
    made = msgspec.json.Decoder(Knowledge)
    return {
        row.subject: (
            row.tier,
            row.as_of_ms,
            row.source_hash,
            row.text_hash,
            row.document and made.decode(row.document),
            np.round(row.vector, 5).tolist(),
        )
        for batch in store.scan()
        for row in batch
    }


# A user's knowledge, or an item's of one content: tier and time order it. Changed contents have their own test below: they are
# ordered by time, and within one content by tier.
world = [
    knowledge(subject, tier, at) for subject in ("item:1", "user:1") for tier in ("attributes", "individual") for at in (1, 2)
]
changes = [knowledge("item:2", tier, at, content) for content, at in (("x", 1), ("y", 2), ("z", 3)) for tier in ("attributes", "individual")]  # fmt: skip


@st.composite
def deliveries(draw: st.DrawFn) -> list[list[Knowledge]]:
    """The same records, each at least once, in any order, cut into batches anywhere."""
    records = [*world, *changes]
    order = draw(st.permutations(records)) + draw(st.lists(st.sampled_from(records), max_size=8))
    cuts = sorted(draw(st.lists(st.integers(0, len(order)), max_size=5)))
    return [list(order[start:end]) for start, end in zip([0, *cuts], [*cuts, len(order)], strict=True)]


def run(batches: list[list[Knowledge]]) -> tuple[MemoryVectorStore, MemoryVectorStore, dict[str, AugmentedVector]]:
    knowledge_store, augmented_store = MemoryVectorStore(DIM), MemoryVectorStore(3)
    encoding, augmenting = Encoding(FakeEncoder(), knowledge_store), Augmenting(hein(), 1, augmented_store)
    changelog: dict[str, AugmentedVector] = {}
    for batch in batches:
        changelog |= {out.subject: out for out in augmenting.augment_many(encoding.encode_many(batch))}
    return knowledge_store, augmented_store, changelog


@settings(deadline=None, max_examples=60)
@given(batches=deliveries())
def test_any_order_with_any_repetition_ends_in_the_same_stores_and_changelog(batches: list[list[Knowledge]]) -> None:
    wanted, wanted_augmented, _ = run([[*world, *changes]])
    got, got_augmented, changelog = run(batches)
    assert contents(got) == contents(wanted)
    assert contents(got_augmented) == contents(wanted_augmented)
    last = {subject: (out.tier, out.as_of_ms) for subject, out in changelog.items()}
    assert last == {subject: (row.tier, row.as_of_ms) for subject, row in got.fetch(list(last)).items()}


@settings(deadline=None, max_examples=60)
@given(batches=deliveries())
def test_the_versions_do_not_depend_on_how_records_are_cut_into_batches(batches: list[list[Knowledge]]) -> None:
    one_by_one, _, _ = run([[record] for batch in batches for record in batch])
    got, _, _ = run(batches)
    for subject in ("item:1", "user:1", "item:2"):
        assert document(got, subject) == document(one_by_one, subject)
