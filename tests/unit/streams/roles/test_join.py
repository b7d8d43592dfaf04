"""The join role: what it passes to the joiners, and when it commits."""

import pytest

from contracts.codec import encode
from contracts.records import FeatureSnapshot, InteractionEvent, Ranking, ScoredItem
from contracts.settings import load_settings
from contracts.topics import IMPRESSIONS, INTERACTIONS, RANKINGS
from streams.messages import RawRecord
from streams.roles.join import Join

DAY_MS = 86_400_000
START_MS = 1_700_000_000_000


class Member:
    """A place in the group that notes commits."""

    def __init__(self):
        self.commits = []

    def commit(self, offsets):
        self.commits.append(offsets)
        return True


@pytest.fixture
def member():
    return Member()


@pytest.fixture
def join(publisher):
    made = Join(load_settings(join={"window_ms": 1_000, "lateness_ms": 100}), publisher)
    made._follow({0})
    return made


def raw(topic, offset, record, at_ms=START_MS):
    return RawRecord(topic=topic, partition=0, offset=offset, key=b"u", value=encode(topic, record), at_ms=at_ms)


def ranking(name="r"):
    items = tuple(ScoredItem(item=item, score=0.5) for item in "ab")
    return Ranking(
        ranking=name, user="u", items=items, version=1, step=0, event_ms=START_MS, took_ms=1.0, snapshot=FeatureSnapshot()
    )


def event(item, event_ms, name="r"):
    return InteractionEvent(user="u", item=item, action="click", event_ms=event_ms, ranking=name)


def test_the_brokers_time_bounds_what_a_clock_ahead_does(join, member, publisher):
    fast = raw(INTERACTIONS, 0, event("x", START_MS + DAY_MS, None))
    join._step([raw(RANKINGS, 0, ranking()), fast, raw(INTERACTIONS, 1, event("b", START_MS + 10))], member)
    assert publisher.of(IMPRESSIONS) == []
    join._step([raw(INTERACTIONS, 2, event("x", START_MS + 1_200, None), START_MS + 1_200)], member)
    assert [[item.label for item in one.items] for one in publisher.of(IMPRESSIONS)] == [[0.0, 1.0]]


def test_an_impression_that_the_wall_clock_closed_is_followed_by_a_commit(join, member, publisher):
    join._step([raw(RANKINGS, 0, ranking()), raw(INTERACTIONS, 0, event("b", START_MS + 10))], member)
    join._step([], member)
    assert len(member.commits) == 1
    join._joiners[0].advance(5_000)
    join._step([], member)
    assert (len(publisher.of(IMPRESSIONS)), len(member.commits)) == (1, 2)
    join._step([], member)
    assert len(member.commits) == 2
