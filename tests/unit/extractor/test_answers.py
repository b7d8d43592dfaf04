"""Answers: what the scenario asked for gets through, everything else is rejected with a countable reason."""

import json

import pytest

from contracts.errors import AnswerError
from extractor.answers import parse_answer


def _answer(news, *, without=(), summary="Short.", **changed):
    return json.dumps({"factors": {f: f"about {f}" for f in news.factors if f not in without} | changed, "summary": summary})


def test_a_good_answer_is_cleaned_and_in_the_scenarios_order(news):
    text = _answer(news, topic="ports\x07 <b>and</b>\nships").replace(
        "\\u0007", "\x07"
    )  # a raw control character, as xgrammar lets in
    factors, summary = parse_answer(news, text, "stop")
    assert list(factors) == list(news.factors)
    assert factors["topic"] == "ports and ships"
    assert summary == "Short."


def test_factors_that_say_nothing_are_left_out(news):
    factors, _ = parse_answer(news, _answer(news, place="", audience="Unknown.", background="n/a"), "stop")
    assert set(news.factors) - set(factors) == {"place", "audience", "background"}


def test_missing_factors_are_for_users_only_and_three_must_be_there(news):
    few = list(news.factors)[3:]
    assert len(parse_answer(news, _answer(news, without=few), "stop", kind="user")[0]) == 3
    for kind, missing in (("item", few[:1]), ("user", list(news.factors)[2:])):
        with pytest.raises(AnswerError):
            parse_answer(news, _answer(news, without=missing), "stop", kind=kind)


@pytest.mark.parametrize(
    ("text", "finish", "reason"),
    [
        ("{}", "length", "cut off"),
        ("I'm sorry, but I can't help with that.", "stop", "refusal"),
        ("I cannot assist with this request", "stop", "refusal"),
        ("As an AI language model, I", "stop", "refusal"),
        ("{}", "content_filter", "refusal"),
        ("", "stop", "invalid JSON"),
        ('{"factors": {', "stop", "invalid JSON"),
        ("[" * 5_000, "stop", "invalid JSON"),
        ("[]", "stop", "wrong shape"),
        ('{"factors": [], "summary": ""}', "stop", "wrong shape"),
        ('{"factors": {}, "summary": ""}', "stop", "wrong shape"),
        ('{"factors": {}, "summary": "", "tool": 1}', "stop", "wrong shape"),
        ("x" * 20_001, "stop", "too long"),
    ],
)
def test_what_cannot_be_used_is_rejected_with_its_reason(news, text, finish, reason):
    with pytest.raises(AnswerError) as caught:
        parse_answer(news, text, finish)
    assert caught.value.reason == reason
    assert not caught.value.retriable


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"topic": 3}, "wrong shape"),
        ({"colour": "red"}, "wrong shape"),
        ({"topic": "x" * 401}, "too long"),
        ({"topic": "I\u2019m sorry, but I cannot know"}, "refusal"),
        ({"summary": "y" * 601}, "too long"),
    ],
)
def test_one_bad_part_rejects_the_answer(news, changed, reason):
    with pytest.raises(AnswerError) as caught:
        parse_answer(news, _answer(news, **changed), "stop")
    assert caught.value.reason == reason


def test_titles_that_look_like_refusals_are_not(news):
    factors, _ = parse_answer(
        news, _answer(news, topic="I Can't Sleep, a French thriller", place="Sorry, Wrong Number's New York"), "stop"
    )
    assert factors["topic"].startswith("I Can't Sleep")
