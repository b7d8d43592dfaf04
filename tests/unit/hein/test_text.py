from __future__ import annotations

import doctest

import hein.text
from contracts.records import Knowledge
from hein.text import knowledge_text, text_hash


def knowledge(summary: str, factors: dict[str, str]) -> Knowledge:
    return Knowledge(
        subject="item:1",
        factors=factors,
        summary=summary,
        tier="individual",
        backend="openai",
        scenario="news",
        prompt_version="1",
        model="m",
        as_of_ms=0,
    )


def test_the_docstring_tells_the_truth() -> None:
    assert doctest.testmod(hein.text).failed == 0


def test_the_order_in_which_the_model_answered_does_not_matter() -> None:
    assert knowledge_text(knowledge("s", {"a": "1", "b": "2"})) == knowledge_text(knowledge("s", {"b": "2", "a": "1"}))


def test_blank_parts_are_left_out() -> None:
    assert knowledge_text(knowledge(" ", {"a": "\n", "b": " x "})) == "b: x"
    assert knowledge_text(knowledge("", {})) == ""


def test_equal_texts_have_equal_hashes_and_others_do_not() -> None:
    assert text_hash("é") == text_hash("é")
    assert text_hash("a") != text_hash("a ")
    assert len(text_hash("")) == 32
