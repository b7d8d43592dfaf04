"""The plan stage over its two tables."""

from operator import methodcaller

import pytest

from contracts.records import InteractionEvent, ItemEvent
from contracts.settings import Plan
from contracts.topics import INTERACTIONS, ITEMS, REQUESTS
from extractor.planning import ItemPlanner, UserPlanner, UserState
from extractor.priority import HALF_LIFE_MS, item_priority
from fakes.table import FakeTable
from streams.roles.planning import Planning

K = 3


class Stage:
    def __init__(self, news, admitted, min_gap_s=0.0):
        self.items = FakeTable(str.encode, bytes.decode)
        self.users = FakeTable(methodcaller("pack"), UserState.unpack)
        self.settings = Plan(interactions_per_request=K, min_gap_s=min_gap_s)
        self.scenario = news
        self.admitted = admitted
        self.restart()

    def restart(self):
        """A new stage over the same tables."""
        planners = ItemPlanner(self.scenario), UserPlanner(self.settings, self.scenario)
        self.planning = Planning(self.items, self.users, *planners)
        for partition in self.users.partitions:
            self.planning.arrived(partition)

    def see_items(self, *events, at_ms=1_000):
        for event in events:
            self.planning.label(event if isinstance(event, str) else event.item, None if isinstance(event, str) else event)
        return [made for event in events for made in self.planning.item(self.admitted(ITEMS, event, at_ms=at_ms))]

    def see(self, *events, at_ms=1_000):
        return self.see_again([self.admitted(INTERACTIONS, event, at_ms=at_ms) for event in events])

    def see_again(self, batch):
        return [made for one in batch for made in self.planning.interaction(one)]

    def user(self, name="u1"):
        return self.users.get(0, name)


@pytest.fixture
def stage(news, admitted):
    return Stage(news, admitted)


def item(ident="n1", title="Harbour opens", **fields):
    return ItemEvent(item=ident, published_ms=500, title=title, **fields)


def click(n, user="u1", ident="n1"):
    return InteractionEvent(user=user, item=ident, action="click", event_ms=1_000 + n)


def subjects(outputs):
    return [(topic, record if isinstance(record, str) else record.subject) for topic, record in outputs]


def test_a_new_item_asks_for_knowledge_and_the_same_again_does_not(stage):
    assert subjects(stage.see_items(item())) == [(REQUESTS, "item:n1")]
    assert stage.see_items(item()) == []
    assert stage.planning.counts == {"new_item": 1}


def test_a_changed_item_asks_again(stage):
    stage.see_items(item())
    ((_, request),) = stage.see_items(item(title="Harbour closes"))
    assert (request.reason, request.item.title) == ("changed_item", "Harbour closes")


def test_an_item_that_is_much_used_is_more_urgent_when_it_changes(stage):
    stage.see_items(item("n1"), item("n2"))
    stage.see(*(click(n, user=f"u{n}") for n in range(20)))
    ((_, used),) = stage.see_items(item("n1", title="Changed"))
    ((_, unused),) = stage.see_items(item("n2", title="Changed"))
    assert used.priority > unused.priority


def test_an_interaction_with_an_item_counts_half_after_a_day(stage):
    stage.see_items(item())
    stage.see(click(0, "u1"), click(0, "u2"))
    stage.see(click(HALF_LIFE_MS, "u3"), at_ms=1_000 + HALF_LIFE_MS)
    changed_ms = 1_000 + 2 * HALF_LIFE_MS
    ((_, request),) = stage.see_items(item(title="Changed"), at_ms=changed_ms)
    assert request.priority == pytest.approx(item_priority(changed_ms - 500, 1.0))


def test_one_clock_ahead_does_not_make_the_traffic_of_an_item_old(stage):
    stage.see_items(item())
    stage.see(click(0, "u1"), click(100 * HALF_LIFE_MS, "u2"))
    ((_, request),) = stage.see_items(item(title="Changed"))
    assert request.priority == pytest.approx(item_priority(500, 2.0))


@pytest.mark.parametrize("removal", ["n1", item(removed=True)], ids=["tombstone", "removal"])
def test_a_removed_item_becomes_a_tombstone_among_the_requests_and_is_new_when_it_comes_back(stage, removal):
    stage.see_items(item())
    assert stage.see_items(removal) == [(REQUESTS, "item:n1")]
    assert stage.items.packed[0] == {}
    ((_, request),) = stage.see_items(item())
    assert request.reason == "new_item"


def test_a_user_is_asked_for_after_k_interactions(stage):
    stage.see_items(item())
    assert stage.see(click(1), click(2)) == []
    ((topic, request),) = stage.see(click(3), click(4))
    assert topic is REQUESTS
    assert [entry.event_ms for entry in request.history] == [1_001, 1_002, 1_003]
    assert stage.see(click(5)) == []
    assert stage.user().n_events == 5


