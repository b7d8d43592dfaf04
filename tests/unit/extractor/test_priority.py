"""Who goes first: three bands that never touch, and within each traffic and staleness count."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extractor.priority import CLUSTERS_ABOVE, HALF_LIFE_MS, item_priority, traffic_after, traffic_at, user_priority

traffics = st.floats(0, 1e9)


@given(st.integers(-(10**12), 10**13), traffics, traffics, st.floats(0, 1))
def test_users_stay_below_items_and_items_below_clusters(age_ms, of_item, of_user, staleness):
    assert 0 <= user_priority(of_user, staleness) <= 99
    assert 100 <= item_priority(age_ms, of_item) <= CLUSTERS_ABOVE


def test_traffic_and_staleness_are_multiplied():
    assert user_priority(4.0, 0.5) == user_priority(2.0, 1.0) < user_priority(4.0, 1.0)
    assert user_priority(1_000.0, 0.0) == 0


def test_an_item_nobody_met_goes_by_its_age_and_traffic_brings_an_older_one_forward():
    hour_ms = 3_600_000
    assert [item_priority(n * hour_ms, 0.0) for n in (0, 1, 3)] == [200, 150, 125]
    assert item_priority(3 * hour_ms, 100.0) > item_priority(hour_ms, 0.0)


def test_an_interaction_loses_half_of_its_weight_in_a_day():
    traffic, at_ms = traffic_after(0.0, 0, 1_000)
    assert traffic_after(traffic, at_ms, 1_000 + HALF_LIFE_MS) == (1.5, 1_000 + HALF_LIFE_MS)
    assert traffic_after(traffic, at_ms, 1_000 - HALF_LIFE_MS) == (1.5, 1_000)
    assert [traffic_at(traffic, at_ms, 1_000 + n * HALF_LIFE_MS) for n in (-1, 0, 1, 2)] == [1.0, 1.0, 0.5, 0.25]


@given(st.lists(st.integers(0, 10 * HALF_LIFE_MS), min_size=1, max_size=20))
def test_the_order_of_events_makes_no_difference(times):
    def all_of(ordered):
        traffic, at_ms = 0.0, 0
        for time_ms in ordered:
            traffic, at_ms = traffic_after(traffic, at_ms, time_ms)
        return traffic, at_ms

    assert all_of(sorted(times)) == pytest.approx(all_of(times))
