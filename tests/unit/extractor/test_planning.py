"""Planning is exact: the state depends on the events alone, and no request is lost in a crash."""

import itertools

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
GAP_MS, MAX_AGE_MS, HOUR_MS, DAY_MS = 5_000, 7_200_000, 3_600_000, 86_400_000
PLANNER = UserPlanner(Plan(interactions_per_request=K, history=5, min_gap_s=0), NEWS)
DEBOUNCED = UserPlanner(
    Plan(interactions_per_request=K, history=5, min_gap_s=GAP_MS / 1_000, max_age_hours=MAX_AGE_MS / HOUR_MS), NEWS
)
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
    wanted = planner.plan(_item(), None, 1_000_000_000, traffic=50.0)
    _, user = PLANNER.apply(None, _log(range(200)), 0)
    assert 200 >= fresh.priority > wanted.priority > old.priority > user.priority > 0


def test_k_interactions_make_one_request_with_a_bounded_history():
    state, request = PLANNER.apply(None, _log(range(K - 1)), 0)
    assert request is None
    state, request = PLANNER.apply(state, _log(range(10))[K - 1 :], 0)
    assert [entry.item for entry in request.history] == ["n4", "n5", "n6", "n7", "n8"]  # n9 is left to the next
    assert (request.subject, request.as_of_ms, request.trigger_ms) == ("user:u", 8, NOW_MS)
    assert (state.n_events, state.n_since_knowledge) == (10, 10 % K)
    assert "Title 8" in build_prompt(NEWS, request).user


def _at(*at_ms, drifted=()):
    """Events that the broker received then; those of these offsets drifted."""
    log = zip(_log(range(len(at_ms))), at_ms, strict=True)
    return [one._replace(at_ms=ms, drifted=one.offset in drifted) for one, ms in log]


def test_what_falls_due_within_the_gap_waits_for_a_later_event():
    log = _at(*[10_000] * 2 * K, 10_000 + GAP_MS - 1, 10_000 + GAP_MS)
    state, request = DEBOUNCED.apply(None, log[:-1], 0)
    assert (request.as_of_ms, request.trigger_ms) == (K - 1, 10_000)
    assert (state.due, state.n_since_knowledge) == ("new_interactions", K + 1)
    assert DEBOUNCED.ready_at_ms(state) == 10_000 + GAP_MS
    state, request = DEBOUNCED.apply(state, log[-1:], 0)
    assert (request.as_of_ms, request.trigger_ms) == (2 * K + 1, 10_000)  # since when it waited: latency counts the wait
    assert (state.n_since_knowledge, DEBOUNCED.ready_at_ms(state)) == (0, None)


def test_what_falls_due_within_the_gap_and_is_followed_by_nothing_is_made_by_the_clock():
    state, _ = DEBOUNCED.apply(None, _at(*[10_000] * 2 * K), 0)
    assert DEBOUNCED.late(state, 10_000 + GAP_MS - 1) is None
    after, request = DEBOUNCED.late(state, 10_000 + GAP_MS)
    assert (request.reason, request.as_of_ms) == ("new_interactions", 2 * K - 1)
    assert DEBOUNCED.late(after, 10**12) is None
    assert DEBOUNCED.late(state, 10_000 + GAP_MS) == (after, request)  # after a crash the same again


def test_the_gap_counts_from_a_late_request_too():
    state, _ = DEBOUNCED.apply(None, _at(*[10_000] * 2 * K), 0)
    state, _ = DEBOUNCED.late(state, 50_000)
    state, request = DEBOUNCED.apply(state, _at(*[50_001] * 3 * K)[2 * K :], 0)
    assert (request, DEBOUNCED.ready_at_ms(state)) == (None, 50_000 + GAP_MS)


def test_drift_makes_a_request_before_k_interactions():
    state, request = DEBOUNCED.apply(None, _at(1_000, drifted=[0]), 0)
    assert (request.reason, len(request.history), state.n_since_knowledge) == ("drift", 1, 0)


