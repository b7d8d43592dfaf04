"""RSS and Atom to item events. What was seen before is remembered per feed (ETag, Last-Modified, a hash of each entry)."""

from __future__ import annotations

import calendar
import hashlib
import html
import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from msgspec.structs import replace

from contracts.codec import decode, encode
from contracts.errors import RecordError, UnavailableError
from contracts.ports import Publisher
from contracts.records import DeadLetter, ItemEvent
from contracts.topics import DEAD_LETTERS, ITEMS

MAX_FEED_BYTES: Final = 20_000_000
MAX_REMEMBERED: Final = 10_000  # entries of one feed; the oldest are forgotten, and sent again if the feed still has them
_MAX_ID, _MAX_TITLE, _MAX_TEXT, _MAX_TAGS, _MAX_WORD = 256, 1_000, 20_000, 10, 256
MAX_BAD: Final = 1_000  # bad entries remembered of one feed
_OK, _NOT_MODIFIED = 200, 304
_TAG = re.compile(r"<[^>]*>")


@dataclass(slots=True)
class FeedMemory:
    """What is remembered of one feed between polls: its validators, a hash of each entry by item id, and those of bad entries."""

    etag: str = ""
    modified: str = ""
    hashes: dict[str, str] = field(default_factory=dict)
    bad: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Fetched:
    """A feed's bytes, and the validators that came with them: to be remembered once the bytes turn out to be a feed."""

    body: bytes
    etag: str = ""
    modified: str = ""


@dataclass(slots=True)
class Polled:
    """What one poll of some feeds brought. ``errors`` are feeds that could not be read, with the reason."""

    sent: int = 0
    unchanged: int = 0
    dead: int = 0
    not_modified: int = 0
    errors: list[str] = field(default_factory=list)


