from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from contracts.records import HistoryItem, InteractionEvent
from ranker.histories import Histories


def event(user, item, event_ms, action="click", value=None):
    return InteractionEvent(user=user, item=item, action=action, event_ms=event_ms, value=value)


def items(histories, user="u", before_ms=None):
    return [one.item for one in histories.of(user, before_ms)]


def test_history_is_the_newest_h_in_event_time_order_and_ends_before_the_ranking():
    histories = Histories(10, 3)
    histories.learn_many([event("u", f"i{at}", at) for at in (5, 1, 4, 2, 3)])
    assert items(histories) == ["i3", "i4", "i5"]
    assert items(histories, before_ms=5) == ["i2", "i3", "i4"]
    assert items(histories, before_ms=1) == []
    assert histories.newest_ms == 5


def test_what_a_user_said_travels_and_a_view_is_no_history():
    histories = Histories(10, 5)
    histories.learn_many([event("u", "a", 1, "view"), event("u", "b", 2, "skip"), event("u", "c", 3, "rate", 5.0)])
    assert histories.of("u") == (HistoryItem(item="b", liked=False), HistoryItem(item="c", liked=True))
    histories.learn_many([event("w", "a", 1, "view")])
    assert not histories.knows("w")


def test_beyond_the_bound_the_user_not_asked_for_longest_is_forgotten():
    histories = Histories(2, 5)
    histories.learn_many([event("a", "i", 1), event("b", "i", 1)])
    histories.of("a")
    histories.learn_many([event("c", "i", 1)])
    assert (histories.knows("a"), histories.knows("b"), histories.knows("c"), len(histories)) == (True, False, True, 2)
    assert histories.some_users(1) == ["a"]


lines = st.lists(
    st.tuples(st.sampled_from("uw"), st.sampled_from("abcdefgh"), st.integers(0, 30), st.sampled_from(["click", "skip"]))
)


@given(lines, st.randoms(use_true_random=False), st.integers(1, 9))
def test_order_batches_and_redelivery_do_not_show(drawn, random, size):
    events = [event(user, item, at, action) for user, item, at, action in drawn]
    once, again = Histories(10, 3), Histories(10, 3)
    once.learn_many(events)
    shuffled = [*events, *random.sample(events, len(events) // 2)]
    random.shuffle(shuffled)
    for start in range(0, len(shuffled), size):
        again.learn_many(shuffled[start : start + size])
    for user in "uw":
        assert once.of(user) == again.of(user)
        assert once.of(user, 15) == again.of(user, 15)
