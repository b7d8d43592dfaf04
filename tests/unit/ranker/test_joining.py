"""What an impression says depends on the two logs alone: not on interleaving, copies or restarts."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from contracts.records import FeatureSnapshot, Impression, InteractionEvent, LabelledItem, Ranking, ScoredItem
from ranker.joining import ImpressionJoiner

WINDOW, LATENESS = 100, 20
LATEST = 1_000_000


def ranking(name, event_ms=1_000, items=("a", "b"), user="u", score=0.5):
    scored = tuple(ScoredItem(item=item, score=score) for item in items)
    return Ranking(
        ranking=name, user=user, items=scored, version=1, step=0, event_ms=event_ms, took_ms=1.0, snapshot=FeatureSnapshot()
    )


def event(item, name="r", event_ms=1_010, action="click", user="u"):
    return InteractionEvent(user=user, item=item, action=action, event_ms=event_ms, ranking=name)


def joiner(max_open=1_000):
    return ImpressionJoiner(WINDOW, LATENESS, max_open)


def labels(impression):
    return {one.item: one.label for one in impression.items}


def test_a_window_closes_when_the_interactions_watermark_reaches_its_end_and_silence_is_a_zero():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    join.add_interaction(0, event("b"))
    join.add_interaction(1, event("x", None, 1_119))
    assert join.closed() == []
    join.add_interaction(2, event("x", None, 1_120))
    (impression,) = join.closed()
    assert labels(impression) == {"a": 0.0, "b": 1.0}
    assert [one.position for one in impression.items] == [0, 1]
    assert join.closed() == []


def test_the_last_label_closes_a_ranking_at_once_and_a_positive_beats_a_negative():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    join.add_interaction(0, event("a", action="view"))
    join.add_interaction(1, event("a", action="skip"))
    join.add_interaction(2, event("a", action="click"))
    join.add_interaction(3, event("a", action="skip"))
    assert join.closed() == []
    join.add_interaction(4, event("b", action="dislike"))
    (impression,) = join.closed()
    assert labels(impression) == {"a": 1.0, "b": 0.0}
    join.add_interaction(5, event("b", action="like"))
    assert join.closed() == []
    assert join.counts.late_interactions == 1


def test_what_does_not_belong_to_a_ranking_is_counted_and_ignored():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    for offset, wrong in enumerate([event("a", user="other"), event("z"), event("a", event_ms=1_100), event("a", event_ms=979)]):
        join.add_interaction(offset, wrong)
    assert join.counts.unmatched == 4
    join.add_interaction(9, event("x", None, LATEST))
    assert join.closed() == []
    assert join.counts.unseen == 1


def test_items_below_the_last_one_with_an_event_were_perhaps_not_seen_and_get_no_label():
    join = joiner()
    join.add_ranking(0, ranking("r", items="abcde"))
    join.add_interaction(0, event("b"))
    join.add_interaction(1, event("d", action="skip"))
    join.add_interaction(2, event("x", None, LATEST))
    (impression,) = join.closed()
    assert [(one.item, one.label, one.position) for one in impression.items] == [
        ("a", 0.0, 0), ("b", 1.0, 1), ("c", 0.0, 2), ("d", 0.0, 3)
    ]  # fmt: skip


def test_a_mere_view_says_that_an_item_was_looked_at():
    join = joiner()
    join.add_ranking(0, ranking("r", items="abcde"))
    join.add_interaction(0, event("b", action="view"))
    join.add_interaction(1, event("x", None, LATEST))
    assert [labels(one) for one in join.closed()] == [{"a": 0.0, "b": 0.0}]


def test_a_ranking_without_any_event_gives_no_impression_and_holds_no_offset_back():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    join.add_ranking(1, ranking("much later", 5_000))
    join.add_interaction(0, event("x", None, 5_000))
    assert join.closed() == []
    assert (join.counts.unseen, join.counts.impressions) == (1, 0)
    assert join.low_watermarks() == (1, 0)
    assert "r" not in join._rankings


def test_one_clock_a_day_ahead_closes_no_window():
    day_ms = 86_400_000
    join = joiner()
    join.add_ranking(0, ranking("r"), at_ms=1_000)
    join.add_ranking(1, ranking("ahead", 1_000 + day_ms), at_ms=1_000)
    join.add_interaction(0, event("x", None, 1_000 + day_ms), at_ms=1_000)
    join.add_interaction(1, event("b"), at_ms=1_010)
    join.add_ranking(2, ranking("s", 1_050), at_ms=1_050)
    join.add_interaction(2, event("a", "s", 1_060), at_ms=1_060)
    assert (join.closed(), join.counts.late_interactions, join.counts.late_rankings) == ([], 0, 0)
    join.add_interaction(3, event("x", None, 1_200), at_ms=1_200)
    assert [labels(one) for one in join.closed()] == [{"a": 0.0, "b": 1.0}, {"a": 1.0}]


def test_an_interaction_waits_for_its_ranking_within_the_bound():
    join = joiner(max_open=2)
    for offset, name in enumerate(["r1", "r2", "r3"]):
        join.add_interaction(offset, event("a", name))
    assert (join.n_waiting, join.counts.dropped) == (2, 1)
    for offset, name in enumerate(["r1", "r2"]):
        join.add_ranking(offset, ranking(name))
    join.add_interaction(9, event("x", None, LATEST))
    assert [(one.ranking, labels(one)) for one in join.closed()] == [("r2", {"a": 1.0})]
    assert join.counts.unseen == 1  # r1, whose interaction was dropped


def test_beyond_the_bound_the_oldest_ranking_closes_early_and_is_counted():
    join = joiner(max_open=3)
    for offset in range(50):
        join.add_ranking(offset, ranking(f"r{offset}", 1_000 + offset % 7))
    assert (join.n_open, join.counts.closed_early) == (3, 47)
    assert (join.closed(), join.counts.unseen) == ([], 47)
    assert len(join._rankings) <= 6


def test_what_nothing_can_name_any_more_is_forgotten():
    join = joiner()
    for at in range(3_000):
        join.add_ranking(at, ranking(f"r{at}", 10 * at))
        join.add_interaction(at, event("a", f"r{at}" if at % 2 else "never", 10 * at))
        join.closed()
        join.low_watermarks()
    assert len(join._rankings) < 50
    assert join.n_waiting < 50
    assert len(join._waiting_for) < 50
    assert len(join._ends) < 50


def test_wall_clock_time_closes_an_idle_partition_and_spares_what_comes_after():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    join.add_interaction(0, event("b"))
    join.advance(109)
    assert (join.closed(), join.counts.closed_idle) == ([], 0)
    join.advance(110)
    assert [one.ranking for one in join.closed()] == ["r"]
    assert join.counts.closed_idle == 1
    join.add_ranking(1, ranking("s", 1_001))
    assert join.closed() == []


def test_of_a_log_that_was_not_read_there_is_nothing_to_commit():
    join = joiner()
    assert join.low_watermarks() == (None, None)
    join.add_interaction(40, event("a"))
    assert join.low_watermarks() == (None, 40)
    join.add_ranking(7, ranking("r"))
    assert join.low_watermarks() == (7, 40)


def test_a_restart_does_not_let_in_what_was_late_before_it():
    events = [event("x", None, 1_125), event("a", "open", 1_050), event("a", "shut", 1_010)]
    rankings = [ranking("open", 1_040), ranking("shut", 1_000)]
    join = joiner()
    for offset, one in enumerate(rankings):
        join.add_ranking(offset, one)
    for offset, one in enumerate(events):
        join.add_interaction(offset, one)
    before = join.closed()
    low_rankings, low_interactions = join.low_watermarks()
    again = joiner()
    for offset in range(low_rankings, 2):
        again.add_ranking(offset, rankings[offset])
    for offset in range(low_interactions, 3):
        again.add_interaction(offset, events[offset])
    assert again.closed() == before == []
    assert again.counts.unseen == join.counts.unseen == 1


def test_a_restart_does_not_take_a_copy_for_a_new_ranking():
    rankings = [ranking("r"), ranking("open", 1_001), ranking("r", score=0.9)]
    join = joiner()
    for offset, one in enumerate(rankings):
        join.add_ranking(offset, one)
    join.add_interaction(0, event("a"))
    join.add_interaction(1, event("b"))
    before = join.closed()
    low_rankings, low_interactions = join.low_watermarks()
    again = joiner()
    for offset in range(low_rankings, 3):
        again.add_ranking(offset, rankings[offset])
    for offset in range(low_interactions, 2):
        again.add_interaction(offset, event("ab"[offset]))
    assert again.closed() == before


def test_a_ranking_stays_needed_until_a_copy_of_it_would_be_late():
    join = joiner()
    join.add_ranking(0, ranking("r"))
    join.add_ranking(1, ranking("open", 1_001))
    join.add_interaction(0, event("a"))
    join.add_interaction(1, event("b"))
    assert [one.ranking for one in join.closed()] == ["r"]
    assert join.low_watermarks() == (0, 0)
    join.add_ranking(2, ranking("much later", 1_130))
    join.add_interaction(2, event("x", None, 1_130))
    assert (join.closed(), join.counts.unseen) == ([], 1)
    assert join.low_watermarks() == (2, 2)


def expected(rankings: list[tuple[Ranking, int]], events: list[tuple[InteractionEvent, int]]) -> dict[str, Impression]:
    """The definition at the top of ranker/joining.py, read off whole logs."""
    accepted: dict[str, Ranking] = {}
    newest = -1
    for one, at_ms in rankings:
        if newest - LATENESS < one.event_ms + WINDOW and one.ranking not in accepted:
            accepted[one.ranking] = one
        newest = max(newest, min(one.event_ms, at_ms + LATENESS))
    made = {name: _impression(one, events) for name, one in accepted.items()}
    return {name: impression for name, impression in made.items() if impression is not None}


def _impression(one: Ranking, events: list[tuple[InteractionEvent, int]]) -> Impression | None:
    found: dict[str, float] = {}
    touched: set[str] = set()
    newest = -1
    end = one.event_ms + WINDOW
    for each, at_ms in events:
        fits = each.ranking == one.ranking and each.user == one.user and each.item in {s.item for s in one.items}
        if fits and newest - LATENESS < end and one.event_ms - LATENESS <= each.event_ms < end and len(found) < len(one.items):
            touched.add(each.item)
            if each.action != "view":
                found[each.item] = max(found.get(each.item, 0.0), float(each.action == "click"))
        newest = max(newest, min(each.event_ms, at_ms + LATENESS))
    items = [LabelledItem(item=i.item, label=found.get(i.item, 0.0), score=i.score, position=n) for n, i in enumerate(one.items)]
    while items and items[-1].item not in touched:
        items.pop()
    same = {name: getattr(one, name) for name in ("ranking", "user", "version", "step", "event_ms", "snapshot")}
    return Impression(**same, items=tuple(items)) if items else None


names = st.sampled_from([f"r{n}" for n in range(6)])
drift = st.integers(0, 60)
jitter = st.integers(-90, 30)
ahead = st.sampled_from([0, 0, 0, 0, 15, 500])  # how far the writer's clock is ahead of the broker's


@st.composite
def logs(draw):
    """Records with the broker's time of each."""
    rankings, events, now = [], [], 1_000
    when: dict[str, int] = {}  # a copy of a ranking carries the request's time, but its scores may be another model's
    scores = st.sampled_from([0.1, 0.2])
    for name, step, late, fast, score in draw(st.lists(st.tuples(names, drift, jitter, ahead, scores), max_size=12)):
        now += step
        rankings.append((ranking(name, when.setdefault(name, now + late + fast), ("a", "b", "c"), score=score), now))
    now = 1_000
    actions = st.sampled_from(["click", "skip", "view"])
    users = st.sampled_from(["u", "u", "u", "other"])
    lines = st.lists(st.tuples(names, drift, jitter, ahead, st.sampled_from("abcz"), actions, users), max_size=25)
    for name, step, late, fast, item, action, user in draw(lines):
        now += step
        events.append((event(item, name, now + late + fast, action, user), now))
    return rankings, [*events, (event("x", None, LATEST), LATEST)]


