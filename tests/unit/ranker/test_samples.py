from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.errors import DatasetError, VectorError
from contracts.records import EncodedKnowledge, InteractionEvent, ItemEvent
from ranker.features import DISLIKED, LIKED, FeatureConfig, hash_id
from ranker.samples import SampleLog

CONFIG = FeatureConfig(user_buckets=100, item_buckets=100, attribute_buckets=20, history=3, n_attributes=2, d_embedding=8)


def did(user: str, item: str, at: int, action="click") -> InteractionEvent:
    return InteractionEvent(user=user, item=item, action=action, event_ms=at)


def knows(subject: str, at: int, number: float, tier="individual", encoder="toy", *, source="") -> EncodedKnowledge:
    vector = np.full(3, number, "<f4").tobytes()
    return EncodedKnowledge(
        subject=subject, vector=vector, encoder=encoder, tier=tier, as_of_ms=at, trigger_ms=0, text_hash="", source_hash=source
    )


def log_of(*events, **bounds: int) -> SampleLog:
    log = SampleLog(**bounds)
    for event in events:
        match event:
            case ItemEvent():
                log.add_item(event)
            case InteractionEvent():
                log.add_interaction(event)
            case EncodedKnowledge():
                log.add_encoding(event)
    return log


def histories(samples) -> list[list[tuple[int, int]]]:
    """(item bucket, liked) of each sample's history, padding left out."""
    buckets = samples.items.item.numpy()[samples.history]
    return [
        [(int(b), int(code)) for b, code in zip(row, codes, strict=True) if code]
        for row, codes in zip(buckets, samples.history_liked, strict=True)
    ]


def bucket(item: str) -> int:
    return hash_id(item, CONFIG.item_buckets)


def knowledge(samples, rows) -> list[float]:
    return samples.matrix[rows].max(axis=1, initial=0).tolist()


def test_history_is_what_came_strictly_before_with_what_was_said_of_it() -> None:
    samples = log_of(
        did("u", "c", 30, "skip"), did("u", "a", 10), did("u", "b", 20, "view"), did("v", "z", 15), did("u", "d", 30)
    ).build(CONFIG)
    assert samples.event_ms.tolist() == [10, 15, 30, 30]
    assert samples.label.tolist() == [1, 1, 0, 1]
    before = [(bucket("a"), LIKED)]  # a mere view is no history, as in serving
    assert histories(samples) == [[], [], before, before]


def test_history_keeps_the_latest() -> None:
    samples = log_of(*(did("u", f"i{n}", n, "dislike") for n in range(6))).build(CONFIG)
    assert histories(samples)[5] == [(bucket(f"i{n}"), DISLIKED) for n in (2, 3, 4)]


def test_a_redelivered_log_in_another_order_gives_the_same_samples() -> None:
    events = [did("u", "a", 1), did("v", "a", 2, "skip"), did("u", "b", 3), knows("user:u", 2, 0.5), knows("item:a", 1, 0.25)]
    one, two = log_of(*events).build(CONFIG), log_of(*reversed(events), *events).build(CONFIG)
    assert len(one) == len(two) == 3
    assert histories(one) == histories(two)
    assert np.array_equal(one.user, two.user)
    assert knowledge(one, one.user_rows) == knowledge(two, two.user_rows) == [0, 0, 0.5]


def test_user_knowledge_must_be_older_than_the_event_and_item_knowledge_may_be_as_old() -> None:
    samples = log_of(
        did("u", "a", 10),
        did("u", "a", 11),
        did("u", "a", 30),
        knows("user:u", 10, 1),
        knows("user:u", 20, 2),
        knows("item:a", 11, 3),
        knows("user:a", 0, 9),
    ).build(CONFIG)
    assert knowledge(samples, samples.user_rows) == [0, 1, 2]
    assert knowledge(samples, samples.item_rows) == [0, 3, 3]
    assert samples.user_rows[0] == 0


def test_the_better_tier_stands_as_it_does_in_the_store() -> None:
    samples = log_of(did("u", "a", 30), knows("user:u", 10, 1), knows("user:u", 20, 2, "attributes")).build(CONFIG)
    assert knowledge(samples, samples.user_rows) == [1]


