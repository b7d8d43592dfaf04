"""Drift: liked items that are further from what is known of a user than before, and nothing else."""

import numpy as np
import pytest

from contracts.errors import VectorError
from contracts.records import EncodedKnowledge, InteractionEvent
from contracts.settings import Plan
from extractor.drift import FEWEST_LIKES, MAX_WATCHED, Drift, likes_watch, moved_up

D_TEXT, N_ITEMS = 384, 60
NEAR, FAR = 0, 1  # two topics
DELTA = 0.05


class Reader:
    """Two topics of items, and one user who is known to like the first."""

    def __init__(self, **settings):
        self.drift = Drift(Plan(**{"drift": DELTA, "max_vectors": 10_000} | settings))
        self.rng = np.random.default_rng(5)
        self.topics = self.rng.standard_normal((2, D_TEXT))
        for topic in (NEAR, FAR):
            for number in range(N_ITEMS):
                self.learn(f"item:{topic}-{number}", self.topics[topic] + 0.5 * self.rng.standard_normal(D_TEXT))
        self.know(NEAR)

    def learn(self, subject, vector, encoder="e"):
        self.drift.learn(
            EncodedKnowledge(
                subject=subject, vector=np.asarray(vector, "<f4").tobytes(), encoder=encoder, tier="individual", as_of_ms=0,
                trigger_ms=0, text_hash="",
            )
        )  # fmt: skip

    def know(self, topic, user="u"):
        self.learn(f"user:{user}", self.topics[topic])

    def act(self, topic, n, action="click", user="u"):
        """After which of these interactions drift was found."""
        items = self.rng.integers(0, N_ITEMS, n)
        events = [InteractionEvent(user=user, item=f"{topic}-{item}", action=action, event_ms=0) for item in items]
        return [number for number, event in enumerate(events) if self.drift.observe(event)]


def test_a_new_interest_is_found_within_twenty_likes():
    reader = Reader()
    assert reader.act(NEAR, 20) == []
    found = reader.act(FAR, 40)
    assert found
    assert found[0] < 20


def test_distances_as_films_have_them_are_told_apart_within_thirty_likes_and_noise_is_not():
    """The numbers in the module's docstring, small: standard deviation 0.18, up by 0.3 after 20 likes."""
    rng, n_found, n_false = np.random.default_rng(1), 0, 0
    for _ in range(50):
        watch = likes_watch(DELTA)
        n_false += sum([moved_up(watch, distance) for distance in rng.normal(0.7, 0.18, 20).tolist()])
        n_found += any(moved_up(watch, distance) for distance in rng.normal(1.0, 0.18, 30).tolist())
    assert n_found >= 40
    assert n_false <= 1


def test_a_steady_reader_does_not_drift():
    reader = Reader()
    assert reader.act(NEAR, 500) == []


def test_coming_back_to_what_is_known_is_no_drift():
    reader = Reader()
    assert reader.act(FAR, 20) == []
    assert reader.act(NEAR, 60) == []


@pytest.mark.parametrize("action", ["skip", "dislike", "view"])
def test_what_was_not_liked_says_nothing(action):
    reader = Reader()
    reader.act(NEAR, 20)
    assert reader.act(FAR, 40, action) == []


def test_nothing_is_compared_before_there_are_likes_enough():
    reader = Reader()
    reader.act(NEAR, FEWEST_LIKES // 2)
    assert reader.act(FAR, FEWEST_LIKES // 2) == []


def test_new_knowledge_starts_anew_and_the_same_again_does_not():
    reader = Reader()
    reader.act(NEAR, 20)
    reader.know(NEAR)  # delivered again
    assert reader.act(FAR, 40)
    reader = Reader()
    reader.act(NEAR, 20)
    reader.know(FAR)  # likes of the near topic are far from this from the start on
    assert reader.act(NEAR, 40) == []


def test_users_are_watched_apart():
    reader = Reader()
    reader.know(NEAR, "v")
    reader.act(NEAR, 20)
    assert reader.act(FAR, 40, user="v") == []  # far from the start: no change
    assert reader.act(FAR, 40)


def test_unknown_items_unknown_users_and_clusters_say_nothing():
    reader = Reader()
    reader.learn("cluster:item-1", reader.topics[NEAR])
    assert reader.act(NEAR, 20, user="w") + reader.act(FAR, 40, user="w") == []
    assert reader.act("unheard-of", 40) == []


def test_a_user_or_item_that_is_gone_has_no_place():
    reader = Reader()
    reader.act(NEAR, 20)
    reader.drift.forget("user:u")
    assert reader.act(FAR, 40) == []


def test_forgetting_an_item_leaves_the_user_of_the_same_name():
    reader = Reader()
    reader.act(NEAR, 20)
    reader.drift.forget("item:u")
    assert reader.act(FAR, 40)


def test_vectors_of_another_encoder_are_not_compared():
    reader = Reader()
    reader.act(NEAR, 20)
    reader.learn("item:x", reader.topics[FAR], encoder="another")
    assert reader.act(FAR, 40) == []


def test_places_and_watches_are_bounded():
    reader = Reader(max_vectors=30)
    for number in range(100):
        reader.learn(f"user:{number}", reader.rng.standard_normal(D_TEXT))
    assert len(reader.drift._places) == 30
    assert reader.drift._watches.maxsize == MAX_WATCHED


def test_delta_0_watches_nothing():
    reader = Reader(drift=0)
    assert reader.act(NEAR, 20) + reader.act(FAR, 60) == []
    assert len(reader.drift._places) == 0


def test_a_vector_that_is_no_number_is_refused():
    with pytest.raises(VectorError):
        Reader().learn("item:x", np.full(D_TEXT, np.nan))
