"""What needs knowledge? Plain classes over single items and users; exact when records are delivered twice.

**Users** are asked about again after K new interactions (``new_interactions``), when their likes move away from what is known of
them (``drift``, a verdict that comes in with the event: `extractor.drift`), and when they are active and were last asked about
too long ago (``old_knowledge``). Two requests about one user are at least ``plan.min_gap_s`` apart. What falls due earlier waits
in the state (``due``, ``due_since_ms``): the next event after `UserPlanner.ready_at_ms`, or `UserPlanner.late`, makes the
request.

**Nothing is lost in a crash**, where the caller keeps this order for every batch: `UserPlanner.apply` (nothing changes yet), the
requests sent and acknowledged, the new states written and acknowledged, the offsets committed. A crash repeats the batch.
With the old states the same decisions are made again: a request may be made twice, and every write behind it is idempotent.
With the new states (they hold the last offset of each partition) the events are passed over and make nothing due, for their
requests are safe. So after any crash every event is covered by a request that was sent, or counted in ``n_since_knowledge``.
The same order holds for `UserPlanner.late`. All times are given by the caller: none of it reads a clock.

**When a user's knowledge is of** (``as_of_ms``, which decides what is newer): the newest event time, but no later than the broker
received the event, so that one event with a clock ahead does not date all that follow; and one more with every event, so that of
two requests the one with more events is newer, also where event times tie or go back. Every entry of a history keeps the date of
its arrival, so that an update shows just what the knowledge before does not cover. It comes out of the events and the broker's
times alone: a request that is made again is dated as it was.

**Priority**: traffic x staleness (`extractor.priority`).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from contracts.actions import liked
from contracts.records import HistoryEntry, InteractionEvent, ItemEvent, KnowledgeRequest, Reason
from contracts.subjects import item_subject, user_subject
from extractor.priority import item_priority, traffic_after, user_priority

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from contracts.settings import Plan
    from extractor.scenario import Scenario

_HOUR_MS: Final = 3_600_000
_NEVER: Final = -1  # a broker's time
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

    def plan(self, event: ItemEvent, seen_hash: str | None, trigger_ms: int, *, traffic: float = 0.0) -> KnowledgeRequest | None:
        """A request for a new or changed item; None where nothing changed, or where the item is removed.

        A changed item's ``as_of_ms`` is the moment the change was seen, since nothing says when it was made and its knowledge
        must be newer than what it replaces; a new item's is its publication.

        Args:
            event: The item.
            seen_hash: `content_hash` of the last event that a request was sent for. Remember the new one after the request is
                sent: the other way round, a crash in between would lose it.
            trigger_ms: The broker's time of the event.
            traffic: Of the item at ``trigger_ms`` (`extractor.priority.traffic_at`).
        """
        if event.removed:
            return None
        source_hash = content_hash(event)
        if source_hash == seen_hash:
            return None
        new = seen_hash is None
        as_of_ms = event.published_ms if new else max(event.published_ms, trigger_ms)
        return KnowledgeRequest(
            subject=item_subject(event.item),
            mode="individual",
            reason="new_item" if new else "changed_item",
            priority=item_priority(trigger_ms - event.published_ms, traffic),
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
    """An event as it came: ``at_ms`` is the broker's time of it, ``label`` what is known of its item (None: nothing yet).

    ``drifted``: with this event the user's likes have moved away from the knowledge (`extractor.drift.Drift.observe`).
    """

    offset: int
    at_ms: int
    event: InteractionEvent
    label: ItemLabel | None
    drifted: bool = False


class UserState(msgspec.Struct, frozen=True, kw_only=True):
    """All that planning keeps of one user.

    ``history`` is in event-time order, the newest ``plan.history`` entries; ``n_since_knowledge`` counts the events that no
    request covers. ``offsets`` holds the last offset applied, by partition. ``due`` says why a request waits and ``due_since_ms``
    since when; ``asked_at_ms`` is when the last one was made, -1 for never (all broker's time). ``traffic`` holds for
    ``traffic_ms`` (event time). ``as_of_ms`` grows with every event.
    """

    user: str
    history: tuple[HistoryEntry, ...] = ()
    n_events: int = 0
    n_since_knowledge: int = 0
    last_event_ms: int = 0
    as_of_ms: int = -1
    offsets: dict[int, int] = {}
    due: Reason | None = None
    due_since_ms: int = _NEVER
    asked_at_ms: int = _NEVER
    traffic: float = 0.0
    traffic_ms: int = 0

    @property
    def staleness(self) -> float:
        """Share of the history that no request covers; 1 where there was none."""
        if self.asked_at_ms == _NEVER or not self.history:
            return 1.0
        return min(1.0, self.n_since_knowledge / len(self.history))

    def has_seen(self, partition: int, offset: int) -> bool:
        """Whether this event was applied before: then it changes nothing."""
        return offset <= self.offsets.get(partition, -1)

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
    """Decides for users. Every method is pure: a state goes in, another one comes out.

    Args:
        settings: K, the length of the history, the gap and the age.
        scenario: Its attributes are kept in histories, others are not.
    """

    settings: Plan
    scenario: Scenario

    def apply(
        self, state: UserState | None, events: Sequence[Delivery], partition: int
    ) -> tuple[UserState, KnowledgeRequest | None]:
        """The state after some events of one user, and the last request that they make, if any.

        State and request depend on the events alone, not on how they were cut into batches or how often they came. A request
        covers the events up to the one that makes it; what follows in the batch is left to the next.

        Args:
            state: What this class returned last; None for a new user.
            events: At least one, all of one user and one partition, offsets ascending but for repetitions.
            partition: Where they came from.

        Raises:
            ValueError: No events, or events of several users.
        """
        users = {one.event.user for one in events} | ({state.user} if state else set())
        if len(users) != 1:
            raise ValueError(f"got events of {len(users)} users; wanted at least one event, all of one user")
        new, request = state or UserState(user=users.pop()), None
        for one in events:
            if not new.has_seen(partition, one.offset):
                new = self._learn(new, one, partition)
                new, request = self.late(new, one.at_ms) or (new, request)
        return new, request

    def ready_at_ms(self, state: UserState) -> int | None:
        """When the request that waits may be made, in broker's time; None where none waits."""
        if state.due is None:
            return None
        if state.asked_at_ms == _NEVER:
            return state.due_since_ms
        return max(state.due_since_ms, state.asked_at_ms + round(1_000 * self.settings.min_gap_s))

    def late(self, state: UserState, now_ms: int) -> tuple[UserState, KnowledgeRequest] | None:
        """The request that waits and the state after it; None where none waits or its time has not come.

        Args:
            state: What this class returned last.
            now_ms: On the broker's clock, as good as it is known.
        """
        ready_at_ms = self.ready_at_ms(state)
        if state.due is None or ready_at_ms is None or now_ms < ready_at_ms:
            return None
        request = KnowledgeRequest(
            subject=user_subject(state.user),
            mode="individual",
            reason=state.due,
            priority=user_priority(state.traffic, state.staleness),
            as_of_ms=state.as_of_ms,
            trigger_ms=state.due_since_ms,
            source_hash=history_hash(state.history),
            history=state.history,
        )
        after = msgspec.structs.replace(state, n_since_knowledge=0, due=None, due_since_ms=_NEVER, asked_at_ms=now_ms)
        return after, request

    def not_yet(self, state: UserState, request: KnowledgeRequest) -> UserState:
        """The state after a request that was made but not sent: it waits on, as if the user had never been asked about."""
        return msgspec.structs.replace(
            state,
            n_since_knowledge=max(state.n_since_knowledge, self.settings.interactions_per_request),
            due=request.reason,
            due_since_ms=request.trigger_ms,
            asked_at_ms=_NEVER,
        )

    def _learn(self, state: UserState, one: Delivery, partition: int) -> UserState:
        last_event_ms = max(state.last_event_ms, one.event.event_ms)
        as_of_ms = max(min(last_event_ms, one.at_ms), state.as_of_ms + 1)
        entry = self._entry(one.event, one.label, as_of_ms)
        place = bisect_right(state.history, entry.event_ms, key=lambda other: other.event_ms)
        # no later than the broker received it: one clock ahead must not make all traffic so far look old
        traffic, traffic_ms = traffic_after(state.traffic, state.traffic_ms, min(one.event.event_ms, one.at_ms))
        reason = state.due or self._reason(state, one)
        return UserState(
            user=state.user,
            history=(*state.history[:place], entry, *state.history[place:])[-self.settings.history :],
            n_events=state.n_events + 1,
            n_since_knowledge=state.n_since_knowledge + 1,
            last_event_ms=last_event_ms,
            as_of_ms=as_of_ms,
            offsets={**state.offsets, partition: one.offset},
            due=reason,
            due_since_ms=state.due_since_ms if state.due else one.at_ms if reason else _NEVER,
            asked_at_ms=state.asked_at_ms,
            traffic=traffic,
            traffic_ms=traffic_ms,
        )

    def _reason(self, state: UserState, one: Delivery) -> Reason | None:
        """Why this event makes a request due, if it does."""
        if one.drifted:
            return "drift"
        if state.n_since_knowledge + 1 >= self.settings.interactions_per_request:
            return "new_interactions"
        max_age_ms = self.settings.max_age_hours * _HOUR_MS
        if max_age_ms and state.asked_at_ms != _NEVER and one.at_ms - state.asked_at_ms >= max_age_ms:
            return "old_knowledge"
        return None

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

    def _entry(self, event: InteractionEvent, label: ItemLabel | None, as_of_ms: int) -> HistoryEntry:
        entry = HistoryEntry(
            item=event.item,
            title="",
            action=event.action,
            event_ms=event.event_ms,
            as_of_ms=as_of_ms,
            liked=liked(event.action, event.value),
            value=event.value,
        )
        return self.labelled(entry, label) if label else entry


def _hash(parts: Any) -> str:
    return hashlib.sha256(msgspec.msgpack.encode(parts)).hexdigest()[:32]
