"""items and interactions -> what needs knowledge? -> knowledge-requests.

The catalogue (every worker needs all titles) and the users' histories are faust tables: in memory, and in their changelogs, from
which a restarted worker comes back. Both are written under the entity's own key, so their partitions are those of `items` and
`interactions`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from typing import Any

import faust
import msgspec
from faust.types import StreamT

from contracts.records import HistoryEntry, InteractionEvent, ItemEvent, KnowledgeRequest
from contracts.settings import Settings
from contracts.subjects import item_subject
from contracts.topics import INTERACTIONS, ITEMS, REQUESTS
from extractor.planning import Delivery, ItemLabel, ItemPlanner, UserPlanner, UserState, content_hash
from streams.agents.app import Changelogs, batches, changelogs_known, faust_app, source
from streams.agents.batches import BatchHandler, Output
from streams.edge import Admitted
from streams.retrying import retrying
from streams.topics import end_offsets, lag

Table = Any  # faust's tables are dicts of bytes to bytes here


class SeenItem(msgspec.Struct, frozen=True):
    """What planning keeps of an item."""

    content_hash: str
    title: str
    attributes: dict[str, tuple[str, ...]]


_items = msgspec.msgpack.Decoder(SeenItem)


class Planning:
    """The plan stage over its two tables.

    Args:
        items: item -> packed `SeenItem`.
        users: user -> packed `UserState`.
        item_planner: Decides for items.
        user_planner: Decides for users.
    """

    def __init__(self, items: Table, users: Table, item_planner: ItemPlanner, user_planner: UserPlanner) -> None:
        self._items = items
        self._users = users
        self._item_planner = item_planner
        self._user_planner = user_planner

    async def items(self, admitted: list[Admitted]) -> list[Output]:
        """Requests for new and changed items (the last event of each counts); removals of the others.

        A removal goes where the requests go, so that an answer to one of them cannot come after it.
        """
        outputs: list[Output] = []
        for one in {one.key: one for one in admitted}.values():
            event = one.record
            if event is None or (isinstance(event, ItemEvent) and event.removed):
                outputs.append((REQUESTS, item_subject(one.key)))
            elif isinstance(event, ItemEvent):
                seen = self._seen(event.item)
                request = self._item_planner.plan(event, seen.content_hash if seen else None, one.raw.at_ms)
                outputs += [(REQUESTS, request)] if request else []
        return outputs

    def remember(self, admitted: list[Admitted]) -> None:
        """Keep what was seen of these items: only after their requests are safe."""
        for one in admitted:
            event = one.record
            if event is None or (isinstance(event, ItemEvent) and event.removed):
                self._items.pop(one.key.encode(), None)
            elif isinstance(event, ItemEvent):
                seen = SeenItem(content_hash(event), event.title, event.attributes)
                self._items[event.item.encode()] = msgspec.msgpack.encode(seen)

    async def interactions(self, admitted: list[Admitted]) -> list[Output]:
        """Requests for users with enough news. One read and one write of a user's state per batch."""
        by_user: dict[tuple[str, int], list[Admitted]] = defaultdict(list)
        for one in admitted:
            if isinstance(one.record, InteractionEvent):
                by_user[one.record.user, one.raw.partition].append(one)
        outputs: list[Output] = []
        for (user, partition), deliveries in by_user.items():
            packed = self._users.get(user.encode())
            state = UserState.unpack(packed) if packed else None
            new, request = self._user_planner.apply(state, [self._delivery(one) for one in deliveries], partition)
            if request is not None:
                request = self._titled(request)
                if any(entry.title or entry.attributes for entry in request.history):
                    outputs.append((REQUESTS, request))
                else:  # nothing to say about a user whose items are all unknown
                    new = self._user_planner.not_yet(new)
            self._users[user.encode()] = new.pack()
        return outputs

    def _delivery(self, one: Admitted) -> Delivery:
        event = one.record
        assert isinstance(event, InteractionEvent)
        seen = self._seen(event.item)
        label = ItemLabel(seen.title, seen.attributes) if seen else None
        return Delivery(one.raw.offset, one.raw.at_ms, event, label)

    def _titled(self, request: KnowledgeRequest) -> KnowledgeRequest:
        """The request with titles of items that were not known yet when the user met them (two topics, no order between them)."""

        def titled(entry: HistoryEntry) -> HistoryEntry:
            seen = None if entry.title else self._seen(entry.item)
            return self._user_planner.labelled(entry, ItemLabel(seen.title, seen.attributes)) if seen else entry

        return msgspec.structs.replace(request, history=tuple(map(titled, request.history)))

    def _seen(self, item: str) -> SeenItem | None:
        packed = self._items.get(item.encode())
        return _items.decode(packed) if packed else None


def plan_app(settings: Settings, planners: tuple[ItemPlanner, UserPlanner], handler: BatchHandler) -> faust.App:
    """The app of the plan role."""
    app = faust_app(settings, "plan")
    kinds: dict[str, Any] = {"key_type": bytes, "value_type": bytes, "partitions": settings.kafka.partitions}
    items = app.GlobalTable("catalogue", use_partitioner=True, **kinds)
    users = app.Table("histories", use_partitioner=True, **kinds)
    planning = Planning(items, users, *planners)
    seen, known = Changelogs(items), Changelogs(users)

    @app.agent(source(app, settings, ITEMS))
    async def plan_items(stream: StreamT[Any]) -> None:
        await changelogs_known(app, items)
        async for events in batches(stream, settings.plan.batch):
            await handler.handle(ITEMS, events, planning.items, planning.remember)
            await seen.written()

    @app.agent(source(app, settings, INTERACTIONS))
    async def plan_interactions(stream: StreamT[Any]) -> None:
        await changelogs_known(app, users)
        await _items_first(settings)
        async for events in batches(stream, settings.plan.batch):
            await handler.handle(INTERACTIONS, events, planning.interactions)
            await known.written()

    return app


async def _items_first(settings: Settings) -> None:
    """Return when the items that are there now are known: a backlog's interactions would be planned without their titles."""
    async for attempt in retrying():
        with attempt:
            ends = await asyncio.to_thread(end_offsets, settings, (ITEMS,))
            while (await asyncio.to_thread(lag, settings, "plan", (ITEMS,), ends))[ITEMS.name]:  # noqa: ASYNC110 the broker is asked
                await asyncio.sleep(0.2)
