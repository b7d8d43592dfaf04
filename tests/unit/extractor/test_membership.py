"""Centres and texts together: who belongs where, and what is said of them."""

import numpy as np
import pytest

from contracts.errors import VectorError
from contracts.records import Cluster, EncodedKnowledge, Knowledge
from extractor.membership import Membership
from extractor.projection import project, space

D_TEXT = 384
PLACES = np.random.default_rng(0).standard_normal((2, D_TEXT)).astype("<f4")


def cluster(number):
    centre = project(PLACES[number : number + 1])[0].astype("<f4").tobytes()
    return Cluster(subject=f"cluster:item-{number}", centre=centre, space=space("e"), n_learnt=1, n_members=1, as_of_ms=1)


def encoded(vector, subject="item:n1", encoder="e"):
    return EncodedKnowledge(
        subject=subject, vector=vector.tobytes(), encoder=encoder, tier="attributes", as_of_ms=1, trigger_ms=1, text_hash="t"
    )


def knowledge(subject, tier, as_of_ms, trigger_ms=1_000):
    return Knowledge(
        subject=subject, factors={"topic": f"about {tier}"}, summary="Said.", tier=tier, backend="b", scenario="news",
        prompt_version="1", model="m", as_of_ms=as_of_ms, trigger_ms=trigger_ms,
    )  # fmt: skip


@pytest.fixture
def membership():
    membership = Membership()
    for number in (0, 1):
        membership.moved(cluster(number))
    return membership


def test_a_subject_belongs_to_the_cluster_nearest_to_it_in_its_own_space(membership):
    assert [membership.nearest(encoded(PLACES[number])) for number in (0, 1)] == ["cluster:item-0", "cluster:item-1"]
    assert membership.nearest(encoded(np.zeros_like(PLACES[0]))) == ""


def test_where_no_cluster_of_a_kind_or_space_is_known_yet_nobody_can_say(membership):
    assert membership.nearest(encoded(PLACES[0], encoder="other")) is None
    assert membership.nearest(encoded(PLACES[0], subject="user:u1")) is None


def test_whoever_is_of_a_kind_that_is_not_clustered_belongs_nowhere():
    assert Membership(["item"]).nearest(encoded(PLACES[0], subject="user:u1")) == ""


def test_a_cluster_that_is_gone_has_neither_members_nor_a_text(membership):
    membership.said("cluster:item-0", knowledge("cluster:item-0", "collective", 5))
    membership.removed("cluster:item-0")
    assert membership.nearest(encoded(PLACES[0])) == "cluster:item-1"
    assert membership.member_knowledge(knowledge("item:n1", "attributes", 1), "cluster:item-0") is None


def test_what_was_withdrawn_is_said_no_more(membership):
    membership.said("cluster:item-0", knowledge("cluster:item-0", "collective", 5))
    assert membership.member_knowledge(knowledge("item:n1", "attributes", 1), "cluster:item-0").tier == "collective"
    membership.said("cluster:item-0", None)
    assert membership.member_knowledge(knowledge("item:n1", "attributes", 1), "cluster:item-0") is None


def test_a_vector_that_is_none_is_refused(membership):
    with pytest.raises(VectorError):
        membership.nearest(encoded(np.full(D_TEXT, np.nan, dtype="<f4")))


def test_an_items_text_of_a_later_answer_is_newer_but_never_newer_than_the_question(membership):
    own = knowledge("item:n1", "attributes", 10)
    dates = []
    for as_of_ms in (5, 20, 21, 9_000):
        membership.said("cluster:item-0", knowledge("cluster:item-0", "collective", as_of_ms, trigger_ms=500))
        dates.append(membership.member_knowledge(own, "cluster:item-0").as_of_ms)
    assert dates == [10, 20, 21, 500]
