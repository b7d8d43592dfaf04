"""A language model's answer, checked before anything else sees it: only what the scenario asked for gets through."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import Counter
from functools import lru_cache
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

MAX_FOREIGN_SHARE: Final = 0.5  # of the letters: names are foreign, a whole answer is not
_MIN_HOME_SHARE: Final = 0.1  # of a scenario's letters, for a script to be one that it is written in
_WIDE_LETTERS: Final = 2  # a Chinese, Japanese or Korean character is as wide as two letters, and says as much at least

Rejection = Literal[
    "cut off", "refusal", "invalid JSON", "wrong shape", "too few factors", "too long", "another language", "server refused"
]

_REFUSALS: Final = re.compile(
    r"""^\W*(
      i (['\u2019]?m | \ am) (\ very | \ so | \ really)? \ sorry | sorry, (\ but)? \ i | i\ apologi[sz]e
    | i (['\u2019]m | \ am) \ (unable | not\ able)
    | (i | we) \ (can (no | ['\u2019])? t | won['\u2019]t | will\ not)
      \ (help | assist | provide | answer | comply | fulfil | generate | create | do | write | determine | find | give | describe)
    | (sorry,\ )? as\ an? \ (ai | artificial | large\ language | language) \b
    )""",
    re.IGNORECASE | re.VERBOSE,
)
# how refusals begin elsewhere, in lower case and NFKC; a title such as "Lo siento" must not be one
_REFUSALS_ELSEWHERE: Final = (
    "es tut mir leid, aber ich", "es tut mir leid, ich kann", "tut mir leid, aber ich", "ich kann dabei nicht",
    "als ki-modell", "als ki-assistent", "als sprachmodell",
    "je suis désolé, mais je", "je suis désolée, mais je", "désolé, mais je", "désolé, je ne peux", "je ne peux pas vous aider",
    "en tant qu'ia", "en tant que modèle de langage",
    "lo siento, pero no", "lo siento, no puedo", "no puedo ayudar", "como modelo de lenguaje", "como una ia,",
    "desculpe, mas não", "desculpe, não posso", "lamento, mas não", "sinto muito, mas não", "como um modelo de linguagem",
    "mi dispiace, ma non", "mi dispiace, non posso", "non posso aiutarti", "het spijt me, maar ik", "sorry, maar ik",
    "beklager, men jeg", "jeg beklager, men", "jeg kan desværre ikke", "desværre kan jeg ikke", "jeg kan dessverre ikke",
    "tyvärr kan jag inte", "jag är ledsen, men jag", "jag kan tyvärr inte", "valitettavasti en voi",
    "przykro mi, ale nie", "niestety nie mogę", "omlouvám se, ale", "üzgünüm, ama", "üzgünüm, ancak", "maaf, saya tidak",
    "xin lỗi, tôi không", "к сожалению, я не", "извините, но я не", "простите, но я не", "я не могу помочь", "на жаль, я не",
    "抱歉,我无法", "抱歉,我不能", "很抱歉,我", "对不起,我无法", "对不起,我不能", "對不起,我無法", "我无法提供",
    "作为一个人工智能", "申し訳ありませんが", "申し訳ございませんが", "죄송하지만", "죄송합니다",
    "عذرا، لا", "عذرًا، لا", "क्षमा करें, मैं", "मुझे खेद है",
)  # fmt: skip
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

    An answer is in another language when more than half of the letters of its factors, or of its summary, are of a script that
    the scenario's own words are not written in. Names in other scripts pass; so does another language in the same script.

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
    summary = _checked(raw_summary, MAX_SUMMARY_CHARS)
    home = _scripts_of(scenario)
    for said in (" ".join(factors.values()), summary):
        if foreign_share(said, home) > MAX_FOREIGN_SHARE:
            _reject("another language", said)
    return factors, summary


def foreign_share(text: str, home: frozenset[str]) -> float:
    """Share of a text's letters, 0 to 1, that belong to none of the scripts ``home``; 0 where there are no letters.

    Args:
        text: An answer.
        home: As in the first word of a letter's Unicode name, ``LATIN``; ``KANA`` for both Japanese syllabaries.
    """
    letters = _letters_by_script(text)
    return 1 - sum(letters[script] for script in home) / letters.total() if letters else 0.0


def _scripts_of(scenario: Scenario) -> frozenset[str]:
    """The scripts that a scenario's own words are written in. Names of factors do not count: they are ASCII in all of them."""
    words = (scenario.item_word, scenario.user_word, scenario.liked_word, scenario.disliked_word, scenario.seen_word)
    letters = _letters_by_script(" ".join((*words, *scenario.factors.values())))
    return frozenset(script for script, n in letters.items() if n >= _MIN_HOME_SHARE * letters.total())


def _letters_by_script(text: str) -> Counter[str]:
    letters: Counter[str] = Counter()
    for char, n in Counter(text).items():
        if char.isalpha():
            script, weight = _script(char)
            letters[script] += n * weight
    return letters


@lru_cache(maxsize=10_000)
def _script(letter: str) -> tuple[str, int]:
    """Its script, and how many letters it counts for."""
    script = unicodedata.name(letter, "UNKNOWN").replace("-", " ").split()[0]
    weight = _WIDE_LETTERS if unicodedata.east_asian_width(letter) == "W" else 1
    return ("KANA" if script in {"HIRAGANA", "KATAKANA"} else script), weight


def _load(text: str, finish_reason: str) -> Any:
    if finish_reason == "length":
        _reject(
            "cut off",
            f"{len(text)} characters, then finish_reason `length` (raise extract.max_answer_tokens if it happens often)",
        )
    if finish_reason == "content_filter" or _refuses(text):
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
    if _refuses(clean):
        _reject("refusal", clean)
    return clean


def _refuses(text: str) -> bool:
    begin = unicodedata.normalize("NFKC", text[:MAX_QUOTED_CHARS]).lower().replace("\u2019", "'").lstrip(" \n\"'*")
    return _REFUSALS.match(text) is not None or begin.startswith(_REFUSALS_ELSEWHERE)


def _reject(reason: Rejection, got: str) -> NoReturn:
    raise RejectedAnswerError(reason, got)
