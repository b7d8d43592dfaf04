"""The plan stage over its tables: one record in, requests out. Knows no broker; `streams.roles.plan` moves the records."""

from __future__ import annotations

import heapq
from collections import Counter
from typing import TYPE_CHECKING, Final

import msgspec
from cachetools import LRUCache

from contracts.records import EncodedKnowledge, HistoryEntry, InteractionEvent, ItemEvent, KnowledgeRequest
from contracts.subjects import item_subject
from contracts.topics import REQUESTS
from extractor.planning import Delivery, ItemLabel, ItemPlanner, UserPlanner, UserState, content_hash
from extractor.priority import traffic_after, traffic_at

if TYPE_CHECKING:
    from collections.abc import Iterable, MutableMapping

    from extractor.drift import Drift
    from streams.agents.batches import Output
    from streams.edge import Admitted
    from streams.roles.tables import Table

_TITLES_COME_MS: Final = 60_000  # items and interactions are two topics, without an order between them
_LOOK_AGAIN_MS: Final = 1_000
_COUNTED_ITEMS: Final = 100_000  # items whose traffic is counted, the most recent
_NO_TRAFFIC: Final = (0.0, 0)


class Planning:
    """Decides what needs knowledge. ``counts`` holds the requests made, by reason.

    Args:
        items: item -> `content_hash` of the last event that was asked about.
        users: user -> state.
        item_planner: Decides for items.
        user_planner: Decides for users.
        drift: Watches likes move away from what is known of their users; None: nobody does.
    """

    def __init__(
        self,
        items: Table[str],
        users: Table[UserState],
        item_planner: ItemPlanner,
        user_planner: UserPlanner,
        drift: Drift | None = None,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._items = items
        self._users = users
        self._item_planner = item_planner
        self._user_planner = user_planner
        self._drift = drift
        self._labels: dict[str, ItemLabel] = {}
        self._traffic: MutableMapping[str, tuple[float, int]] = LRUCache(_COUNTED_ITEMS)  # with the time that it holds for
        self._late: list[tuple[int, int, str]] = []  # (ready at ms, partition, user)
        self._waiting: set[tuple[int, str]] = set()  # who is in it

    def label(self, item: str, event: ItemEvent | None) -> None:
        """What an item is called now, of all partitions; None: it is gone, but histories keep what they have."""
        if event is None or event.removed:
            self._labels.pop(item, None)
        else:
            kept = {name: event.attributes[name] for name in self._item_planner.scenario.attributes if name in event.attributes}
            self._labels[item] = ItemLabel(event.title, kept)

    def place(self, subject: str, encoded: EncodedKnowledge | None) -> None:
        """Where an item or the knowledge of a user is among the encoder's vectors; None: nowhere any more."""
        if self._drift is None:
            return
        if encoded is None:
            self._drift.forget(subject)
        else:
            self._drift.learn(encoded)

    def item(self, one: Admitted) -> Iterable[Output]:
        """A request for a new or changed item; the removal of one goes where the requests go, so that no answer can follow it."""
        event, partition = one.record, one.raw.partition
        self.label(one.key, event if isinstance(event, ItemEvent) else None)  # at once: its interactions may be in this batch
        if event is None or (isinstance(event, ItemEvent) and event.removed):
            self._items.put(partition, one.key, None)
            return [(REQUESTS, item_subject(one.key))]
        assert isinstance(event, ItemEvent)
        seen = self._items.get(partition, event.item)
        traffic = traffic_at(*self._traffic.get(event.item, _NO_TRAFFIC), one.raw.at_ms)
        request = self._item_planner.plan(event, seen, one.raw.at_ms, traffic=traffic)
        if request is None:
            return []
        self._items.put(partition, event.item, content_hash(event))
        return self._asked(request)

    def interaction(self, one: Admitted) -> Iterable[Output]:
        """A request for a user with enough news."""
        event, partition = one.record, one.raw.partition
        assert isinstance(event, InteractionEvent)
        state = self._users.get(partition, event.user)
        if state is not None and state.has_seen(partition, one.raw.offset):
            return []  # delivered before
        met_ms = min(event.event_ms, one.raw.at_ms)  # one clock ahead must not make all traffic so far look old
        self._traffic[event.item] = traffic_after(*self._traffic.get(event.item, _NO_TRAFFIC), met_ms)
        drifted = self._drift is not None and self._drift.observe(event)
        delivery = Delivery(one.raw.offset, one.raw.at_ms, event, self._labels.get(event.item), drifted=drifted)
        new, request = self._user_planner.apply(state, [delivery], partition)
        return self._settle(partition, new, request, one.raw.at_ms)

    def late(self, now_ms: int) -> Iterable[Output]:
        """Requests that fell due too soon after the one before and whose time has come."""
        outputs: list[Output] = []
        while self._late and self._late[0][0] <= now_ms:
            _, partition, user = heapq.heappop(self._late)
            self._waiting.discard((partition, user))
            state = self._users.get(partition, user)
            if state is None:
                continue
            if (made := self._user_planner.late(state, now_ms)) is not None:
                outputs += self._settle(partition, *made, now_ms)
            elif (ready_at_ms := self._user_planner.ready_at_ms(state)) is not None:  # a later request than it waited for
                self._wait(partition, user, ready_at_ms)
        return outputs

    def arrived(self, partition: int) -> None:
        """A partition's tables are there: find the users whose requests wait."""
        for user, state in self._users.items(partition):
            ready_at_ms = self._user_planner.ready_at_ms(state)
            if ready_at_ms is not None:
                self._wait(partition, user, ready_at_ms)

    def _settle(self, partition: int, new: UserState, request: KnowledgeRequest | None, now_ms: int) -> Iterable[Output]:
        if request is not None:
            request = self._titled(request)
            if not any(entry.title or entry.attributes for entry in request.history):
                return self._untitled(partition, self._user_planner.not_yet(new, request), now_ms)
        self._users.put(partition, new.user, new)
        ready_at_ms = self._user_planner.ready_at_ms(new)
        if ready_at_ms is not None:
            self._wait(partition, new.user, ready_at_ms)
        return self._asked(request) if request else []

    def _untitled(self, partition: int, state: UserState, now_ms: int) -> Iterable[Output]:
        """Nothing to say about a user whose items are all unknown: looked at again, for a while, and at the next event."""
        self._users.put(partition, state.user, state)
        if now_ms < state.due_since_ms + _TITLES_COME_MS:
            self._wait(partition, state.user, now_ms + _LOOK_AGAIN_MS)
        return []

    def _wait(self, partition: int, user: str, until_ms: int) -> None:
        if (partition, user) not in self._waiting:
            self._waiting.add((partition, user))
            heapq.heappush(self._late, (until_ms, partition, user))

    def _asked(self, request: KnowledgeRequest) -> Iterable[Output]:
        self.counts[request.reason] += 1
        return [(REQUESTS, request)]

    def _titled(self, request: KnowledgeRequest) -> KnowledgeRequest:
        """The request with titles of items that were not known yet when the user met them (two topics, no order between them)."""

        def titled(entry: HistoryEntry) -> HistoryEntry:
            label = None if entry.title else self._labels.get(entry.item)
            return self._user_planner.labelled(entry, label) if label else entry

        return msgspec.structs.replace(request, history=tuple(map(titled, request.history)))
