"""Planning is exact: the state depends on the events alone, and no request is lost in a crash."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.records import InteractionEvent, ItemEvent
from contracts.settings import Plan
from extractor.planning import Delivery, ItemLabel, ItemPlanner, UserPlanner, UserState, content_hash
from extractor.prompts import build_prompt
from extractor.scenario import load_scenario

NEWS = load_scenario("news")
K = 3
PLANNER = UserPlanner(Plan(interactions_per_request=K, history=5), NEWS)
ACTIONS = ("click", "skip", "view", "like")


NOW_MS = 1_000  # after every event


def _log(times, at_ms=NOW_MS):
    return [
        Delivery(
            offset,
            at_ms,
            InteractionEvent(user="u", item=f"n{offset}", action=ACTIONS[offset % 4], event_ms=ms),
            ItemLabel(f"Title {offset}", {"section": ("sports",)}),
        )
        for offset, ms in enumerate(times)
    ]


def _item(**fields):
    return ItemEvent(**{"item": "n1", "published_ms": 1_000, "title": "Harbour", "text": "Opened."} | fields)


def test_a_new_item_is_asked_about_and_the_same_again_is_not():
    planner = ItemPlanner(NEWS)
    request = planner.plan(_item(), None, 5_000)
    assert (request.reason, request.as_of_ms, request.trigger_ms) == ("new_item", 1_000, 5_000)
    assert request.source_hash == content_hash(_item())
    assert planner.plan(_item(published_ms=2_000), content_hash(_item()), 6_000) is None
    assert planner.plan(_item(removed=True), None, 6_000) is None


def test_a_changed_item_is_newer_than_what_it_replaces():
    request = ItemPlanner(NEWS).plan(_item(text="Closed."), content_hash(_item()), 9_000)
    assert (request.reason, request.as_of_ms) == ("changed_item", 9_000)


@pytest.mark.parametrize("change", [{"title": "x"}, {"text": "x"}, {"attributes": {"section": ("x",)}}])
def test_content_hash_sees_every_field_of_content(change):
    assert content_hash(_item(**change)) != content_hash(_item())


def test_content_hash_does_not_see_the_order_of_attributes():
    a, b = {"x": ("1",), "y": ("2",)}, {"y": ("2",), "x": ("1",)}
    assert content_hash(_item(attributes=a)) == content_hash(_item(attributes=b))


def test_fresher_items_go_first_and_items_before_users():
    planner = ItemPlanner(NEWS)
    fresh, old = planner.plan(_item(), None, 1_000), planner.plan(_item(), None, 1_000_000_000)
    _, user = PLANNER.apply(None, _log(range(200)), 0)
    assert fresh.priority > old.priority > user.priority


def test_k_interactions_make_one_request_with_a_bounded_history():
    state, request = PLANNER.apply(None, _log(range(K - 1)), 0)
    assert request is None
    state, request = PLANNER.apply(state, _log(range(10))[K - 1 :], 0)
    assert [entry.item for entry in request.history] == ["n5", "n6", "n7", "n8", "n9"]
    assert (request.subject, request.as_of_ms, request.trigger_ms) == ("user:u", 9, NOW_MS)
    assert (state.n_events, state.n_since_knowledge) == (10, 10 % K)
    assert "Title 9" in build_prompt(NEWS, request).user


def test_history_is_in_event_time_and_a_view_is_neither_liked_nor_not():
    state, _ = PLANNER.apply(None, _log([50, 10, 30, 20]), 0)
    assert [entry.event_ms for entry in state.history] == [10, 20, 30, 50]
    assert {entry.action: entry.liked for entry in state.history} == {"click": True, "skip": False, "view": None, "like": True}
    assert state.last_event_ms == 50


def test_state_is_small_whatever_the_items_carry():
    attributes = dict.fromkeys((*NEWS.attributes, "unknown"), ("v" * 256,) * 64)
    log = [one._replace(label=ItemLabel("t" * 1_000, attributes)) for one in _log(range(30))]
    state, _ = UserPlanner(Plan(), NEWS).apply(None, log, 0)
    assert len(state.history) == 30
    assert len(state.pack()) < 60_000


def test_packed_state_comes_back_and_damage_is_noticed():
    state, _ = PLANNER.apply(None, _log(range(7)), 2)
    assert UserState.unpack(state.pack()) == state
    with pytest.raises(msgspec.DecodeError):
        UserState.unpack(state.pack()[:-3])


def test_an_item_not_known_yet_leaves_a_line_without_title():
    state, _ = PLANNER.apply(None, [_log([1])[0]._replace(label=None)], 0)
    assert (state.history[0].item, state.history[0].title) == ("n0", "")
    later = PLANNER.labelled(state.history[0], ItemLabel("Title " * 100, {"section": ("x" * 200,), "other": ("y",)}))
    assert (len(later.title), later.attributes) == (300, {"section": ("x" * 60,)})


def test_events_of_two_users_are_refused():
    other = Delivery(1, 7, InteractionEvent(user="v", item="n", action="view", event_ms=1), None)
    for events in ([], [*_log([1]), other]):
        with pytest.raises(ValueError, match="one user"):
            PLANNER.apply(None, events, 0)


def test_a_second_partition_counts_its_own_offsets():
    state, _ = PLANNER.apply(None, _log([1, 2]), 0)
    state, request = PLANNER.apply(state, _log([3]), 1)
    assert state.offsets == {0: 1, 1: 0}
    assert (state.n_events, request is not None) == (3, True)


times = st.lists(st.integers(0, 20), min_size=1, max_size=25)


@given(times, st.lists(st.tuples(st.integers(0, 10), st.integers(1, 8)), max_size=20))
def test_any_cut_into_batches_with_repetitions_gives_the_same_state(event_times, deliveries):
    log = _log(event_times)
    wanted, _ = PLANNER.apply(None, log, 0)
    state, at = None, 0
    for back, n in [*deliveries, (0, len(log))]:
        start = max(0, at - back)
        batch = log[start : start + n]
        if batch:
            state, _ = PLANNER.apply(state, batch, 0)
        at = max(at, start + len(batch))
    state, _ = PLANNER.apply(state, log[at:] or log[-1:], 0)
    assert state == wanted


@settings(max_examples=200)
@given(times, st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["nothing", "state", "request", "both"])), max_size=20))
def test_no_crash_loses_a_request(event_times, steps):
    """Each step delivers from the last commit and dies after writing nothing, the state, the request, or both; the last do not die."""
    log = _log(event_times)
    wanted, _ = PLANNER.apply(None, log, 0)
    state, committed, sent_up_to = None, 0, -1
    for n, survived in [*steps, *[(4, "all")] * len(log)]:
        batch = log[committed : committed + n]
        if not batch:
            break
        after, request = PLANNER.apply(state, batch, 0)
        if request is not None and survived in {"request", "both", "all"}:
            sent_up_to = max(sent_up_to, after.offsets[0])
        if survived in {"state", "both", "all"}:
            state = after
        if survived == "all":
            committed += len(batch)
    assert state == wanted
    if wanted.due_at is not None:
        assert sent_up_to >= wanted.due_at[1]


@given(times)
def test_a_repeated_batch_makes_the_same_request(event_times):
    log = _log(event_times)
    state, request = PLANNER.apply(None, log, 0)
    assert PLANNER.apply(state, log, 0) == (state, request)


def _requests(log):
    """The requests of a log that comes event by event."""
    state, made = None, []
    for one in log:
        state, request = PLANNER.apply(state, [one], 0)
        made += [request] if request else []
    return made


def test_one_event_with_a_clock_ahead_dates_nothing_that_follows():
    log = [one._replace(at_ms=1_000 + n) for n, one in enumerate(_log([1, 2, 9_000, *range(4, 4 + 2 * K)]))]
    assert [request.as_of_ms for request in _requests(log)] == [1_002, 1_005, 1_008]


def test_requests_within_one_moment_are_each_newer_than_the_one_before():
    dates = [request.as_of_ms for request in _requests(_log([5] * 4 * K))]
    assert dates == sorted(set(dates))
    assert len(dates) == 4
    assert dates[-1] < 5 + 4 * K


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=25))
def test_whatever_the_clocks_later_requests_are_newer(pairs):
    log = [one._replace(at_ms=at_ms) for one, (_, at_ms) in zip(_log([ms for ms, _ in pairs]), pairs, strict=True)]
    dates = [request.as_of_ms for request in _requests(log)]
    assert dates == sorted(set(dates))
