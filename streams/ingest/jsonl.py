"""JSON lines to Kafka: a good line goes to its topic, a bad one to the dead letters with its line number, and the run goes on."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

import msgspec

from contracts.codec import MAX_RECORD_BYTES, decode
from contracts.errors import RecordError
from contracts.ports import Publisher
from contracts.records import DeadLetter
from contracts.topics import DEAD_LETTERS, INTERACTIONS, ITEMS, Topic

UNTOLD: Final = "unknown"  # topic of a dead letter whose fields do not say what it should have been
MAX_KEPT_BYTES: Final = 500_000  # of a bad line: base64 makes it a third longer, and a record must stay below 900,000
FLUSH_EVERY: Final = 1_000

_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])


@dataclass(slots=True)
class Ingested:
    """Lines read, records sent by topic, dead letters by the topic they were meant for."""

    lines: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    dead: Counter[str] = field(default_factory=Counter)


class JsonLines:
    """Sends the lines of files.

    Args:
        publisher: Where to.
        clock_ms: Wall clock.
    """

    def __init__(self, publisher: Publisher, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._publisher = publisher
        self._clock_ms = clock_ms

    def ingest(
        self, source: BinaryIO, origin: str, topic: Topic | None = None, progress: Callable[[int], None] = lambda _: None
    ) -> Ingested:
        """Send every line of a file; empty lines are passed over.

        Args:
            source: Binary lines; read one by one, none held longer than `MAX_RECORD_BYTES`.
            origin: Name of the source, for the dead letters.
            topic: Where all lines belong; None: told by their fields (``action`` makes an interaction).
            progress: Called with the number of bytes of each line.

        Raises:
            UnavailableError: The broker does not answer.
        """
        done = Ingested()
        for number, (line, n_bytes) in enumerate(_lines(source), 1):
            progress(n_bytes)
            if not line.strip():
                continue
            done.lines += 1
            meant = topic if topic is not None else _told(line)
            now_ms = self._clock_ms()
            try:
                self._send(meant, line, now_ms)
                done.sent[meant.name if meant is not None else UNTOLD] += 1
            except RecordError as error:
                name = UNTOLD if meant is None else meant.name
                cut = f" (kept: the first {MAX_KEPT_BYTES} of {n_bytes} bytes)" if len(line) > MAX_KEPT_BYTES else ""
                letter = DeadLetter(
                    topic=name,
                    partition=0,
                    offset=number,
                    stage="ingest",
                    reason=f"{origin} line {number}: {error}{cut}",
                    at_ms=now_ms,
                    value=line[:MAX_KEPT_BYTES],
                )
                self._publisher.send(DEAD_LETTERS, letter)
                done.dead[name] += 1
            if done.lines % FLUSH_EVERY == 0:
                self._publisher.flush()
        self._publisher.flush()
        return done

    def _send(self, meant: Topic | None, line: bytes, now_ms: int) -> None:
        if meant is None:
            wanted = "a JSON object with the fields of an item (item, title, ...) or an interaction (user, item, action, ...)"
            raise RecordError(repr(line[:80]), wanted=wanted, todo="mend the line, or say what it is with --topic")
        self._publisher.send(meant, decode(meant, line, as_type=meant.record, now_ms=now_ms))


def _lines(source: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Each line with its length; of an overlong one only the beginning is held, just enough to be refused."""
    while line := source.readline(MAX_RECORD_BYTES + 2):
        n_bytes = len(line)
        while not line.endswith(b"\n") and n_bytes > MAX_RECORD_BYTES and (rest := source.readline(MAX_RECORD_BYTES)):
            n_bytes += len(rest)
            if rest.endswith(b"\n"):
                break
        yield line.rstrip(b"\r\n"), n_bytes


def _told(line: bytes) -> Topic | None:
    """The topic that a line's fields speak for; None where it is not an object or has neither."""
    try:
        names = _fields.decode(line).keys()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if {"action", "user"} & names:
        return INTERACTIONS
    return ITEMS if {"item", "title", "published_ms"} & names else None
