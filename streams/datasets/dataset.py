"""What every data set reader offers: its events in event-time order, and knowledge that was written about it beforehand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final, Protocol

from contracts.errors import DatasetError
from contracts.records import InteractionEvent, ItemEvent, Knowledge

Event = ItemEvent | InteractionEvent

MISSING_TEXT: Final[dict[str, tuple[str, ...]]] = {"text": ("missing",)}


class Dataset(Protocol):
    """One data set as a stream. An item's event stands before the first interaction with it; times never go back."""

    @property
    def name(self) -> str:
        """Name on the command line."""
        ...

    @property
    def scenario(self) -> str:
        """The scenario (set of factors) that fits it."""
        ...

    @property
    def simulated(self) -> bool:
        """Whether its users are simulated; shown wherever a figure of it is shown."""
        ...

    @property
    def licence(self) -> str:
        """Under which terms it may be used."""
        ...

    def imported(self) -> Iterator[Knowledge]:
        """Knowledge written beforehand; each piece says from when on it may be used (``as_of_ms``)."""
        ...

    def events(self, limit: int | None = None) -> Iterator[Event]:
        """Items and interactions in event-time order.

        Args:
            limit: Stop after this many interactions. The events of a smaller limit are the beginning of those of a larger one.

        Raises:
            DatasetError: A file is damaged.
        """
        ...

    def count(self, limit: int | None = None) -> int:
        """How many events `events` gives (for progress bars)."""
        ...


def need_file(folder: Path, *names: str) -> Path:
    """The first of these files that exists in the folder.

    Raises:
        DatasetError: None of them does.
    """
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise DatasetError(
        f"no {' or '.join(names)} in {folder}", wanted="the data set's own files", todo="give their folder with --path"
    )


def damaged(file: Path, what: object, wanted: str) -> DatasetError:
    """The error for a file that is there but cannot be read."""
    return DatasetError(f"{file}: {what}", wanted=wanted, todo="fetch or unpack the file again")


def bare_item(item: str, published_ms: int) -> ItemEvent:
    """An item of which the data set gives only the id: the id is its title, the attribute ``text`` says ``missing``."""
    return ItemEvent(item=item, published_ms=published_ms, title=item, attributes=MISSING_TEXT)
