"""The one codec: records to bytes and back, strict. Every record enters reki through `decode`, once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import msgspec

from contracts.errors import RecordError
from contracts.records import EdgeRecord, InnerRecord, InteractionEvent, ItemEvent, RankRequest
from contracts.topics import Topic

MAX_RECORD_BYTES = 900_000  # below Kafka's default message.max.bytes (1,048,588), with room for headers
FAR_FUTURE_MS = 24 * 3600 * 1000  # clocks of producers may be wrong by a day, not by more

Record = EdgeRecord | InnerRecord
R = TypeVar("R", bound=EdgeRecord | InnerRecord)

_json = msgspec.json.Encoder(decimal_format="number")
_msgpack = msgspec.msgpack.Encoder()


@cache
def _decoder(topic: Topic) -> Callable[[bytes], Any]:
    if topic.wire == "msgpack":
        return msgspec.msgpack.Decoder(topic.record).decode
    return msgspec.json.Decoder(topic.record).decode


def encode(topic: Topic, record: Record) -> bytes:
    """Bytes of a record as this topic carries them (JSON, or msgpack where vectors travel)."""
    return _msgpack.encode(record) if topic.wire == "msgpack" else _json.encode(record)


def key_of(topic: Topic, record: Record) -> bytes:
    """The partition key of a record: the field that the topic names, as UTF-8."""
    return str(getattr(record, topic.key)).encode()


def decode(topic: Topic, raw: bytes, *, as_type: type[R], now_ms: int) -> R:
    """The record in ``raw``, checked against the topic's schema.

    Args:
        topic: Where it came from.
        raw: The message's value.
        as_type: The record type that the caller expects; must be the topic's.
        now_ms: Wall clock; an event time more than a day after it is refused.

    Raises:
        RecordError: With what was got and wanted; the record belongs into the dead letters.
    """
    wanted = f"a {topic.record.__name__} as `reki schema {topic.name}` prints it"
    todo = "mend the producer; the record is kept in dead-letters"
    if len(raw) > MAX_RECORD_BYTES:
        raise RecordError(f"{len(raw)} bytes", wanted=f"at most {MAX_RECORD_BYTES} bytes", todo=todo)
    try:
        record = _decoder(topic)(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise RecordError(f"{_short(raw)} ({error})", wanted=wanted, todo=todo) from error
    if not isinstance(record, as_type):
        raise TypeError(f"topic {topic.name} carries {topic.record.__name__}, not {as_type.__name__}")
    latest_ms = _event_time_ms(record)
    if latest_ms > now_ms + FAR_FUTURE_MS:
        raise RecordError(f"event time {latest_ms} ms", wanted=f"at most a day after now ({now_ms} ms)", todo=todo)
    return record


def schemas() -> dict[str, dict[str, Any]]:
    """JSON Schema of every record, by record name (what `reki schema` prints)."""
    from contracts.topics import TOPICS

    types = list(dict.fromkeys(topic.record for topic in TOPICS))
    _, components = msgspec.json.schema_components(types, ref_template="#/$defs/{name}")
    return components


def _event_time_ms(record: object) -> int:
    match record:
        case InteractionEvent(event_ms=at) | RankRequest(event_ms=at):
            return at
        case ItemEvent(published_ms=at):
            return at
        case _:
            return 0


def _short(raw: bytes, n_bytes: int = 80) -> str:
    return repr(raw[:n_bytes]) + ("..." if len(raw) > n_bytes else "")
