from itertools import pairwise

import numpy as np
import pytest

from contracts.errors import DatasetError
from contracts.records import InteractionEvent
from streams.datasets.news import NewsSample
from streams.simulation.openloop import open_loop
from streams.simulation.readers import DAY_MS, Readers, Visit


@pytest.fixture(scope="module")
def sample():
    return NewsSample(n_readers=20)


def test_equal_seeds_give_equal_visits_and_reactions(sample):
    one, two = sample.readers(), sample.readers()
    visits = list(one.visits())
    assert visits == list(two.visits())
    shown = [item.item for item in sample.items[:10]]
    assert [one.react(v, shown, "r") for v in visits[:30]] == [two.react(v, shown, "r") for v in visits[:30]]


def test_a_reaction_does_not_depend_on_the_order_of_calls(sample):
    shown = [item.item for item in sample.items[:10]]
    one, two = sample.readers(), sample.readers()
    visits = list(one.visits())[:30]
    forwards = {visit: one.react(visit, shown) for visit in visits}
    assert forwards == {visit: two.react(visit, shown) for visit in reversed(visits)}


def test_other_seeds_give_other_readers(sample):
    assert list(sample.readers().visits()) != list(NewsSample(n_readers=20, seed=8).readers().visits())


def test_visits_are_in_order_numbered_and_follow_the_day(sample):
    readers = sample.readers()
    visits = list(readers.visits())
    assert all(a.event_ms <= b.event_ms for a, b in pairwise(visits))
    assert [v.number for v in visits if v.user == visits[0].user][:3] == [0, 1, 2]
    hours = np.bincount([v.event_ms % DAY_MS // 3_600_000 for v in visits], minlength=24)
    assert hours[18:21].sum() > 2 * hours[1:4].sum()


def test_the_top_is_examined_more_and_what_is_liked_is_clicked_more(sample):
    readers = sample.readers()
    shown = [item.item for item in sample.items[:10]]
    examined, affinity = np.zeros(10), {"click": [], "skip": []}
    for visit in readers.visits():
        for event in readers.react(visit, shown):
            examined[shown.index(event.item)] += 1
            affinity[event.action].append(readers.affinity(visit.user, event.item, visit.event_ms))
    assert examined[0] > 1.5 * examined[5] > 0
    assert np.mean(affinity["click"]) > np.mean(affinity["skip"]) + 0.1


def test_a_reaction_names_the_ranking_and_only_what_was_shown(sample):
    readers = sample.readers()
    shown = [item.item for item in sample.items[:5]]
    events = [e for visit in readers.visits() for e in readers.react(visit, shown, "r1")]
    assert {e.ranking for e in events} == {"r1"}
    assert {e.item for e in events} <= set(shown)
    assert not readers.react(Visit(user=readers.users[0], event_ms=0, number=0), [])


def test_an_unknown_item_is_never_clicked_and_a_clicked_one_is_read(sample):
    readers = sample.readers()
    visits = list(readers.visits())
    assert all(e.action == "skip" for v in visits for e in readers.react(v, ["no such item"]))
    click = next(e for v in visits for e in readers.react(v, [sample.items[0].item]) if e.action == "click")
    assert readers.unread(click.user, [click.item, "other"]) == ["other"]


def test_interests_drift(sample):
    readers = sample.readers()
    rows = [
        [readers.affinity(u, i.item, at) for i in sample.items] for at in (readers.from_ms, readers.to_ms) for u in readers.users
    ]
    first, last = np.split(np.array(rows), 2)
    assert 0.1 < np.corrcoef(first.ravel(), last.ravel())[0, 1] < 0.95


def test_open_loop_is_in_time_order_and_shows_only_what_is_published(sample):
    readers = sample.readers()
    until_ms = readers.from_ms + 2 * DAY_MS
    published, last_ms, n = {}, 0, 0
    for event in open_loop(readers, sample.items, seed=1, until_ms=until_ms):
        at_ms = event.event_ms if isinstance(event, InteractionEvent) else event.published_ms
        assert last_ms <= at_ms < until_ms
        last_ms = at_ms
        if isinstance(event, InteractionEvent):
            n += 1
            assert published[event.item] <= event.event_ms
        else:
            published[event.item] = event.published_ms
    assert n > 50


def test_readers_need_articles():
    with pytest.raises(DatasetError):
        Readers(1, 1, [])
