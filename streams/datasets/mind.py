"""MIND (Microsoft News) as a stream: impressions in time order, every shown article a click or a skip.

Times: an article's own is not given; it is "published" when it is first seen in the stream. A user's earlier clicks (the
history column) have no times either: they are put into the second before the user's first impression, 1 ms apart, in the
order of the column. Articles without text are items whose title is the id, with the attribute ``text: missing``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import groupby, islice
from pathlib import Path
from typing import Final

import numpy as np

from contracts.errors import DatasetError
from contracts.records import Action, InteractionEvent, ItemEvent, Knowledge
from streams.datasets.dataset import Event, bare_item, damaged, need_file

_TIME: Final = "%m/%d/%Y %I:%M:%S %p"
_MAX_HISTORY: Final = 900  # so that the earlier clicks, 1 ms apart, fit into one second
_MAX_TAGS: Final = 10
_MIN_NEWS, _BEHAVIOUR = 5, 5  # columns


class Mind:
    """MIND's `behaviors.tsv` and `news.tsv`. Only times and file offsets of the impressions are held in memory.

    Raises:
        DatasetError: A file is missing or damaged.
    """

    name = "mind"
    scenario = "news"
    simulated = False
    licence = "Microsoft Research licence: non-commercial research"

    def __init__(self, folder: Path) -> None:
        self._behaviors = need_file(folder, "behaviors.tsv")
        self._news = _read_news(need_file(folder, "news.tsv"))
        self._at_ms, self._offsets = self._index()

    def imported(self) -> Iterator[Knowledge]:
        """None: MIND comes without LLM texts of its articles."""
        return iter(())

    def count(self, limit: int | None = None) -> int:
        """Events, counted by going through them."""
        return sum(1 for _ in self.events(limit))

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """Shown articles as click or skip, earlier clicks before, articles when first seen."""
        seen = set[str]()
        for interaction in islice(self._interactions(), limit):
            if interaction.item not in seen:
                seen.add(interaction.item)
                yield self._item(interaction.item, interaction.event_ms)
            yield interaction

    def _item(self, item: str, at_ms: int) -> ItemEvent:
        if item not in self._news:
            return bare_item(item, at_ms)
        title, text, attributes = self._news[item]
        return ItemEvent(item=item, published_ms=at_ms, title=title, text=text, attributes=attributes)

    def _interactions(self) -> Iterator[InteractionEvent]:
        users = set[str]()
        with self._behaviors.open("rb") as file:
            rows = zip(self._at_ms.tolist(), self._offsets.tolist(), strict=True)
            for at_ms, same_second in groupby(rows, key=lambda row: row[0]):
                before: list[InteractionEvent] = []
                now: list[InteractionEvent] = []
                for _, offset in same_second:
                    file.seek(offset)
                    _, user, _, history, shown = file.readline().decode().rstrip("\r\n").split("\t")
                    if user not in users:
                        users.add(user)
                        before += _earlier(user, history.split()[-_MAX_HISTORY:], at_ms)
                    now += [_reaction(user, one, at_ms) for one in shown.split()]
                yield from sorted(before, key=lambda interaction: interaction.event_ms)
                yield from now

    def _index(self) -> tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
        at_ms: list[int] = []
        offsets: list[int] = []
        offset = 0
        with self._behaviors.open("rb") as file:
            for number, line in enumerate(file, 1):
                fields = line.decode(errors="replace").rstrip("\r\n").split("\t")
                try:
                    _, _, time, _, shown = fields
                    at_ms.append(int(datetime.strptime(time, _TIME).replace(tzinfo=UTC).timestamp() * 1000))
                    _check_shown(shown)
                except ValueError as error:
                    raise damaged(
                        self._behaviors, f"line {number} ({error})", f"{_BEHAVIOUR} columns as MIND has them"
                    ) from error
                offsets.append(offset)
                offset += len(line)
        order = np.argsort(np.asarray(at_ms), kind="stable")
        return np.asarray(at_ms, dtype=np.int64)[order], np.asarray(offsets, dtype=np.int64)[order]


def _check_shown(shown: str) -> None:
    if not all(one[-2:] in {"-0", "-1"} for one in shown.split()):
        raise ValueError("a shown article without -0 or -1")


def _earlier(user: str, items: list[str], at_ms: int) -> list[InteractionEvent]:
    return [
        InteractionEvent(user=user, item=item, action="click", event_ms=at_ms - back)
        for item, back in zip(items, range(len(items), 0, -1), strict=True)
    ]


def _reaction(user: str, shown: str, at_ms: int) -> InteractionEvent:
    item, clicked = shown[:-2], shown.endswith("-1")
    action: Action = "click" if clicked else "skip"
    return InteractionEvent(user=user, item=item, action=action, event_ms=at_ms)


def _read_news(file: Path) -> dict[str, tuple[str, str, dict[str, tuple[str, ...]]]]:
    news: dict[str, tuple[str, str, dict[str, tuple[str, ...]]]] = {}
    try:
        with file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                fields = line.rstrip("\r\n").split("\t")
                if len(fields) < _MIN_NEWS:
                    raise damaged(file, f"line {number} with {len(fields)} columns", "id, category, subcategory, title, abstract")
                attributes: dict[str, tuple[str, ...]] = {"category": (fields[1],), "subcategory": (fields[2],)}
                if tags := _entities(fields[6:8]):
                    attributes["entities"] = tags
                news[fields[0]] = (fields[3], fields[4], attributes)
    except UnicodeDecodeError as error:
        raise DatasetError(f"{file}: {error}", wanted="UTF-8", todo="fetch the file again") from error
    return news


def _entities(columns: list[str]) -> tuple[str, ...]:
    labels: dict[str, None] = {}
    for column in columns:
        try:
            labels |= dict.fromkeys(str(entity["Label"])[:256] for entity in json.loads(column or "[]"))
        except (ValueError, KeyError, TypeError):
            continue  # entities are an extra; the article stands without them
    return tuple(label for label in labels if label)[:_MAX_TAGS]
