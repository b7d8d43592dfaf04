"""EB-NeRD (Ekstra Bladet) as a stream: each user's history of reads, then impressions with every article in view.

The demo set comes without article text: items have their id as title and the attribute ``text: missing``; they are
"published" when first seen. History times are given and kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contracts.records import InteractionEvent, Knowledge
from streams.datasets.dataset import Event, bare_item, damaged, need_file

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class _Reads:
    """The users' histories in time order, (n,) each."""

    at_ms: Ints
    user: Ints
    item: Ints


@dataclass(frozen=True, slots=True)
class _Impressions:
    """Impressions in time order, (n,) each; ``shown`` and ``clicked`` are flat, impression i has [from[i], to[i])."""

    at_ms: Ints
    user: Ints
    shown: Ints
    shown_from: Ints
    shown_to: Ints
    clicked: Ints
    clicked_from: Ints
    clicked_to: Ints


class Ebnerd:
    """EB-NeRD's `train_behaviors.parquet` (or `behaviors.parquet`) and, where present, the history file beside it.

    Raises:
        DatasetError: A file is missing or damaged.
    """

    name = "ebnerd"
    scenario = "news"
    simulated = False
    licence = "EB-NeRD: research; the data licence comes with the data"

    def __init__(self, folder: Path) -> None:
        behaviors = need_file(folder, "train_behaviors.parquet", "behaviors.parquet")
        history = behaviors.with_name(behaviors.name.replace("behaviors", "history"))
        self._impressions = _read_impressions(behaviors)
        nothing = np.empty(0, dtype=np.int64)
        self._reads = _read_history(history) if history.is_file() else _Reads(nothing, nothing, nothing)

    def imported(self) -> Iterator[Knowledge]:
        """None: EB-NeRD comes without LLM texts."""
        return iter(())

    def count(self, limit: int | None = None) -> int:
        """Events, counted by going through them."""
        return sum(1 for _ in self.events(limit))

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """Reads of the histories and impressions (click or skip), merged by time."""
        seen = set[str]()
        for interaction in islice(self._interactions(), limit):
            if interaction.item not in seen:
                seen.add(interaction.item)
                yield bare_item(interaction.item, interaction.event_ms)
            yield interaction

    def _interactions(self) -> Iterator[InteractionEvent]:
        reads, shown = self._reads, self._impressions
        read = 0
        for row in range(len(shown.at_ms)):
            until = int(np.searchsorted(reads.at_ms, shown.at_ms[row], side="left"))
            yield from (self._read(i) for i in range(read, until))
            read = max(read, until)
            yield from self._reactions(row)
        yield from (self._read(i) for i in range(read, len(reads.at_ms)))

    def _read(self, row: int) -> InteractionEvent:
        reads = self._reads
        at_ms = int(reads.at_ms[row])
        return InteractionEvent(user=str(reads.user[row]), item=str(reads.item[row]), action="read", event_ms=at_ms)

    def _reactions(self, row: int) -> Iterator[InteractionEvent]:
        rows = self._impressions
        clicked = set(rows.clicked[rows.clicked_from[row] : rows.clicked_to[row]].tolist())
        for item in rows.shown[rows.shown_from[row] : rows.shown_to[row]].tolist():
            yield InteractionEvent(
                user=str(rows.user[row]),
                item=str(item),
                action="click" if item in clicked else "skip",
                event_ms=int(rows.at_ms[row]),
            )


def _table(file: Path, columns: list[str]) -> Any:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(file, columns=columns).combine_chunks()
    except (OSError, KeyError, pa.ArrowException) as error:
        raise damaged(file, error, f"parquet with the columns {', '.join(columns)}") from error


def _flat(column: Any) -> tuple[Ints, Ints]:
    """Values of a list column as one flat array, and the (n + 1,) offsets of its rows."""
    whole = column.combine_chunks()
    offsets = whole.offsets.to_numpy(zero_copy_only=False).astype(np.int64)
    return whole.values.to_numpy(zero_copy_only=False), offsets


def _ms(times: NDArray[Any]) -> Ints:
    return times.astype("datetime64[ms]").astype(np.int64)


def _read_impressions(file: Path) -> _Impressions:
    table = _table(file, ["impression_time", "user_id", "article_ids_inview", "article_ids_clicked"])
    at_ms = _ms(table["impression_time"].to_numpy())
    order = np.argsort(at_ms, kind="stable")
    shown, shown_at = _flat(table["article_ids_inview"])
    clicked, clicked_at = _flat(table["article_ids_clicked"])
    return _Impressions(
        at_ms=at_ms[order],
        user=table["user_id"].to_numpy()[order],
        shown=shown,
        shown_from=shown_at[:-1][order],
        shown_to=shown_at[1:][order],
        clicked=clicked,
        clicked_from=clicked_at[:-1][order],
        clicked_to=clicked_at[1:][order],
    )


def _read_history(file: Path) -> _Reads:
    table = _table(file, ["user_id", "impression_time_fixed", "article_id_fixed"])
    items, offsets = _flat(table["article_id_fixed"])
    times, _ = _flat(table["impression_time_fixed"])
    users = np.repeat(table["user_id"].to_numpy(), np.diff(offsets))
    at_ms = _ms(times)
    order = np.argsort(at_ms, kind="stable")
    return _Reads(at_ms[order], users[order], items[order])
