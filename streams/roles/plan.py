"""items and interactions -> what needs knowledge? -> knowledge-requests.

Each worker plans for the items and users of its partitions and knows the titles of all items. What it keeps (content hashes,
users' histories) is in tables; titles and the places of vectors are read again at each start.
"""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack, suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Final

from contracts.errors import VectorError
from contracts.records import EncodedKnowledge, ItemEvent
from contracts.settings import Settings
from contracts.topics import ENCODINGS, INTERACTIONS, ITEMS, PLANNED_ITEMS, PLANNED_USERS
from extractor.planning import ItemPlanner, UserPlanner, UserState
from streams.publisher import KafkaPublisher, wall_ms
from streams.retrying import retrying_until
from streams.roles.groups import Group
from streams.roles.planning import Planning
from streams.roles.steps import Steps
from streams.roles.tables import Table
from streams.tail import Tail

if TYPE_CHECKING:
    from extractor.drift import Drift

log = logging.getLogger(__name__)

_POLLS: Final = 20  # of a tail between two polls of the group: neither starves the other


class Plan:
    """The plan role's loop.

    Args:
        settings: Where the broker is, and how much at once.
        planners: Decide.
        drift: Watches interests; None: nobody does.
        publisher: Where requests go.
    """

    name = "plan"

    def __init__(
        self, settings: Settings, planners: tuple[ItemPlanner, UserPlanner], drift: Drift | None, publisher: KafkaPublisher
    ) -> None:
        self._settings = settings
        self._publisher = publisher
        items: Table[str] = Table(settings, PLANNED_ITEMS, publisher, str.encode, bytes.decode)
        users: Table[UserState] = Table(settings, PLANNED_USERS, publisher, methodcaller("pack"), UserState.unpack)
        self._tables = (items, users)
        self.stage = Planning(items, users, *planners, drift)
        self._drift = drift
        self._working = threading.Event()

    def missing(self) -> str:
        """Not ready until titles are read and partitions are assigned."""
        return "" if self._working.is_set() else "reading items and tables"

    def run(self, stop: threading.Event) -> None:
        """Plan until told to stop."""
        steps = Steps("plan", self._publisher, self._tables, stop)
        with ExitStack() as opened:
            items = opened.enter_context(Tail(self._settings, [ITEMS]))
            while not items.caught_up() and not stop.is_set():  # a backlog's interactions would be planned without their titles
                self._read(items, stop, 50)
            encodings = opened.enter_context(Tail(self._settings, [ENCODINGS])) if self._drift is not None else None
            member = opened.enter_context(Group(self._settings, "plan", [ITEMS, INTERACTIONS], self._settings.plan.batch))
            while not stop.is_set():
                messages = retrying_until(stop)(member.poll, 100)
                steps.follow(member, self.stage.arrived)
                if member.partitions():
                    self._working.set()
                self._read(items, stop)
                if encodings is not None:
                    self._read(encodings, stop)
                messages.sort(key=lambda message: message.topic is not ITEMS)  # items first; stable: partitions keep their order
                steps.take(messages, {ITEMS: self.stage.item, INTERACTIONS: self.stage.interaction})
                steps.add(self.stage.late(wall_ms()))
                steps.finish(member, messages)

    def _read(self, tail: Tail, stop: threading.Event, wait_ms: int = 0) -> None:
        for _ in range(_POLLS):
            batch = retrying_until(stop)(tail.poll, wait_ms)
            if not batch:
                return
            for one in batch:
                if one.topic is ENCODINGS:
                    with suppress(VectorError, ValueError):  # augment, the topic's owner, tells of a bad vector
                        self.stage.place(one.key, one.record if isinstance(one.record, EncodedKnowledge) else None)
                else:
                    self.stage.label(one.key, one.record if isinstance(one.record, ItemEvent) else None)