class Feeds:
    """Polls feeds and sends what is new or changed.

    Args:
        publisher: Where to.
        memory: File in which what was seen is kept.
        client: HTTP client with its time-out.
        clock_ms: Wall clock.
    """

    def __init__(
        self,
        publisher: Publisher,
        memory: Path,
        client: httpx.Client,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._publisher = publisher
        self._file = memory
        self._client = client
        self._clock_ms = clock_ms
        self._memory = _load(memory)

    def poll(self, addresses: Sequence[str]) -> Polled:
        """Read every feed once; one that fails does not stop the others.

        Raises:
            UnavailableError: The broker does not answer; what was seen is not remembered, so the next poll sends it again.
        """
        polled = Polled()
        for address in addresses:
            memory = self._memory.setdefault(address, FeedMemory())
            try:
                fetched = self._fetch(address, memory)
            except (httpx.HTTPError, httpx.InvalidURL, OSError, UnavailableError) as error:
                polled.errors.append(f"{address}: {type(error).__name__}: {error}")
                continue
            if fetched is None:
                polled.not_modified += 1
            else:
                self._send(address, fetched, memory, polled)
        try:
            self._publisher.flush()
        except UnavailableError:
            self._memory = _load(self._file)
            raise
        _save(self._file, self._memory)
        return polled

    def _fetch(self, address: str, memory: FeedMemory) -> _Fetched | None:
        if "://" not in address:
            return _Fetched(body=Path(address).read_bytes()[:MAX_FEED_BYTES])
        headers = {"If-None-Match": memory.etag, "If-Modified-Since": memory.modified}
        with self._client.stream("GET", address, headers={k: v for k, v in headers.items() if v}) as answer:
            if answer.status_code == _NOT_MODIFIED:
                return None
            if answer.status_code != _OK:
                raise UnavailableError(f"HTTP {answer.status_code}", wanted="HTTP 200", todo="check the address")
            body = bytearray()
            for part in answer.iter_bytes():
                body += part
                if len(body) > MAX_FEED_BYTES:
                    raise UnavailableError(f"more than {MAX_FEED_BYTES} bytes", wanted="a feed", todo="check the address")
            etag, modified = answer.headers.get("etag", ""), answer.headers.get("last-modified", "")
        return _Fetched(body=bytes(body), etag=etag, modified=modified)

    def _send(self, address: str, fetched: _Fetched, memory: FeedMemory, polled: Polled) -> None:
        import feedparser

        feed = feedparser.parse(fetched.body)
        if not feed.entries and not feed.version:
            polled.errors.append(f"{address}: neither RSS nor Atom ({feed.get('bozo_exception', 'no entries')})")
            return
        if not feed.bozo:  # of a broken feed some entries may be missing: not to be answered with "not modified"
            memory.etag, memory.modified = fetched.etag, fetched.modified
        now_ms = self._clock_ms()
        for number, entry in enumerate(feed.entries, 1):
            try:
                item = item_of(entry, str(feed.feed.get("title", "")), now_ms)
            except RecordError as error:
                digest = _digest(json.dumps(entry, default=str, sort_keys=True).encode())
                if digest in memory.bad:
                    polled.unchanged += 1
                    continue
                polled.dead += 1
                self._publisher.send(DEAD_LETTERS, _letter(address, number, entry, error, now_ms))
                memory.bad.append(digest)
                continue
            digest = _digest(encode(ITEMS, replace(item, published_ms=0)))  # a mere new date is no news
            if memory.hashes.get(item.item) == digest:
                polled.unchanged += 1
                continue
            self._publisher.send(ITEMS, item)
            polled.sent += 1
            memory.hashes.pop(item.item, None)  # to the end: the oldest goes first
            memory.hashes[item.item] = digest
        for item_id in list(memory.hashes)[:-MAX_REMEMBERED]:
            del memory.hashes[item_id]
        del memory.bad[:-MAX_BAD]


def item_of(entry: Any, feed_title: str, now_ms: int) -> ItemEvent:
    """The item event of one entry as feedparser gives it: id from guid or link, tags as attributes, text without mark-up.

    Raises:
        RecordError: There is neither guid nor link, no title and no text, or the time is impossible.
    """
    ident = str(entry.get("id") or entry.get("link") or "").strip()
    if not ident:
        raise RecordError("an entry without guid and link", wanted="one of them, as the item's id", todo="mend the feed")
    if len(ident) > _MAX_ID:  # still the same id at every poll
        ident = "sha256:" + hashlib.sha256(ident.encode()).hexdigest()
    bodies = [str(part.get("value", "")) for part in entry.get("content", ())]
    text = _plain(max([*bodies, str(entry.get("summary", ""))], key=len))
    attributes: dict[str, tuple[str, ...]] = {}
    if feed_title.strip():
        attributes["feed"] = (_plain(feed_title)[:_MAX_WORD],)
    tags = dict.fromkeys(_plain(str(tag.get("term") or ""))[:_MAX_WORD] for tag in entry.get("tags", ()))
    if kept := tuple(tag for tag in tags if tag)[:_MAX_TAGS]:
        attributes["tags"] = kept
    at = entry.get("published_parsed") or entry.get("updated_parsed")
    event = {
        "item": ident,
        "published_ms": calendar.timegm(at) * 1000 if at else now_ms,
        "title": (_plain(str(entry.get("title", ""))) or text)[:_MAX_TITLE],
        "text": text[:_MAX_TEXT],
        "attributes": attributes,
    }
    return decode(ITEMS, json.dumps(event).encode(), as_type=ItemEvent, now_ms=now_ms)  # checked as any line from outside


def poll_forever(poll: Callable[[], Polled], every_s: float, sleep: Callable[[float], None] = time.sleep) -> Iterator[Polled]:
    """Poll again and again, ``every_s`` seconds apart."""
    while True:
        yield poll()
        sleep(every_s)


def _plain(text: str) -> str:
    return " ".join(html.unescape(_TAG.sub(" ", text)).split())


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def _letter(address: str, number: int, entry: Any, error: RecordError, now_ms: int) -> DeadLetter:
    return DeadLetter(
        topic=ITEMS.name,
        partition=0,
        offset=number,
        stage="ingest",
        reason=f"{address} entry {number}: {error}",
        at_ms=now_ms,
        value=json.dumps(entry, default=str).encode()[:_MAX_TEXT],
    )


def _load(file: Path) -> dict[str, FeedMemory]:
    try:
        kept = json.loads(file.read_text())
        return {address: FeedMemory(**memory) for address, memory in kept.items()}
    except (FileNotFoundError, ValueError, TypeError, AttributeError):
        return {}  # nothing remembered: everything is sent again, which is harmless


def _save(file: Path, memory: dict[str, FeedMemory]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps({address: asdict(one) for address, one in memory.items()}))
    beside.replace(file)
