"""What `reki knowledge show` prints: one piece of knowledge and its versions, for people and as JSON."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from hein.documents import Document, Version

_UNITS: Final = (("year", 365 * 86_400), ("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))


def as_record(document: Document, now_ms: int) -> dict[str, Any]:
    """Every field of the document, and its age and date.

    Args:
        document: What is known.
        now_ms: Wall clock.
    """
    return {
        **msgspec.structs.asdict(document),
        "as_of": _at(document.as_of_ms).isoformat(),
        "age_ms": now_ms - document.as_of_ms,
        "versions": [msgspec.structs.asdict(version) for version in document.versions],
    }


def print_page(document: Document, now_ms: int) -> None:
    """The same for people, on stdout. Texts come from others: they are printed without markup and control characters.

    Args:
        document: What is known.
        now_ms: Wall clock.
    """
    console = Console(highlight=False)
    console.print(_plain(document.subject, "bold"))
    about = Table.grid(padding=(0, 2))
    for name, value in _about(document, now_ms):
        about.add_row(_plain(name, "dim"), _plain(value))
    console.print(about)
    factors = Table("factor", "text", box=None, header_style="bold", pad_edge=False)
    for name, text in document.factors.items():
        factors.add_row(_plain(name), _plain(text))
    console.print()
    console.print(factors)
    if document.versions:
        console.print()
        console.print(_history(document.versions))


def age_in_words(age_ms: int) -> str:
    """An age in its largest unit, rounded down.

    >>> age_in_words(3 * 86_400_000 + 5), age_in_words(60_000), age_in_words(-7_200_000)
    ('3 days old', '1 minute old', '2 hours ahead of the clock')
    """
    seconds = abs(age_ms) // 1000
    unit, size = next(((unit, size) for unit, size in _UNITS if seconds >= size), _UNITS[-1])
    n = seconds // size
    return f"{n} {unit}{'' if n == 1 else 's'} " + ("ahead of the clock" if age_ms < 0 else "old")


def _about(document: Document, now_ms: int) -> list[tuple[str, str]]:
    lines = [
        ("summary", document.summary),
        ("tier", document.tier),
        ("age", f"{age_in_words(now_ms - document.as_of_ms)}, as of {_utc(document.as_of_ms)}"),
        ("model", f"{document.model} (backend {document.backend})"),
        ("prompt", document.prompt_version),
        ("tokens", _tokens(document.tokens_in, document.tokens_out, document.tokens_cached)),
        ("cluster", document.cluster),
        ("shared from", document.shared_from),
    ]
    return [(name, value) for name, value in lines if value]


def _history(versions: tuple[Version, ...]) -> Table:
    table = Table("before", box=None, header_style="bold", pad_edge=False)
    table.add_column("as of", no_wrap=True)
    for name in ("model", "prompt", "tokens", "summary"):
        table.add_column(name)
    for one in versions:
        tokens = _tokens(one.tokens_in, one.tokens_out) or "-"
        cells = (one.tier, _utc(one.as_of_ms), one.model, one.prompt_version, tokens, one.summary)
        table.add_row(*(_plain(cell) for cell in cells))
    return table


def _tokens(tokens_in: int | None, tokens_out: int | None, cached: int | None = None) -> str:
    """Empty where no language model was asked, or its provider did not say."""
    if tokens_in is None and tokens_out is None:
        return ""
    of_these = "" if cached is None else f" ({cached} cached)"
    return f"{'?' if tokens_in is None else tokens_in} in{of_these}, {'?' if tokens_out is None else tokens_out} out"


def _utc(at_ms: int) -> str:
    return _at(at_ms).strftime("%Y-%m-%d %H:%M UTC")


def _at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def _plain(text: str, style: str = "") -> Text:
    return Text("".join(char if char.isprintable() else " " for char in text), style)
