"""Knowledge without a language model: factor texts from the item's own fields, or counted over the user's history.

It is the embedded default and the stand-in for answers that cannot be used; every record says so (backend, model and tier). Texts
stay within 60 words, because the encoder behind them runs on a CPU.

Where a factor comes from stands in the scenario's ``from_attributes``: names of attributes, all of them joined, and three derived
sources: ``@decade`` (of ``year``, or of a year in brackets at the end of the title), ``@text`` (the first words of an item's
text, where the factor has nothing else) and ``@title`` (where no factor has anything: the title is the summary anyway).
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Final

from contracts.errors import RecordError
from contracts.records import HistoryEntry, ItemEvent, Knowledge, KnowledgeRequest
from extractor.plain_text import plain_text
from extractor.prompts import prompt_version

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from extractor.scenario import Scenario

MAX_WORDS: Final = 60  # of all factors and the summary together
_FACTOR_WORDS: Final = 16
_SUMMARY_WORDS: Final = 32
_MAX_VALUE_CHARS: Final = 60
_N_VALUES: Final = 6  # of one factor
_N_TITLES: Final = 2  # liked, and as many disliked
_YEAR_IN_TITLE: Final = re.compile(r"\((\d{4})\)\s*$")


class AttributesBackend:
    """A `KnowledgeBackend` that asks nobody.

    Args:
        scenario: Which factors, and which attributes feed them.
    """

    tier: Final = "attributes"

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario

    def known(self, request: KnowledgeRequest) -> Knowledge | None:  # noqa: ARG002 - the port's argument
        """Nothing is kept."""
        return None

    async def ready(self) -> None:
        """Always."""

    async def extract(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge of tier ``attributes`` for one subject; `described` without the waiting.

        Raises:
            RecordError: As `described` does.
        """
        return self.described(request)

    def described(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge of tier ``attributes`` for one subject.

        Raises:
            RecordError: Neither an item with a title nor a history in which anything is known.
        """
        factors, summary = self._of_item(request.item) if request.item is not None else self._of_history(request.history)
        if not factors and not summary:
            raise RecordError(
                f"a request for {request.subject} without any text",
                wanted="an item with a title, or a history with titles or attributes",
                todo="send the items to topic `items` before the interactions with them",
            )
        factors, summary = _within(MAX_WORDS, factors, summary)
        return Knowledge(
            subject=request.subject,
            factors=factors,
            summary=summary,
            tier="attributes",
            backend="attributes",
            scenario=self.scenario.name,
            prompt_version=prompt_version(self.scenario),
            model="none (attributes)",
            as_of_ms=request.as_of_ms,
            trigger_ms=request.trigger_ms,
            source_hash=request.source_hash,
        )

    async def aclose(self) -> None:
        """Nothing to let go of."""

    def _of_item(self, item: ItemEvent) -> tuple[dict[str, str], str]:
        title, text = plain_text(item.title, 300), plain_text(item.text, 300)
        factors = {}
        for factor, sources in self._sources():
            found = dict.fromkeys(_values(item.title, item.attributes, sources))
            factors[factor] = ", ".join(list(found)[:_N_VALUES]) or (text if "@text" in sources else "")
        return self._filled(factors, title), title

    def _of_history(self, history: Sequence[HistoryEntry]) -> tuple[dict[str, str], str]:
        disliked = [entry for entry in history if entry.liked is False]
        # where nothing was said to be liked, what was looked at is the best there is
        liked = [entry for entry in history if entry.liked] or [entry for entry in history if entry.liked is None]
        factors = {}
        for factor, sources in self._sources():
            for_it, against = _counts(liked, sources), _counts(disliked, sources)
            likes = [value for value, n in for_it.most_common() if n >= against[value]][:_N_VALUES]
            dislikes = [value for value, n in against.most_common() if n > for_it[value]][: _N_VALUES // 2]
            factors[factor] = "; ".join(filter(None, (", ".join(likes), f"not {', '.join(dislikes)}" if dislikes else "")))
        said = ((self.scenario.liked_word, liked), (self.scenario.disliked_word, disliked))
        summary = ". ".join(f"{word} {titles}" for word, entries in said if (titles := _titles(entries)))
        return self._filled(factors, _titles(liked)), summary

    def _sources(self) -> Iterable[tuple[str, Sequence[str]]]:
        return ((factor, self.scenario.from_attributes.get(factor, ())) for factor in self.scenario.factors)

    def _filled(self, factors: dict[str, str], title: str) -> dict[str, str]:
        """The factors that something is known of; where there are none, those fed by ``@title`` get it."""
        known = {factor: text for factor, text in factors.items() if text}
        return known or {factor: title for factor, sources in self._sources() if title and "@title" in sources}


def _values(title: str, attributes: Mapping[str, Sequence[str]], sources: Iterable[str]) -> Iterable[str]:
    for source in sources:
        if source == "@decade":
            year = next(iter(attributes.get("year", ())), "") or "".join(_YEAR_IN_TITLE.findall(title))
            if re.fullmatch(r"\d{4}", year):
                yield f"{year[:3]}0s"
        else:
            yield from filter(None, (plain_text(value, _MAX_VALUE_CHARS) for value in attributes.get(source, ())))


def _counts(entries: Sequence[HistoryEntry], sources: Iterable[str]) -> Counter[str]:
    """How many entries have a value; among equals the one seen most recently comes first."""
    counts: Counter[str] = Counter()
    for entry in reversed(entries):
        counts.update(dict.fromkeys(_values(entry.title, entry.attributes, sources), 1))
    return counts


def _titles(entries: Sequence[HistoryEntry]) -> str:
    latest = (" ".join(plain_text(entry.title, 100).split()[:7]) for entry in reversed(entries))
    return "; ".join(title for title, _ in zip(filter(None, latest), range(_N_TITLES), strict=False))


def _within(n_words: int, factors: Mapping[str, str], summary: str) -> tuple[dict[str, str], str]:
    short_summary = summary.split()[:_SUMMARY_WORDS]
    left = n_words - len(short_summary)
    short = {}
    for factor, text in factors.items():
        words = text.split()[: min(_FACTOR_WORDS, left)]
        left -= len(words)
        if words:
            short[factor] = " ".join(words).rstrip(",;")
    return short, " ".join(short_summary)