def test_drift_within_the_gap_waits_whatever_comes_in_between():
    log = _at(*[10_000] * K, 10_001, 10_002, 10_000 + GAP_MS, drifted=[K])
    state, request = DEBOUNCED.apply(None, log[:-1], 0)
    assert (request.reason, state.due, DEBOUNCED.ready_at_ms(state)) == ("new_interactions", "drift", 10_000 + GAP_MS)
    _, request = DEBOUNCED.apply(state, log[-1:], 0)
    assert (request.reason, request.trigger_ms) == ("drift", 10_001)


def test_old_knowledge_of_an_active_user_is_asked_for_again():
    log = _at(*[1_000] * K, 999 + MAX_AGE_MS, 1_000 + MAX_AGE_MS)
    state, request = DEBOUNCED.apply(None, log[:-1], 0)
    assert (request.reason, state.due) == ("new_interactions", None)
    _, request = DEBOUNCED.apply(state, log[-1:], 0)
    assert request.reason == "old_knowledge"


def test_age_does_not_count_where_nobody_asked_or_it_is_turned_off():
    never_asked, _ = DEBOUNCED.apply(None, _at(1_000, 1_000 + 2 * MAX_AGE_MS), 0)
    ageless = UserPlanner(Plan(interactions_per_request=K, max_age_hours=0), NEWS)
    state, _ = ageless.apply(None, _at(*[1_000] * K, 10**12), 0)
    assert (never_asked.due, state.due) == (None, None)


def test_a_request_that_was_not_sent_waits_on_and_goes_out_with_the_next_interaction():
    state, request = DEBOUNCED.apply(None, _at(*[1_000] * K), 0)
    assert request is not None
    state = DEBOUNCED.not_yet(state, request)
    assert (state.n_since_knowledge, state.staleness, DEBOUNCED.ready_at_ms(state)) == (K, 1.0, 1_000)
    assert DEBOUNCED.late(state, 1_500)[1].history == request.history
    _, request = DEBOUNCED.apply(state, _at(*[1_001] * (K + 1))[K:], 0)
    assert request.reason == "new_interactions"


def test_staleness_is_the_share_of_the_history_that_no_request_covers():
    state, _ = PLANNER.apply(None, _log(range(2)), 0)
    assert state.staleness == 1.0
    state, _ = PLANNER.apply(state, _log(range(5))[2:], 0)
    assert state.staleness == 2 / 5


def test_a_user_with_more_traffic_and_less_knowledge_goes_first():
    days_apart, at_once = ([n * step for n in range(K)] for step in (10 * DAY_MS, 1))
    _, rare = PLANNER.apply(None, _log(days_apart, at_ms=10**12), 0)
    state, busy = PLANNER.apply(None, _log(at_once, at_ms=10**12), 0)
    assert busy.priority > rare.priority
    assert busy.reason == rare.reason
    _, drifted = PLANNER.apply(state, [_log([0] * (K + 1), at_ms=10**12)[K]._replace(drifted=True)], 0)
    assert drifted.priority < busy.priority  # one line of four is new, of the other all


def test_one_event_with_a_clock_ahead_does_not_make_all_traffic_old():
    state, _ = PLANNER.apply(None, _log([1, 2, 10**12], at_ms=1_000), 0)
    assert state.traffic == pytest.approx(3, rel=1e-4)


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


events = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 4_000), st.booleans()), min_size=1, max_size=15)


def _stream(given_events):
    """Events with their event time, the broker's time since the one before, and whether they drifted."""
    ats = itertools.accumulate(wait_ms for _, wait_ms, _ in given_events)
    log = zip(_log([ms for ms, _, _ in given_events]), ats, given_events, strict=True)
    return [one._replace(at_ms=at_ms, drifted=drifted) for one, at_ms, (_, _, drifted) in log]


