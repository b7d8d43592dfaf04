"""MAP and NDCG of re-ranked lists against loops that say the definition."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ranker.list_quality import CUTS, ListQuality, list_quality


def slow(labels: list[list[float]], scores: list[list[float]], lengths: list[int], k: int) -> tuple[float, float]:
    precisions, ndcgs = [], []
    for label, score, n in zip(labels, scores, lengths, strict=True):
        order = sorted(range(n), key=lambda place: -score[place])  # stable: the initial order decides
        best = sorted((label[place] for place in range(n)), reverse=True)
        hits, precision, dcg, ideal = 0, 0.0, 0.0, 0.0
        for place in range(min(k, n)):
            dcg += (2 ** label[order[place]] - 1) / math.log2(place + 2)
            ideal += (2 ** best[place] - 1) / math.log2(place + 2)
            if label[order[place]] > 0:
                hits += 1
                precision += hits / (place + 1)
        precisions.append(precision / hits if hits else 0.0)
        ndcgs.append(dcg / ideal if ideal else 0.0)
    return sum(precisions) / len(precisions), sum(ndcgs) / len(ndcgs)


@st.composite
def lists(draw: st.DrawFn) -> tuple[list[list[float]], list[list[float]], list[int]]:
    n_lists, n_places = draw(st.integers(1, 6)), draw(st.integers(1, 9))
    rows = st.lists(st.sampled_from([0.0, 1.0]), min_size=n_places, max_size=n_places)
    few = st.lists(st.sampled_from([-1.5, 0.0, 0.25, 2.0]), min_size=n_places, max_size=n_places)  # few values: many ties
    every = [draw(rows) for _ in range(n_lists)], [draw(few) for _ in range(n_lists)]
    return *every, [draw(st.integers(1, n_places)) for _ in range(n_lists)]


@given(lists())
def test_agrees_with_a_loop(drawn: tuple[list[list[float]], list[list[float]], list[int]]) -> None:
    labels, scores, lengths = drawn
    present = np.arange(len(labels[0])) < np.array(lengths)[:, None]
    found = list_quality(np.array(labels), np.array(scores), present)
    for k in CUTS:
        map_k, ndcg_k = slow(labels, scores, lengths, k)
        assert found.metrics[f"map@{k}"] == pytest.approx(map_k)
        assert found.metrics[f"ndcg@{k}"] == pytest.approx(ndcg_k)


@given(lists())
def test_is_between_zero_and_one_and_best_when_sorted_by_label(
    drawn: tuple[list[list[float]], list[list[float]], list[int]],
) -> None:
    labels, scores, _ = drawn
    label = np.array(labels)
    found, best = list_quality(label, np.array(scores)).metrics, list_quality(label, label).metrics
    share = float((label > 0).any(axis=1).mean())
    for name, value in found.items():
        assert 0 <= value <= best[name] + 1e-12
        assert best[name] == pytest.approx(share)


def test_names_every_cut_and_counts_lists() -> None:
    found = list_quality(np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]]), np.zeros((3, 2)))
    assert found == ListQuality(metrics=found.metrics, n_lists=3, n_without_liked=1)
    assert list(found.metrics) == [f"{name}@{k}" for k in (1, 3, 5, 7) for name in ("map", "ndcg")]


def test_a_list_without_a_liked_item_counts_zero() -> None:
    label, score = np.array([[1.0, 0.0], [0.0, 0.0]]), np.array([[2.0, 1.0], [2.0, 1.0]])
    assert list_quality(label, score).metrics["ndcg@1"] == 0.5
    assert list_quality(label, score).metrics["map@3"] == 0.5


def test_equal_scores_keep_the_initial_order() -> None:
    label = np.array([[0.0, 1.0, 1.0]])
    assert list_quality(label, np.zeros((1, 3))).metrics["map@3"] == pytest.approx((1 / 2 + 2 / 3) / 2)


def test_average_precision_divides_by_the_hits_among_the_first() -> None:
    label, score = np.array([[1.0, 0.0, 1.0, 1.0]]), np.array([[4.0, 3.0, 2.0, 1.0]])
    assert list_quality(label, score).metrics["map@1"] == 1.0
    assert list_quality(label, score).metrics["map@3"] == pytest.approx((1 + 2 / 3) / 2)


def test_what_stands_at_empty_places_does_not_matter() -> None:
    present = np.array([[True, True, False]])
    label, score = np.array([[0.0, 1.0, 1.0]]), np.array([[0.1, 0.9, 5.0]])
    alone = list_quality(label[:, :2], score[:, :2])
    assert list_quality(label, score, present) == alone
    assert list_quality(label, np.array([[0.1, 0.9, -np.inf]]), present) == alone


def test_no_lists_have_no_metrics() -> None:
    assert list_quality(np.zeros((0, 3)), np.zeros((0, 3))) == ListQuality(metrics={}, n_lists=0, n_without_liked=0)
