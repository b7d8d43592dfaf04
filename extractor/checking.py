"""What a new scenario makes of its prompts: the questions for its examples, how long they are, what its author may have missed.

Mistakes (a wrong name, a source that is no attribute) are refused by `extractor.scenario`; here stands what is allowed and still
worth a look.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Final

from contracts.records import Action, HistoryEntry, ItemEvent, KnowledgeRequest
from contracts.subjects import item_subject, user_subject
from extractor.prompts import WORDS_OF_SUMMARY, WORDS_PER_FACTOR, Prompt, build_prompt
from extractor.scenario import Example, load_scenario, shipped_scenarios

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from extractor.scenario import Scenario

MIN_PREFIX_TOKENS: Final = 128  # a block of vLLM's prefix cache: a shorter shared part is never computed once for all
CHARS_PER_TOKEN: Final = 4  # rule of thumb for English
_TOKENS_PER_WORD: Final = 4 / 3  # rule of thumb for English
_JSON_TOKENS_PER_FACTOR: Final = 8  # name, quotes, colon, comma
_TASTE: Final[tuple[tuple[Action, bool | None], ...]] = (("like", True), ("dislike", False), ("view", None))
_N_SHOWN: Final = len(_TASTE)  # lines of the example history: one of each


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptSize:
    """Tokens of the prompts and of the longest answer that keeps to the rules."""

    shared: int  # the instructions: the same for every subject, so a server with a prefix cache computes them once
    item: int  # of the example item alone
    user: int  # of a user with a full history alone
    answer: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedScenario:
    """A scenario without mistakes, what it asks about an example, and remarks."""

    scenario: Scenario
    item: Prompt
    user: Prompt
    size: PromptSize
    remarks: tuple[str, ...]


def check_scenario(
    name_or_path: str, *, n_history: int, max_answer_tokens: int, n_tokens: Callable[[str], int] | None = None
) -> CheckedScenario:
    """Load a scenario and look at what it does.

    Args:
        name_or_path: As `load_scenario` takes it.
        n_history: Lines of a full history (setting plan.history), for the size of a user's prompt.
        max_answer_tokens: The bound on answers in force (setting extract.max_answer_tokens).
        n_tokens: Counts the tokens of a text; default: its characters by 4.

    Raises:
        SettingsError: The file is missing or wrong; with every mistake.
    """
    scenario = load_scenario(name_or_path)
    count = n_tokens or estimated_tokens
    item = build_prompt(scenario, example_item(scenario))
    size = PromptSize(
        shared=count(item.system),
        item=count(item.user),
        user=count(build_prompt(scenario, example_user(scenario, n_history)).user),
        answer=_answer_tokens(scenario),
    )
    return CheckedScenario(
        scenario=scenario,
        item=item,
        user=build_prompt(scenario, example_user(scenario, _N_SHOWN)),
        size=size,
        remarks=tuple(_remarks(scenario, shipped_scenarios().get(name_or_path), size, max_answer_tokens)),
    )


def estimated_tokens(text: str) -> int:
    """Characters by 4, rounded up: a rule of thumb for English, without any tokenizer."""
    return -(-len(text) // CHARS_PER_TOKEN)


def example_item(scenario: Scenario) -> KnowledgeRequest:
    """A request for the scenario's first example; where it has none, for one made of the attributes' names."""
    example = _examples(scenario)[0]
    item = ItemEvent(item="example", published_ms=0, title=example.title, text=example.text, attributes=example.attributes)
    return _request(item_subject("example"), item=item)


def example_user(scenario: Scenario, n_history: int) -> KnowledgeRequest:
    """A request for a user who in turn liked, disliked and saw the examples, over and over."""
    history = tuple(
        HistoryEntry(
            item="example", title=example.title, action=action, event_ms=number, liked=liked, attributes=example.attributes
        )
        for number, (example, (action, liked)) in enumerate(
            islice(zip(cycle(_examples(scenario)), cycle(_TASTE), strict=False), n_history)
        )
    )
    return _request(user_subject("example"), history=history)


def _examples(scenario: Scenario) -> tuple[Example, ...]:
    stand_in = Example(
        title=f"The title of a {scenario.item_word}", attributes={name: (f"some {name}",) for name in scenario.attributes[:8]}
    )
    return scenario.examples or (stand_in,)


def _request(subject: str, *, item: ItemEvent | None = None, history: tuple[HistoryEntry, ...] = ()) -> KnowledgeRequest:
    return KnowledgeRequest(
        subject=subject,
        mode="individual",
        reason="new_item" if item is not None else "new_interactions",
        priority=0.0,
        as_of_ms=0,
        trigger_ms=0,
        source_hash="",
        item=item,
        history=history,
    )


def _answer_tokens(scenario: Scenario) -> int:
    words = WORDS_PER_FACTOR * len(scenario.factors) + WORDS_OF_SUMMARY
    return round(words * _TOKENS_PER_WORD) + _JSON_TOKENS_PER_FACTOR * (len(scenario.factors) + 2)


def _remarks(scenario: Scenario, shipped: Path | None, size: PromptSize, max_answer_tokens: int) -> list[str]:
    remarks = []
    if shipped is None and scenario.name in shipped_scenarios():
        remarks.append(
            f"a shipped scenario is named {scenario.name!r} too: knowledge of both would carry the same prompt version; "
            "choose another `name`"
        )
    if not scenario.examples:
        remarks.append("no [[examples]]: the prompts below are made of the attributes' names, and their sizes are guesses")
    unfed = [name for name in scenario.factors if not scenario.from_attributes.get(name)]
    if unfed:
        remarks.append(f"without a language model (backend `attributes`) these factors stay empty: {', '.join(unfed)}")
    if not any("@title" in sources for sources in scenario.from_attributes.values()):
        remarks.append(
            "no factor in [from_attributes] has the source '@title': with backend `attributes`, an item of which only the title "
            "is known has no factor"
        )
    if size.shared < MIN_PREFIX_TOKENS:
        remarks.append(f"the shared instructions take {size.shared} tokens; below {MIN_PREFIX_TOKENS} a prefix cache has no use")
    if size.answer > max_answer_tokens:
        remarks.append(
            f"an answer may take about {size.answer} tokens, and extract.max_answer_tokens is {max_answer_tokens}: raise it, or "
            "ask for fewer factors"
        )
    return remarks