@settings(max_examples=400, deadline=None)
@given(logs(), st.lists(st.sampled_from("rrrriiiiiieccx"), max_size=60))
def test_any_interleaving_with_restarts_from_the_low_watermarks_gives_the_impressions_of_the_whole_logs(both, steps):
    rankings, events = both
    emitted: dict[str, set[bytes]] = {}
    committed = (0, 0)
    join, at_r, at_i = joiner(), 0, 0

    def emit():
        for one in join.closed():
            emitted.setdefault(one.ranking, set()).add(repr(one).encode())

    for step in [*steps, *("r" * len(rankings)), *("i" * len(events)), "e"]:
        if step == "r" and at_r < len(rankings):
            join.add_ranking(at_r, *rankings[at_r])
            at_r += 1
        elif step == "i" and at_i < len(events):
            join.add_interaction(at_i, *events[at_i])
            at_i += 1
        elif step == "e":  # published, then killed before the commit
            emit()
        elif step == "c":
            emit()
            low = [old if new is None else new for old, new in zip(committed, join.low_watermarks(), strict=True)]
            assert low[0] >= committed[0]
            assert low[1] >= committed[1]
            committed = low
        elif step == "x":
            join = joiner()
            at_r, at_i = committed
    assert emitted == {name: {repr(one).encode()} for name, one in expected(rankings, events).items()}


@settings(max_examples=100, deadline=None)
@given(logs(), st.data())
def test_redelivered_offsets_have_no_effect(both, data):
    rankings, events = both
    join, again = joiner(), joiner()
    for offset, one in enumerate(rankings):
        join.add_ranking(offset, *one)
    for offset, one in enumerate(events):
        join.add_interaction(offset, *one)
    once = join.closed()
    for offset, one in enumerate(rankings):
        back = data.draw(st.integers(0, offset))
        for repeated in range(back, offset + 1):
            again.add_ranking(repeated, *rankings[repeated])
        again.add_ranking(offset, *one)
    for offset in range(len(events)):
        back = data.draw(st.integers(0, offset))
        for repeated in range(back, offset + 1):
            again.add_interaction(repeated, *events[repeated])
    assert again.closed() == once
