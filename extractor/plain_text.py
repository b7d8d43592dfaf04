"""Text written by others, made harmless before it goes into a prompt, and a model's words before they go anywhere else.

Whatever comes in, what goes out holds no markup, no control, zero-width or bidi character and no angle bracket, so that it can
neither close the delimiter around it nor spell a chat template's special token.
"""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

_HIDDEN_ELEMENTS: Final = re.compile(r"<(script|style)\b.{0,4000}?</\1\s*>|<!--.{0,4000}?-->", re.IGNORECASE | re.DOTALL)
_TAGS: Final = re.compile(r"</?[a-zA-Z!][^<>]{0,2000}>")
_TEMPLATE_TOKENS: Final = re.compile(r"\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_CALLS|TOOL_RESULTS)\]", re.IGNORECASE)
_ANGLES: Final = str.maketrans({"<": "\u2039", ">": "\u203a"})
_DROPPED_CATEGORIES: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn"})  # control, format (zero-width, bidi, tags), surrogate, ...
_MAX_GROWTH: Final = 4  # markup may be this many times longer than what it leaves; more is cut before any pattern runs


def plain_text(raw: str, limit: int) -> str:
    """``raw`` as one line of plain text of at most ``limit`` characters, cut at a space where there is one.

    Args:
        raw: Any text, also HTML, also hostile.
        limit: Characters that may stay.
    """
    text = html.unescape(raw[: _MAX_GROWTH * limit + 1000])
    text = unicodedata.normalize("NFKC", text)
    text = _HIDDEN_ELEMENTS.sub(" ", text)
    text = _TAGS.sub(" ", text).translate(_ANGLES)
    text = "".join(map(_visible, text))
    while (shorter := _TEMPLATE_TOKENS.sub(" ", text)) != text:
        text = shorter
    text = " ".join(text.split())
    if len(text) <= limit:
        return text
    head, space, _ = text[: limit + 1].rpartition(" ")
    return head if space and len(head) > limit // 2 else text[:limit]


def _visible(char: str) -> str:
    if char.isspace():
        return " "
    hidden = (
        unicodedata.category(char) in _DROPPED_CATEGORIES or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"
    )
    return "" if hidden else char
