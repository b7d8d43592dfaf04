from itertools import count

import pytest

from contracts.records import InteractionEvent, ItemEvent
from streams.datasets.news import NewsSample
from streams.demo.plays import FIRST_DAYS, Answer, NewsPlay, RecordedPlay, grouped
from streams.simulation.readers import DAY_MS


def rate(user, item, at_ms):
    return InteractionEvent(user=user, item=item, action="rate", value=4.0, event_ms=at_ms)


def groups_of(events, span_ms=100, max_group=20):
    """The items of each interaction's group when it comes out."""
    return [(event.item, list(group.items)) for event, group in grouped(iter(events), span_ms, max_group) if group]


def test_a_group_is_complete_when_its_first_interaction_comes_out():
    events = [rate("u", "a", 0), rate("v", "x", 10), rate("u", "b", 50), rate("u", "c", 100), rate("u", "d", 101)]
    assert groups_of(events) == [
        ("a", ["a", "b", "c"]),
        ("x", ["x"]),
        ("b", ["a", "b", "c"]),
        ("c", ["a", "b", "c"]),
        ("d", ["d"]),
    ]


def test_groups_are_bounded_and_hold_an_item_once():
    assert groups_of([rate("u", str(i), i) for i in range(5)], max_group=2)[::2] == [
        ("0", ["0", "1"]),
        ("2", ["2", "3"]),
        ("4", ["4"]),
    ]
    assert groups_of([rate("u", "a", 0), rate("u", "a", 1)]) == [("a", ["a"]), ("a", ["a"])]


def test_no_more_is_held_than_the_span():
    taken = count()

    def endless():
        for n in taken:
            yield rate(str(n), "a", n * 10)

    stream = grouped(endless(), span_ms=100)
    for _ in range(50):
        next(stream)
    assert next(taken) < 50 + 100 / 10 + 3


class Dataset:
    name, scenario, simulated, licence = "test", "movies", False, ""

    def __init__(self, n_users=5, n=60):
        self.all = []
        for i in range(n):
            self.all += [ItemEvent(item=f"i{i}", published_ms=i * 10, title="t"), rate(f"u{i % n_users}", f"i{i}", i * 10)]

    def imported(self):
        return iter(())

    def events(self, limit=None):
        return iter(self.all[: 2 * limit] if limit is not None else self.all)

    def count(self, limit=None):
        return len(list(self.events(limit)))


@pytest.mark.parametrize("limit", [None, 31])
def test_both_parts_together_are_the_data_set_in_its_order(limit):
    asked = []

    def rank(ask):
        asked.append(ask)
        return Answer(ranking=f"r{len(asked)}", items=ask.candidates)

    play = RecordedPlay(Dataset(), limit, span_ms=200)
    first, second = list(play.first()), list(play.second(rank))
    assert [(len(first), len(second))] == [(play.n_first(), play.n_second())]
    assert [event.item for event in first + second] == [event.item for event in Dataset().events(limit)]
    with_ranking = [event for event in second if isinstance(event, InteractionEvent)]
    by_name = {f"r{n}": ask for n, ask in enumerate(asked, 1)}
    assert sum(len(ask.candidates) for ask in asked) == len(with_ranking)
    for event in with_ranking:
        ask = by_name[event.ranking]
        assert (event.user, event.item in ask.candidates) == (ask.user, True)
        assert 0 <= event.event_ms - ask.event_ms <= 200
    assert [ask.event_ms for ask in asked] == sorted(ask.event_ms for ask in asked)


def test_news_asks_for_unread_articles_of_the_last_two_days_and_reacts_to_what_was_shown():
    sample = NewsSample(n_readers=10)
    play = NewsPlay(sample)
    first = list(play.first())
    published = {event.item: event.published_ms for event in first if isinstance(event, ItemEvent)}
    clicked = {(event.user, event.item) for event in first if isinstance(event, InteractionEvent) and event.action == "click"}
    shown = {}

    def rank(ask):
        assert all(0 <= ask.event_ms - published[item] < 2 * DAY_MS for item in ask.candidates)
        assert not {(ask.user, item) for item in ask.candidates} & clicked
        answer = Answer(ranking=f"r{len(shown)}", items=ask.candidates[: ask.k])
        shown[answer.ranking] = (ask, answer)
        return answer

    split_ms = sample.readers().from_ms + FIRST_DAYS * DAY_MS
    for event in play.second(rank):
        if isinstance(event, ItemEvent):
            assert event.published_ms >= split_ms
            published[event.item] = event.published_ms
            continue
        ask, answer = shown[event.ranking]
        assert (event.user, event.item in answer.items) == (ask.user, True)
        if event.action == "click":
            clicked.add((event.user, event.item))
    assert len(published) == len(sample.items)
    assert shown
