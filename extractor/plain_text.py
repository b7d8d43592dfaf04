"""Text written by others, made harmless before it goes into a prompt, and a model's words before they go anywhere else.

Whatever comes in, what goes out is one line without markup, control, zero-width or bidi characters, angle brackets or anything
else that looks like a closing tag. So it can neither close the delimiter around it nor spell a chat template's special token.
What it says stays: that words are not obeyed is the job of the prompt, the answer's schema and `extractor.answers`.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

MAX_BYTES_PER_CHAR: Final = 2  # of UTF-8, on average: Latin, Greek, Cyrillic, Arabic stay whole, others lose up to half
_MAX_GROWTH: Final = 4  # markup may be this many times longer than what it leaves; more is cut before any pattern runs
_MAX_LAYERS: Final = 4  # of entities inside entities: text that was escaped twice is common, five times is no accident
_MAX_MARKS: Final = 4  # on one letter: Hebrew and Tibetan need as many; more is a flood

# content of an element cannot hold the opening again, so that a thousand openings take no longer than one
_HIDDEN_ELEMENTS: Final = re.compile(
    r"<(script|style)\b(?:(?!<\1\b).)*?</\1\s*>|<!--(?:(?!<!--).)*?-->", re.IGNORECASE | re.DOTALL
)
_TAGS: Final = re.compile(r"</?(?:!|[^\W\d_])[^<>]{0,2000}>")
# what a reader takes for an angle bracket, and the brackets of BBCode and of templates
_OPEN: Final = "\u2039\u00ab\u02c2\u1438\u226a\u226e\u2770\u276c\u276e\u27e8\u27ea\u29fc\u3008\u300a\u3010\\[{"
_CLOSE: Final = "\u203a\u00bb\u02c3\u1433\u226b\u226f\u2771\u276d\u276f\u27e9\u27eb\u29fd\u3009\u300b\u3011\\]}"
_SLASH: Final = "/\\\\\u2044\u2215\u29f8\u2571"
_FAKE_DELIMITERS: Final = re.compile(
    rf"[{_OPEN}]{{1,3}} ?(?:[{_SLASH}] ?[\w|:.-]{{1,40}}|\|[^|]{{1,40}}\||[\w-]{{0,20}}subject[\w-]{{0,20}}) ?[{_CLOSE}]{{1,3}}",
    re.IGNORECASE,
)
# a terminal's commands: with the control characters alone gone, "[8m" would stay
_ESCAPES: Final = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]{0,40}[ -/]{0,8}[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]{0,400}(?:\x07|\x1b\\|\x9c)"
)
_BRACKETS: Final = re.compile(f"[{_OPEN}{_CLOSE}]")
# special tokens without angle brackets: Mistral, Llama 2, GLM, InternLM, and BERT's, which most text encoders know
_TEMPLATE_TOKENS: Final = re.compile(
    r"""\[/?(?: (?i: INST | SYSTEM_PROMPT | AVAILABLE_TOOLS | TOOL_(?:CALLS|RESULTS|CONTENT) | CALL_ID | MODEL_SETTINGS
    | [gs]?MASK | CLS | SEP | PAD | UNK | BOS | EOS | UNUSED_TOKEN_\d+ | REFERENCE_DOC_\d+ )
    | ARGS | IMG(?:_BREAK|_END)? | (?:BEGIN_)?AUDIO | TRANSCRIBE | THINK | PREFIX | MIDDLE | SUFFIX )\]""",
    re.VERBOSE,  # a title's [audio] stays
)
# printable for Python, invisible for a reader: joiners, fillers of Hangul and Khmer, variation selectors, Braille's blank
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\ufffc\U000e0100-\U000e01ef]"
)
_NO_LETTERS: Final = re.compile(rf"[^\w\s\x00-\x7f]{{{_MAX_MARKS + 1},}}")  # only such a run can hold too many marks


def plain_text(raw: str, limit: int) -> str:
    """``raw`` as one line of plain text of at most ``limit`` characters, cut at a space where there is one.

    It also has at most ``2 * limit`` bytes as UTF-8. A character can be four tokens (emoji, rare scripts), a byte never more than
    one: byte-level BPE (GPT, Llama 3, Qwen, DeepSeek) and SentencePiece with byte fallback (Llama 2, Mistral, Gemma) start
    from bytes and only merge them. So the worst case is ``2 * limit`` tokens in every script; English has about ``limit / 4``.

    Args:
        raw: Any text, also HTML, also hostile.
        limit: Characters that may stay.
    """
    max_chars = _MAX_GROWTH * limit + 1000
    text = _decoded(raw[:max_chars], max_chars)
    if "<" in text:
        text = _TAGS.sub(" ", _HIDDEN_ELEMENTS.sub(" ", text))
    return _cut(_without_tokens(" ".join(text.replace("<", "\u2039").replace(">", "\u203a").split())), limit)


def _decoded(text: str, max_chars: int) -> str:
    """Without entities and hidden characters, in Unicode's compatibility form (NFKC), until nothing changes any more."""
    for _ in range(_MAX_LAYERS):
        before = text
        text = _few_marks(_shown(html.unescape(text)))  # before NFKC, which takes quadratic time over a flood of marks
        text = unicodedata.normalize("NFKC", text)[:max_chars]
        if text == before:
            return text
    return _shown(text.replace("&", " "))


def _without_tokens(text: str) -> str:
    """Without what looks like a delimiter or a special token, until nothing does: they may be hidden in one another."""
    for _ in range(_MAX_LAYERS):
        before = text
        text = " ".join(_TEMPLATE_TOKENS.sub(" ", _FAKE_DELIMITERS.sub(" ", text)).split())
        if text == before:
            return text
    return " ".join(_BRACKETS.sub(" ", text).split())


def _shown(text: str) -> str:
    if not text.isprintable():
        text = _ESCAPES.sub("", text)
        text = "".join(char if char.isprintable() else " " if char.isspace() else "" for char in text)
    return text if text.isascii() else _INVISIBLE.sub("", text)


def _few_marks(text: str) -> str:
    return text if text.isascii() else _NO_LETTERS.sub(_without_flood, text)


def _without_flood(run: re.Match[str]) -> str:
    kept, n_marks = [], 0
    for char in run[0]:
        n_marks = n_marks + 1 if unicodedata.category(char).startswith("M") else 0
        if n_marks <= _MAX_MARKS:
            kept.append(char)
    return "".join(kept)


def _cut(text: str, limit: int) -> str:
    max_bytes = MAX_BYTES_PER_CHAR * limit
    if len(text) <= limit and (text.isascii() or len(text.encode()) <= max_bytes):
        return text
    kept = text[:limit].encode()[:max_bytes].decode(errors="ignore")
    head, space, _ = text[: len(kept) + 1].rpartition(" ")
    return head if space and len(head) > len(kept) // 2 else kept
