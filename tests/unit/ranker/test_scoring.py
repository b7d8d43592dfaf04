from __future__ import annotations

import msgspec
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from contracts.errors import RankRequestError, UnavailableError
from contracts.records import HistoryItem, InteractionEvent, RankRequest
from ranker.scoring import NotReadyError

ALL = tuple(f"i{n}" for n in range(10))


def request(candidates=ALL, user="u", k=20, event_ms=500, name="r"):
    return RankRequest(request=name, user=user, candidates=candidates, k=k, event_ms=event_ms)


@pytest.fixture
def scorer(ranker):
    ranker.holder.install(ranker.bundle())
    return ranker.scorer


def test_the_k_best_come_first_each_candidate_once_under_the_requests_id(scorer):
    ranking = scorer.rank(request((*ALL, *ALL), k=4))
    scores = [one.score for one in scorer.rank(request()).items]
    assert [one.score for one in ranking.items] == scores[:4]
    assert scores == sorted(scores, reverse=True)
    assert len({one.item for one in ranking.items}) == 4
    assert (ranking.ranking, ranking.version, ranking.step) == ("r", 1, 0)
    again = scorer.rank(request((*ALL, *ALL), k=4))
    assert msgspec.structs.replace(again, took_ms=0.0) == msgspec.structs.replace(ranking, took_ms=0.0)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(ALL))
def test_the_order_of_candidates_does_not_show_even_in_ties(ranker, order):
    bundle = ranker.bundle()
    for parameter in bundle.crm.parameters():
        parameter.zero_()
    ranker.holder.install(bundle)
    assert [one.item for one in ranker.scorer.rank(request(tuple(order))).items] == list(ALL)


def test_what_is_unknown_is_ranked_and_flagged(scorer):
    ranking = scorer.rank(request(("i1", "i8", "never seen"), user="stranger"))
    by_item = {one.item: one for one in ranking.items}
    assert (ranking.unknown_user, ranking.user_default_vector, ranking.user_tier, ranking.snapshot.user_vector) == (
        True,
        True,
        None,
        None,
    )
    assert [(by_item[i].default_vector, by_item[i].unknown_item) for i in ("i1", "i8", "never seen")] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    assert (by_item["i1"].tier, by_item["i1"].knowledge_age_ms) == ("individual", 400)
    assert (by_item["i8"].tier, by_item["i8"].knowledge_age_ms) == (None, None)
    assert (scorer.counts.default_user_vectors, scorer.counts.default_item_vectors, scorer.counts.unknown_items) == (1, 2, 1)


def test_the_snapshot_holds_what_the_model_saw_and_nothing_later(scorer):
    scorer.histories.learn_many([InteractionEvent(user="u", item="i9", action="click", event_ms=500)])
    snapshot = scorer.rank(request(event_ms=400)).snapshot
    assert snapshot.history == (HistoryItem(item="i1", liked=True), HistoryItem(item="i2", liked=False))
    vector = scorer.holder.current.vectors.lookup(["user:u"]).matrix[0]
    assert snapshot.user_vector == vector.tobytes()


@pytest.mark.parametrize(("event_ms", "leaks"), [(99, True), (100, True), (101, False)])
def test_a_users_vector_that_is_not_older_than_the_request_is_as_good_as_none(ranker, scorer, event_ms, leaks):
    ranking = scorer.rank(request(event_ms=event_ms))
    assert (ranking.user_default_vector, scorer.counts.default_user_vectors) == (leaks, int(leaks))
    assert (ranking.user_tier, ranking.user_knowledge_age_ms) == ((None, None) if leaks else ("individual", 1))
    assert (ranking.snapshot.user_vector is None) == leaks
    assert not any(one.default_vector for one in ranking.items if one.item in {f"i{n}" for n in range(8)})
    explained = {one.item: one.score for one in scorer.explain("u", ALL, event_ms)}
    ranker.holder.current.vectors.drop("user:u")
    without = {one.item: one.score for one in scorer.rank(request(event_ms=event_ms)).items}
    assert (explained == without) == leaks


@pytest.mark.parametrize("n", [0, 21])
def test_too_few_or_too_many_candidates_are_refused_with_what_was_wanted(scorer, n):
    with pytest.raises(RankRequestError, match=f"got {n} candidates; wanted 1 to 20"):
        scorer.rank(request(tuple(f"i{m}" for m in range(n))))


def test_before_the_first_version_the_answer_is_try_again(ranker):
    with pytest.raises(NotReadyError) as caught:
        ranker.scorer.rank(request())
    assert isinstance(caught.value, UnavailableError)
    assert caught.value.retriable


def test_scores_are_those_of_the_model(ranker, scorer):
    ranking = scorer.rank(request(("i1", "i2", "i9")))
    bundle = ranker.holder.current
    from ranker.features import rank_features

    names = [one.item for one in ranking.items]
    config = bundle.crm.config.features
    features = rank_features("u", ranker.histories.of("u"), names, ranker.catalogue.lookup_for(config), config)
    found = torch.from_numpy(bundle.vectors.lookup(["user:u", *(f"item:{name}" for name in names)]).matrix)
    expected = torch.sigmoid(bundle.crm(features, found[:1], found[1:]))
    torch.testing.assert_close(torch.tensor([one.score for one in ranking.items]), expected)


def test_an_explanation_says_what_knowledge_moved_and_which_history_counted(ranker, scorer):
    explained = scorer.explain("u", ALL, 500)
    ranking = scorer.rank(request())
    assert [(one.item, one.score) for one in explained] == [(one.item, one.score) for one in ranking.items]
    assert [one.place for one in explained] == list(range(1, 11))
    assert sorted(one.place_without for one in explained) == list(range(1, 11))
    assert any(one.place != one.place_without for one in explained)
    without = sorted(explained, key=lambda one: one.place_without)
    assert [one.score_without for one in without] == sorted((one.score_without for one in explained), reverse=True)
    for one in explained:
        assert {read.item for read in one.history} == {"i1", "i2", "i3"}
        weights = [abs(read.weight) for read in one.history]
        assert weights == sorted(weights, reverse=True)
        assert any(weights)
    assert [one.default_vector for one in sorted(explained, key=lambda one: one.item)] == [False] * 8 + [True] * 2


def test_a_model_without_knowledge_reads_no_vectors_and_says_so(ranker):
    ranker.holder.install(ranker.bundle(d_aug=0))
    ranking = ranker.scorer.rank(request())
    assert all(one.default_vector and one.tier is None for one in ranking.items)
    assert (ranking.user_default_vector, ranking.snapshot.user_vector) == (True, None)
    assert ranker.holder.current.vectors.counts.lookups == 0
    assert [one.place == one.place_without for one in ranker.scorer.explain("u", ALL, 500)] == [True] * 10
