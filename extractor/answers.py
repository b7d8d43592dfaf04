"""A language model's answer, checked before anything else sees it: only what the scenario asked for gets through."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn

from contracts.errors import AnswerError
from extractor.plain_text import plain_text

if TYPE_CHECKING:
    from contracts.subjects import Kind
    from extractor.scenario import Scenario

MIN_FACTORS: Final = 3  # with fewer, an answer says too little to be worth a vector
MAX_FACTOR_CHARS: Final = 400
MAX_SUMMARY_CHARS: Final = 600
MAX_ANSWER_CHARS: Final = 20_000
MAX_QUOTED_CHARS: Final = 200  # of somebody else's words in a message of ours

Rejection = Literal["cut off", "refusal", "invalid JSON", "wrong shape", "too few factors", "too long", "server refused"]

_REFUSALS: Final = re.compile(
    r"""^\W*(
      i (['\u2019]?m | \ am) (\ very | \ so | \ really)? \ sorry | sorry, (\ but)? \ i | i\ apologi[sz]e
    | i (['\u2019]m | \ am) \ (unable | not\ able)
    | (i | we) \ (can (no | ['\u2019])? t | won['\u2019]t | will\ not)
      \ (help | assist | provide | answer | comply | fulfil | generate | create | do | write | determine | find | give | describe)
    | as\ an? \ (ai | artificial | large\ language | language) \b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
_NOTHING: Final = frozenset(
    {"", "-", "n/a", "na", "none", "null", "unknown", "not known", "not stated", "not applicable", "unspecified"}
)


class RejectedAnswerError(AnswerError):
    """An answer that cannot be used. ``reason`` is short and fixed, so that it can be counted and told to the model."""

    def __init__(self, reason: Rejection, got: str) -> None:
        super().__init__(
            f"{reason}: {got[:MAX_QUOTED_CHARS]!r}",
            wanted="one JSON object with the scenario's factors and a summary",
            todo="nothing: the subject's own attributes stand in; many of these mean the model does not fit",
        )
        self.reason: Rejection = reason


def parse_answer(scenario: Scenario, text: str, finish_reason: str, *, kind: Kind = "item") -> tuple[dict[str, str], str]:
    """Factor texts and summary of an answer, cleaned, in the scenario's order.

    A factor may be empty (left out of the result) as long as three are not. Of an item every factor must be named, as the schema
    asks; of a user some may be missing altogether, because a short history says nothing about them.

    Args:
        scenario: Whose factors were asked for.
        text: The message's content.
        finish_reason: The server's; ``length`` and ``content_filter`` are refused.
        kind: What the answer is about.

    Raises:
        RejectedAnswerError: An `AnswerError` whose ``reason`` says which of the rules was broken.
    """
    answer = _load(text, finish_reason)
    if not isinstance(answer, dict) or set(answer) != {"factors", "summary"}:
        _reject("wrong shape", text)
    raw_factors, raw_summary = answer["factors"], answer["summary"]
    if not isinstance(raw_factors, dict) or not isinstance(raw_summary, str):
        _reject("wrong shape", text)
    unknown = raw_factors.keys() - scenario.factors.keys()
    missing = scenario.factors.keys() - raw_factors.keys() if kind == "item" else set()
    if unknown or missing or not all(isinstance(value, str) for value in raw_factors.values()):
        _reject("wrong shape", f"factors {sorted(raw_factors)}")
    factors = {name: _checked(raw_factors[name], MAX_FACTOR_CHARS) for name in scenario.factors if name in raw_factors}
    factors = {name: value for name, value in factors.items() if value.lower().rstrip(".") not in _NOTHING}
    if len(factors) < MIN_FACTORS:
        _reject("too few factors", f"{len(factors)} of {len(scenario.factors)}, at least {MIN_FACTORS} wanted")
    return factors, _checked(raw_summary, MAX_SUMMARY_CHARS)


def _load(text: str, finish_reason: str) -> Any:
    if finish_reason == "length":
        _reject(
            "cut off",
            f"{len(text)} characters, then finish_reason `length` (raise extract.max_answer_tokens if it happens often)",
        )
    if finish_reason == "content_filter" or _REFUSALS.match(text):
        _reject("refusal", text)
    if len(text) > MAX_ANSWER_CHARS:
        _reject("too long", f"{len(text)} characters")
    try:
        return json.loads(text, strict=False)  # xgrammar lets raw control characters into strings; they are stripped below
    except (ValueError, RecursionError):
        _reject("invalid JSON", text)


def _checked(value: str, limit: int) -> str:
    clean = plain_text(value, MAX_ANSWER_CHARS)
    if len(clean) > limit:
        _reject("too long", f"{len(clean)} characters where {limit} are allowed")
    if _REFUSALS.match(clean):
        _reject("refusal", clean)
    return clean


def _reject(reason: Rejection, got: str) -> NoReturn:
    raise RejectedAnswerError(reason, got)
