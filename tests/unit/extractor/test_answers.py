"""Answers: what the scenario asked for gets through, everything else is rejected with a countable reason."""

import json

import pytest

from contracts.errors import AnswerError
from extractor.answers import foreign_share, parse_answer
from extractor.scenario import load_scenario, shipped_scenarios


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


RUSSIAN = "\u043f\u043e\u0440\u0442 \u043e\u0442\u043a\u0440\u044b\u043b\u0441\u044f \u0441\u043d\u043e\u0432\u0430"
CHINESE = "\u6e2f\u53e3\u91cd\u65b0\u5f00\u653e\u4e86"
JAPANESE = "\u6e2f\u304c\u307e\u305f\u958b\u3044\u305f"


def _in(news, words):
    """The scenario, written in other words."""
    wording = dict.fromkeys(("item_word", "user_word", "liked_word", "disliked_word", "seen_word"), words)
    return news.model_copy(update=wording | {"factors": dict.fromkeys(news.factors, words)})


@pytest.mark.parametrize(
    "words",
    [
        RUSSIAN,
        CHINESE,
        JAPANESE,
        "\uad6d\uc81c \ubb34\uc5ed",
        "\u0644\u0644\u0645\u0648\u0627\u0646\u0626",
        "\u03bb\u03b9\u03bc\u03ac\u03bd\u03b9",
    ],
)
def test_an_answer_in_another_script_than_the_scenario_is_rejected_both_ways(news, words):
    elsewhere = _in(news, words)
    there = _answer(news, **dict.fromkeys(news.factors, words), summary=words)
    assert parse_answer(elsewhere, there, "stop")[1] == words
    for scenario, text in ((news, there), (elsewhere, _answer(news))):
        with pytest.raises(AnswerError) as caught:
            parse_answer(scenario, text, "stop")
        assert caught.value.reason == "another language"


def test_a_summary_in_another_script_is_enough_to_reject(news):
    with pytest.raises(AnswerError) as caught:
        parse_answer(news, _answer(news, summary=RUSSIAN), "stop")
    assert caught.value.reason == "another language"


def test_names_in_other_scripts_are_fine(news):
    text = _answer(
        news, people_and_organisations=f"{RUSSIAN}, {CHINESE}", place=JAPANESE, summary=f"A port called {CHINESE} opens."
    )
    assert CHINESE in parse_answer(news, text, "stop")[1]
    latin_names = dict.fromkeys(list(news.factors)[1:], CHINESE) | {"topic": "Nirvana, Pearl Jam, Soundgarden"}
    assert parse_answer(_in(news, CHINESE), _answer(news, **latin_names, summary=f"{CHINESE} Nirvana"), "stop")


@pytest.mark.parametrize(
    ("text", "home", "share"),
    [
        ("", {"LATIN"}, 0),
        ("1999 - 2001, 100 %", {"LATIN"}, 0),
        ("caf\u00e9 M\u00fcller", {"LATIN"}, 0),
        ("abc\u0430\u0431\u0432", {"LATIN"}, 0.5),
        ("abcd\u6e2f\u6e2f", {"LATIN"}, 0.5),
        ("abcd\u6e2f\u6e2f", {"CJK"}, 0.5),
        (JAPANESE, {"KANA", "CJK"}, 0),
    ],
)
def test_foreign_share_counts_letters_and_wide_ones_twice(text, home, share):
    assert foreign_share(text, frozenset(home)) == pytest.approx(share)


def test_every_shipped_scenario_takes_answers_in_its_own_script():
    for name in shipped_scenarios():
        scenario = load_scenario(name)
        good = json.dumps({"factors": {factor: f"about {factor}" for factor in scenario.factors}, "summary": "Short."})
        assert parse_answer(scenario, good, "stop")[1] == "Short."


@pytest.mark.parametrize(
    "text",
    [
        "Sorry, as an AI language model, I don't have opinions.",
        "Es tut mir leid, aber ich kann das nicht beschreiben.",
        "Je suis d\u00e9sol\u00e9, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Beklager, men jeg kan ikke hj\u00e6lpe med det.",
        "\u041a \u0441\u043e\u0436\u0430\u043b\u0435\u043d\u0438\u044e, \u044f \u043d\u0435 \u043c\u043e\u0433\u0443 \u043f\u043e\u043c\u043e\u0447\u044c.",
        "\u62b1\u6b49\uff0c\u6211\u65e0\u6cd5\u63d0\u4f9b\u5e2e\u52a9\u3002",
        "\u7533\u3057\u8a33\u3042\u308a\u307e\u305b\u3093\u304c\u3001\u304a\u7b54\u3048\u3067\u304d\u307e\u305b\u3093\u3002",
        "\uc8c4\uc1a1\ud558\uc9c0\ub9cc \ub3c4\uc640\ub4dc\ub9b4 \uc218 \uc5c6\uc2b5\ub2c8\ub2e4.",
    ],
)
def test_refusals_are_seen_in_other_languages_too(news, text):
    for raw in (text, _answer(news, summary=text)):
        with pytest.raises(AnswerError) as caught:
            parse_answer(news, raw, "stop")
        assert caught.value.reason == "refusal"


@pytest.mark.parametrize(
    "title", ["Lo siento, te amo", "D\u00e9sol\u00e9e", "Es tut mir leid, sagt der Minister", "Sorry, maar niet sorry"]
)
def test_titles_that_begin_like_refusals_elsewhere_are_not(news, title):
    assert parse_answer(news, _answer(news, topic=title), "stop")[0]["topic"] == title
