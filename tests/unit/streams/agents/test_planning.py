"""Planning over its two tables, with dicts for tables."""

import asyncio

import msgspec
import pytest

from contracts.records import InteractionEvent, ItemEvent
from contracts.settings import Plan
from contracts.topics import INTERACTIONS, ITEMS, REQUESTS
from extractor.planning import ItemPlanner, UserPlanner, UserState
from streams.agents.plan import Planning

K = 3


class Stage:
    def __init__(self, news, admitted):
        self.items, self.users = {}, {}
        self.planning = Planning(self.items, self.users, ItemPlanner(news), UserPlanner(Plan(interactions_per_request=K), news))
        self.admitted = admitted

    def see_items(self, *events, remember=True):
        batch = [self.admitted(ITEMS, event) for event in events]
        outputs = asyncio.run(self.planning.items(batch))
        if remember:
            self.planning.remember(batch)
        return outputs

    def see(self, *events):
        return self.see_again([self.admitted(INTERACTIONS, event) for event in events])

    def see_again(self, batch):
        return asyncio.run(self.planning.interactions(batch))


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


def test_a_changed_item_asks_again(stage):
    stage.see_items(item())
    ((_, request),) = stage.see_items(item(title="Harbour closes"))
    assert (request.reason, request.item.title) == ("changed_item", "Harbour closes")


def test_of_one_item_in_a_batch_the_last_event_counts(stage):
    ((_, request),) = stage.see_items(item(), item(title="Second"), item(title="Third"))
    assert request.item.title == "Third"
    assert stage.see_items(item(title="Third")) == []


def test_before_it_is_remembered_the_same_item_is_asked_for_again(stage):
    """A crash between the request and the memory must not lose the request."""
    assert stage.see_items(item(), remember=False)
    assert stage.items == {}
    assert stage.see_items(item())


@pytest.mark.parametrize("removal", ["n1", item(removed=True)], ids=["tombstone", "removal"])
def test_a_removed_item_becomes_a_tombstone_among_the_requests_and_is_new_when_it_comes_back(stage, removal):
    stage.see_items(item())
    assert stage.see_items(removal) == [(REQUESTS, "item:n1")]
    assert stage.items == {}
    ((_, request),) = stage.see_items(item())
    assert request.reason == "new_item"


def test_a_user_is_asked_for_after_k_interactions_whatever_the_batches(stage):
    stage.see_items(item())
    assert stage.see(click(1), click(2)) == []
    ((topic, request),) = stage.see(click(3), click(4))
    assert topic is REQUESTS
    assert [entry.event_ms for entry in request.history] == [1_001, 1_002, 1_003, 1_004]
    assert stage.see(click(5)) == []
    assert UserState.unpack(stage.users[b"u1"]).n_events == 5


def test_users_of_one_batch_are_kept_apart(stage):
    stage.see_items(item())
    outputs = stage.see(*(click(n, user) for n in range(K) for user in ("u1", "u2")))
    assert sorted(subjects(outputs)) == sorted([(REQUESTS, "user:u1"), (REQUESTS, "user:u2")])


def test_delivered_twice_counts_once_and_a_request_that_may_be_lost_is_made_again(stage, admitted):
    stage.see_items(item())
    batch = [admitted(INTERACTIONS, click(n)) for n in range(K)]
    first, again = stage.see_again(batch), stage.see_again(batch)
    assert [record for _, record in first] == [record for _, record in again]
    assert UserState.unpack(stage.users[b"u1"]).n_events == K


def test_a_title_that_comes_later_stands_in_the_next_request(stage):
    stage.see_items(item("n1"))
    stage.see(click(1), click(2, ident="n2"))
    stage.see_items(item("n2", title="Late", attributes={"section": ("Rail",)}))
    ((_, request),) = stage.see(click(3))
    assert [entry.title for entry in request.history] == ["Harbour opens", "Late", "Harbour opens"]
    assert request.history[1].attributes == {"section": ("Rail",)}


def test_a_user_whose_items_are_all_unknown_is_asked_for_with_the_next_interaction_that_is_not(stage):
    assert stage.see(*(click(n, ident="n9") for n in range(K))) == []
    assert stage.see(click(7, ident="n9")) == []
    stage.see_items(item("n9", title="At last"))
    ((_, request),) = stage.see(click(8, ident="n9"))
    assert {entry.title for entry in request.history} == {"At last"}
    assert UserState.unpack(stage.users[b"u1"]).n_events == K + 2


def test_tables_hold_bytes_only(stage):
    stage.see_items(item())
    stage.see(click(1))
    assert all(isinstance(part, bytes) for table in (stage.items, stage.users) for pair in table.items() for part in pair)
    assert msgspec.msgpack.decode(stage.items[b"n1"])["title"] == "Harbour opens"