def test_users_are_kept_apart(stage):
    stage.see_items(item())
    outputs = stage.see(*(click(n, user) for n in range(K) for user in ("u1", "u2")))
    assert sorted(subjects(outputs)) == sorted([(REQUESTS, "user:u1"), (REQUESTS, "user:u2")])


def test_delivered_twice_counts_once(stage, admitted):
    stage.see_items(item())
    batch = [admitted(INTERACTIONS, click(n)) for n in range(K)]
    assert len(stage.see_again(batch)) == 1
    assert stage.see_again(batch) == []
    assert stage.user().n_events == K


def test_a_batch_whose_states_were_not_written_makes_the_same_requests_again(stage, admitted):
    """A crash before the tables' write: the same batch meets the states of before."""
    stage.see_items(item())
    batch = [admitted(INTERACTIONS, click(n)) for n in range(K)]
    first = stage.see_again(batch)
    stage.users.packed[0].clear()
    stage.restart()
    stage.planning.label("n1", item())
    assert [record for _, record in stage.see_again(batch)] == [record for _, record in first]


def test_a_title_that_comes_later_stands_in_the_next_request(stage):
    stage.see_items(item("n1"))
    stage.see(click(1), click(2, ident="n2"))
    stage.see_items(item("n2", title="Late", attributes={"section": ("Rail",)}))
    ((_, request),) = stage.see(click(3))
    assert [entry.title for entry in request.history] == ["Harbour opens", "Late", "Harbour opens"]
    assert request.history[1].attributes == {"section": ("Rail",)}


def test_a_user_whose_items_are_all_unknown_is_asked_for_when_one_becomes_known(stage):
    assert stage.see(*(click(n, ident="n9") for n in range(K)), at_ms=1_000) == []
    assert list(stage.planning.late(2_000)) == []
    stage.see_items(item("n9", title="At last"))
    ((_, request),) = stage.planning.late(3_000)
    assert {entry.title for entry in request.history} == {"At last"}
    assert list(stage.planning.late(90_000)) == []


def test_after_a_while_only_the_next_event_asks_for_such_a_user(stage):
    assert stage.see(*(click(n, ident="n9") for n in range(K)), at_ms=1_000) == []
    for now_ms in range(2_000, 70_000, 1_000):
        assert list(stage.planning.late(now_ms)) == []
    stage.see_items(item("n9", title="At last"))
    assert list(stage.planning.late(90_000)) == []
    ((_, request),) = stage.see(click(8, ident="n9"), at_ms=91_000)
    assert len(request.history) == K + 1


@pytest.fixture
def calm(news, admitted):
    stage = Stage(news, admitted, min_gap_s=10)
    stage.see_items(item())
    return stage


def test_a_request_too_soon_after_the_last_waits_for_its_time_without_another_event(calm):
    assert len(calm.see(*(click(n) for n in range(K)), at_ms=1_000)) == 1
    assert calm.see(*(click(K + n) for n in range(K)), at_ms=2_000) == []
    assert list(calm.planning.late(10_999)) == []
    ((_, request),) = calm.planning.late(11_000)
    assert len(request.history) == 2 * K
    assert list(calm.planning.late(99_000)) == []


def test_a_request_that_waits_after_an_event_made_the_one_before_it_is_made_too(calm):
    assert len(calm.see(*(click(n) for n in range(2 * K)), at_ms=1_000)) == 1  # the next waits until 11 s
    assert len(calm.see(click(2 * K), at_ms=11_000)) == 1
    assert calm.see(*(click(3 * K + n) for n in range(K)), at_ms=12_000) == []
    assert list(calm.planning.late(20_999)) == []
    ((_, request),) = calm.planning.late(21_000)
    assert len(request.history) == 3 * K + 1
    assert list(calm.planning.late(99_000)) == []


def test_a_request_that_waits_is_made_by_who_gets_its_partition_back(calm):
    calm.see(*(click(n) for n in range(2 * K)), at_ms=1_000)
    first = calm.planning
    calm.restart()  # another worker
    assert len(calm.see(click(2 * K), at_ms=11_000)) == 1
    assert calm.see(*(click(3 * K + n) for n in range(K)), at_ms=12_000) == []
    first.arrived(0)
    assert list(first.late(20_999)) == []
    assert subjects(first.late(21_000)) == [(REQUESTS, "user:u1")]


def test_a_request_that_waits_outlives_a_restart(calm):
    calm.see(*(click(n) for n in range(2 * K)), at_ms=1_000)
    calm.restart()
    assert subjects(calm.planning.late(11_000)) == [(REQUESTS, "user:u1")]
