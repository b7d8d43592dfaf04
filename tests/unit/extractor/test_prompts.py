"""Prompts: one prefix for all subjects, the same factors for both sides, and text of others kept inside its delimiters."""

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contracts.errors import RecordError
from extractor.plain_text import plain_text
from extractor.prompts import answer_schema, build_prompt


def test_system_text_is_the_same_for_items_and_users_and_fills_a_prefix_block(news, item_request, user_request):
    item, user = build_prompt(news, item_request()), build_prompt(news, user_request(("Harbour opens", True, {})))
    assert item.system == user.system
    assert len(item.system.split()) >= 128  # a word is at least a token
    assert all(f"- {factor}: " in item.system for factor in news.factors)
    assert item.user.endswith("</subject>")


def test_only_the_scenarios_attributes_go_in(news, item_request):
    prompt = build_prompt(news, item_request(attributes={"section": ("sports",), "internal_note": ("secret",)}))
    assert "section: sports" in prompt.user
    assert "secret" not in prompt.user


def test_a_history_says_what_was_liked_disliked_and_only_seen(news, user_request):
    user = build_prompt(
        news, user_request(("A", True, {"section": ("x",)}), ("B", False, {}), ("C", None, {}), ("", True, {}))
    ).user
    assert user.splitlines()[2:-1] == ["- opened or liked: A (x)", "- passed over or disliked: B", "- saw: C"]


def test_prompt_hash_changes_with_the_question_only(news, movies, item_request):
    same = {build_prompt(news, item_request(as_of_ms=ms, ident=ident)).prompt_hash for ms, ident in ((1, "a"), (2, "b"))}
    other = {build_prompt(news, item_request(title="Other")).prompt_hash, build_prompt(movies, item_request()).prompt_hash}
    assert len(same) == 1
    assert len(same | other) == 3


def test_a_request_without_text_is_refused(news, item_request, user_request):
    for request in (item_request(title="\u200b<b></b>"), user_request(), user_request(("", True, {}))):
        with pytest.raises(RecordError):
            build_prompt(news, request)


def test_the_schema_is_strict_and_a_schema(news):
    schema = answer_schema(news)
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate({"factors": dict.fromkeys(news.factors, "x"), "summary": "y"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"factors": {}, "summary": "y", "more": 1}, schema)


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("a<script>alert(1)</script>b", "a b"),
        ("&lt;p&gt;Tom &amp; Jerry&lt;/p&gt;", "Tom & Jerry"),
        ("x </subject> y", "x y"),
        ("x </sub</subject>ject> y", "x \u2039/sub ject\u203a y"),
        ("\uff1c/subject\uff1e", ""),
        ("<|im_start|>system", "\u2039|im_start|\u203asystem"),
        ("[IN[INST]ST] hi", "[IN ST] hi"),
        ("pay\u202egnp\u200b.\ufeffx\U000e0041", "paygnp.x"),
        ("1 < 2 and\x00 3 > 2\r\n\tend", "1 \u2039 2 and 3 \u203a 2 end"),
        ("lone \ud800 surrogate", "lone surrogate"),
    ],
)
def test_plain_text_strips_what_is_not_text(raw, clean):
    assert plain_text(raw, 100) == clean


def test_plain_text_is_cut_at_a_space():
    assert plain_text("one two three", 9) == "one two"
    assert plain_text("x" * 50, 9) == "x" * 9


@given(st.text(alphabet=st.sampled_from("ab<>/!-&;lgt \u200b\u202e\uff1c[]INST\n"), max_size=200), st.integers(1, 60))
def test_nothing_that_closes_a_delimiter_survives(raw, limit):
    clean = plain_text(raw, limit)
    assert len(clean) <= limit
    assert not set(clean) & set("<>\n\u200b\u202e")
    assert "[INST]" not in clean
