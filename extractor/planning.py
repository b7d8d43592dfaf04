"""What needs knowledge? Plain classes over single items and users; exact when records are delivered twice.

**Nothing is lost in a crash.** `UserPlanner.apply` returns a new state and, perhaps, a request. Whoever calls it writes the state
and sends the request in any order, and commits the offsets after both. If it dies in between, the events come again: the state
skips them (it holds the last offset of each partition), and when the one that made the last request due is among them, the
request is made again. A request made twice is the same work twice, and every write behind it is idempotent.

**When a user's knowledge is of** (``as_of_ms``, which decides what is newer): the newest event time, but no later than the broker
received the event, so that one event with a clock ahead does not date all that follow; and one more with every event, so that of
two requests the one with more events is newer, also where event times tie or go back. It comes out of the events and the broker's
times alone: a request that is made again is dated as it was.

**Priority**, higher first: a new or changed item 100 + 100 / (1 + age in hours), so between 100 and 200 and the freshest first; a
user the number of interactions that no knowledge covers yet, up to 99.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from contracts.actions import liked
from contracts.records import HistoryEntry, InteractionEvent, ItemEvent, KnowledgeRequest
from contracts.subjects import item_subject, user_subject

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contracts.settings import Plan
    from extractor.scenario import Scenario

_HOUR_MS: Final = 3_600_000
_MAX_TITLE_CHARS: Final = 300
_MAX_VALUE_CHARS: Final = 60
_MAX_VALUES: Final = 16  # of one item, all attributes together: bounds the state of a user
_MAX_ITEM_VALUES: Final = 16  # of one attribute of an item in a request: bounds the request


def content_hash(item: ItemEvent) -> str:
    """32 hex digits over title, text and attributes: equal means that knowledge need not be made again."""
    return _hash([item.title, item.text, sorted(item.attributes.items())])


def history_hash(history: Sequence[HistoryEntry]) -> str:
    """32 hex digits over who did what when, in this order."""
    return _hash([[entry.item, entry.action, entry.event_ms, entry.value] for entry in history])


@dataclass(frozen=True, slots=True)
class ItemPlanner:
    """Decides for items.

    Args:
        scenario: Its attributes go into the request, others stay out.
    """

    scenario: Scenario

    def plan(self, event: ItemEvent, seen_hash: str | None, trigger_ms: int) -> KnowledgeRequest | None:
        """A request for a new or changed item; None where nothing changed, or where the item is removed.

        A changed item's ``as_of_ms`` is the moment the change was seen, since nothing says when it was made and its knowledge
        must be newer than what it replaces; a new item's is its publication.

        Args:
            event: The item.
            seen_hash: `content_hash` of the last event that a request was sent for. Remember the new one after the request is
                sent: the other way round, a crash in between would lose it.
            trigger_ms: The broker's time of the event.
        """
        if event.removed:
            return None
        source_hash = content_hash(event)
        if source_hash == seen_hash:
            return None
        new = seen_hash is None
        as_of_ms = event.published_ms if new else max(event.published_ms, trigger_ms)
        age_h = max(0, trigger_ms - event.published_ms) / _HOUR_MS
        return KnowledgeRequest(
            subject=item_subject(event.item),
            mode="individual",
            reason="new_item" if new else "changed_item",
            priority=100 + 100 / (1 + age_h),
            as_of_ms=as_of_ms,
            trigger_ms=trigger_ms,
            source_hash=source_hash,
            item=self._shortened(event),
        )

    def _shortened(self, event: ItemEvent) -> ItemEvent:
        kept = {
            name: event.attributes[name][:_MAX_ITEM_VALUES] for name in self.scenario.attributes if event.attributes.get(name)
        }
        return msgspec.structs.replace(event, attributes=kept)


@dataclass(frozen=True, slots=True)
class ItemLabel:
    """What a history keeps of an item: its title and attributes as they were when the user met it."""

    title: str
    attributes: Mapping[str, Sequence[str]] = field(default_factory=dict)


class Delivery(NamedTuple):
    """An event as it came: ``at_ms`` is the broker's time of it, ``label`` what is known of its item (None: nothing yet)."""

    offset: int
    at_ms: int
    event: InteractionEvent
    label: ItemLabel | None


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """All that planning keeps of one user.

    ``history`` is in event-time order, the newest ``plan.history`` entries. ``offsets`` holds the last offset applied, by
    partition; ``due_at`` the (partition, offset) of the event that made the last request due. ``as_of_ms`` grows with
    every event.
    """

    user: str
    history: tuple[HistoryEntry, ...] = ()
    n_events: int = 0
    n_since_knowledge: int = 0
    last_event_ms: int = 0
    as_of_ms: int = -1
    offsets: dict[int, int] = {}
    due_at: tuple[int, int] | None = None

    def pack(self) -> bytes:
        """The state as msgpack; `unpack` is its inverse."""
        return _encoder.encode(self)

    @staticmethod
    def unpack(raw: bytes) -> UserState:
        """The state in ``raw``.

        Raises:
            msgspec.DecodeError: It is none (a damaged table).
        """
        return _decoder.decode(raw)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(UserState)