def test_knowledge_of_an_items_newer_content_stands_whatever_its_tier() -> None:
    samples = log_of(
        did("u", "a", 15),
        did("u", "a", 30),
        knows("item:a", 10, 1, source="old"),
        knows("item:a", 20, 2, "attributes", source="new"),
    ).build(CONFIG)
    assert knowledge(samples, samples.item_rows) == [1, 2]


def test_only_one_encoder_is_read() -> None:
    log = log_of(did("u", "a", 30), knows("user:u", 20, 1, encoder="old"), knows("user:u", 10, 2, encoder="new"))
    assert knowledge(log.build(CONFIG), log.build(CONFIG).user_rows) == [2]
    assert log.encoder_used == "new"
    assert SampleLog().encoder_used == ""


def test_items_are_read_with_their_last_attributes_and_unknown_ones_without() -> None:
    old = ItemEvent(item="a", published_ms=0, title="t", attributes={"section": ("x",)})
    new = ItemEvent(item="a", published_ms=1, title="t", attributes={"section": ("y", "z")})
    gone = ItemEvent(item="a", published_ms=2, removed=True)
    samples = log_of(old, new, gone, did("u", "a", 3), did("u", "b", 4)).build(CONFIG)
    batch = samples.batch(slice(None))
    of_items = batch.features.attributes[batch.features.item]
    assert of_items.count_nonzero(dim=1).tolist() == [2, 0]
    assert batch.features.attributes[batch.features.history][1, 0].tolist() == of_items[0].tolist()
    assert batch.label.tolist() == [1, 1]


def test_splits_by_time_and_by_user() -> None:
    samples = log_of(*(did(f"u{n % 10}", "a", n) for n in range(100))).build(CONFIG)
    early, late = samples.split(0.2, by="time")
    assert (len(early), len(late)) == (80, 20)
    assert early.event_ms.max() < late.event_ms.min()
    some, others = samples.split(0.2, by="user", seed=1)
    assert (len(some), len(others)) == (80, 20)
    assert not set(some.user_number) & set(others.user_number)


def test_the_log_is_bounded_and_the_oldest_go() -> None:
    log = log_of(
        *(did("u", f"i{n}", n) for n in range(9)), *(knows("user:u", n, n) for n in range(9)), max_interactions=4, max_encodings=2
    )
    samples = log.build(CONFIG)
    assert samples.event_ms.tolist() == [5, 6, 7, 8]
    assert samples.matrix[:, 0].tolist() == [0, 7, 8]


def test_no_labels_and_broken_vectors_are_named() -> None:
    with pytest.raises(DatasetError, match="no interaction with a label"):
        log_of(did("u", "a", 1, "view")).build(CONFIG)
    with pytest.raises(DatasetError, match="no interaction with a label"):
        log_of().build(CONFIG)
    with pytest.raises(VectorError, match="user:u"):
        log_of(did("u", "a", 1), knows("user:u", 0, float("nan"))).build(CONFIG)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("uvw"), st.sampled_from("abcde"), st.integers(0, 12)), min_size=1, max_size=30),
    st.lists(st.tuples(st.sampled_from(["user:u", "user:v", "item:a", "item:b"]), st.integers(0, 12)), max_size=15, unique=True),
)
def test_samples_are_what_a_slow_reading_of_the_log_gives(interactions, encodings) -> None:
    pieces = {(subject, at): float(n + 1) for n, (subject, at) in enumerate(encodings)}
    events = sorted(dict.fromkeys(interactions), key=lambda row: row[2])
    log = log_of(*(did(*row) for row in interactions), *(knows(s, at, n) for (s, at), n in pieces.items()))
    samples = log.build(CONFIG)

    def standing(subject: str, before: int) -> float:
        return max(((at, n) for (s, at), n in pieces.items() if s == subject and at < before), default=(0, 0.0))[1]

    for row, (user, item, at) in enumerate(events):
        past = [i for u, i, t in events if u == user and t < at][-CONFIG.history :]
        assert histories(samples)[row] == [(bucket(i), LIKED) for i in past]
        assert knowledge(samples, samples.user_rows)[row] == standing(f"user:{user}", at)
        assert knowledge(samples, samples.item_rows)[row] == standing(f"item:{item}", at + 1)