@given(events, st.lists(st.tuples(st.integers(0, 10), st.integers(1, 8)), max_size=20))
def test_any_cut_into_batches_with_repetitions_gives_the_same_state_and_last_request(given_events, deliveries):
    log = _stream(given_events)
    wanted, wanted_request = DEBOUNCED.apply(None, log, 0)
    state, request, at = None, None, 0
    for back, n in [*deliveries, (0, len(log))]:
        start = max(0, at - back)
        batch = log[start : start + n]
        if batch:
            state, made = DEBOUNCED.apply(state, batch, 0)
            request = made or request
        at = max(at, start + len(batch))
    state, made = DEBOUNCED.apply(state, log[at:] or log[-1:], 0)
    assert (state, made or request) == (wanted, wanted_request)


SURVIVES = ("nothing", "request", "request and state", "all")


@settings(max_examples=150)
@given(events, st.lists(st.tuples(st.integers(1, 8), st.booleans(), st.sampled_from(SURVIVES)), max_size=25))
def test_no_crash_loses_a_request(given_events, steps):
    """Each step takes a batch from the last commit, or lets the clock ask, and dies on its way: requests, state, commit."""
    log = _stream(given_events)
    dates = [DEBOUNCED.apply(None, log[: n + 1], 0)[0].as_of_ms for n in range(len(log))]  # of a request up to each event
    state, committed, now_ms, sent = None, 0, 0, []
    for n, clock, survives in [*steps, *[(4, False, "all")] * len(log), (0, True, "all")]:
        now_ms = max(now_ms + 2_000, *(one.at_ms for one in log[: committed + 1])) if n else log[-1].at_ms + now_ms + GAP_MS
        batch = log[committed : committed + n]
        if clock:
            after, request = (state and DEBOUNCED.late(state, now_ms)) or (state, None)
        elif batch:
            after, request = DEBOUNCED.apply(state, batch, 0)
        else:
            continue
        if survives != "nothing":
            sent += [request.as_of_ms] if request else []
        if survives in {"request and state", "all"}:
            state = after
        if survives == "all" and not clock:
            committed += len(batch)
    assert (committed, state.n_events, state.due) == (len(log), len(log), None)
    assert state.n_since_knowledge < K
    n_covered = state.n_events - state.n_since_knowledge
    assert max(sent, default=None) == (dates[n_covered - 1] if n_covered else None)


@given(events)
def test_a_redelivered_batch_changes_nothing_and_makes_nothing_due(given_events):
    log = _stream(given_events)
    state, _ = DEBOUNCED.apply(None, log, 0)
    assert DEBOUNCED.apply(state, log, 0) == (state, None)


@given(events)
def test_requests_about_one_user_are_a_gap_apart(given_events):
    state, asked_at = None, []
    for one in _stream(given_events):
        state, request = DEBOUNCED.apply(state, [one], 0)
        asked_at += [one.at_ms] if request else []
    assert all(later - earlier >= GAP_MS for earlier, later in itertools.pairwise(asked_at))


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


@pytest.mark.parametrize(
    ("times", "shown"),
    [([5] * 2 * K, [3, 4, 5]), ([50, 51, 52, 40, 30, 20], [4, 3]), ([1, 2, 9_000, 4, 5, 6], [3, 4, 5])],
    ids=["all at once", "late ones", "after a clock ahead"],
)
def test_an_update_shows_the_events_that_the_knowledge_before_does_not_cover(times, shown):
    before, request = _requests([one._replace(at_ms=1_000 + n) for n, one in enumerate(_log(times))])
    update = msgspec.structs.replace(request, previous="Likes ports.", previous_as_of_ms=before.as_of_ms)
    lines = build_prompt(NEWS, update).user.partition("since then:\n")[2].splitlines()[:-1]
    assert [line.partition(": ")[2] for line in lines] == [f"Title {n} (sports)" for n in shown]


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