@dataclass(frozen=True, slots=True)
class UserPlanner:
    """Decides for users: K new interactions, one request.

    Args:
        settings: K and the length of the history.
        scenario: Its attributes are kept in histories, others are not.
    """

    settings: Plan
    scenario: Scenario

    def apply(
        self, state: UserState | None, events: Sequence[Delivery], partition: int
    ) -> tuple[UserState, KnowledgeRequest | None]:
        """The state after some events of one user, and the request that they make due.

        The state depends on the events alone, not on how they were cut into batches or how often they came; the request holds the
        whole state of the batch's end, so several that fall due in one batch are one.

        Args:
            state: What `apply` returned last; None for a new user.
            events: At least one, all of one user and one partition, offsets ascending but for repetitions.
            partition: Where they came from.

        Raises:
            ValueError: No events, or events of several users.
        """
        users = {one.event.user for one in events} | ({state.user} if state else set())
        if len(users) != 1:
            raise ValueError(f"got events of {len(users)} users; wanted at least one event, all of one user")
        new = state or UserState(user=users.pop())
        due = False
        for one in events:
            if one.offset > new.offsets.get(partition, -1):
                new = self._learn(new, one, partition)
            due = due or new.due_at == (partition, one.offset)  # also where it was applied before: the request may not have left
        return new, self._request(new, events[-1].at_ms) if due else None

    def _learn(self, state: UserState, one: Delivery, partition: int) -> UserState:
        entry = self._entry(one.event, one.label)
        place = bisect_right(state.history, entry.event_ms, key=lambda other: other.event_ms)
        history = (*state.history[:place], entry, *state.history[place:])[-self.settings.history :]
        n_since = state.n_since_knowledge + 1
        due = n_since >= self.settings.interactions_per_request
        last_event_ms = max(state.last_event_ms, one.event.event_ms)
        return UserState(
            user=state.user,
            history=history,
            n_events=state.n_events + 1,
            n_since_knowledge=0 if due else n_since,
            last_event_ms=last_event_ms,
            as_of_ms=max(min(last_event_ms, one.at_ms), state.as_of_ms + 1),
            offsets={**state.offsets, partition: one.offset},
            due_at=(partition, one.offset) if due else state.due_at,
        )

    def not_yet(self, state: UserState) -> UserState:
        """The state after a request that was not sent: the next interaction makes one due again."""
        n_since = max(state.n_since_knowledge, self.settings.interactions_per_request - 1)
        return msgspec.structs.replace(state, n_since_knowledge=n_since, due_at=None)

    def labelled(self, entry: HistoryEntry, label: ItemLabel) -> HistoryEntry:
        """The entry with what is known of its item, cut to what a prompt needs: a history has a bound, whatever items carry."""
        attributes: dict[str, tuple[str, ...]] = {}
        left = _MAX_VALUES
        for name in self.scenario.attributes:
            values = label.attributes.get(name, ())[:left]
            if values:
                attributes[name] = tuple(value[:_MAX_VALUE_CHARS] for value in values)
                left -= len(values)
        return msgspec.structs.replace(entry, title=label.title[:_MAX_TITLE_CHARS], attributes=attributes)

    def _entry(self, event: InteractionEvent, label: ItemLabel | None) -> HistoryEntry:
        entry = HistoryEntry(
            item=event.item,
            title="",
            action=event.action,
            event_ms=event.event_ms,
            liked=liked(event.action, event.value),
            value=event.value,
        )
        return self.labelled(entry, label) if label else entry

    def _request(self, state: UserState, trigger_ms: int) -> KnowledgeRequest:
        return KnowledgeRequest(
            subject=user_subject(state.user),
            mode="individual",
            reason="new_interactions",
            priority=float(min(99, self.settings.interactions_per_request + state.n_since_knowledge)),
            as_of_ms=state.as_of_ms,
            trigger_ms=trigger_ms,
            source_hash=history_hash(state.history),
            history=state.history,
        )


def _hash(parts: Any) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32]
