"""Every shipped scenario, checked as `reki scenario check` does; and what the check says of a poor one."""

import asyncio

import jsonschema
import pytest

from contracts.settings import Extract, Plan
from extractor.backends.attributes import AttributesBackend
from extractor.checking import MIN_PREFIX_TOKENS, check_scenario, estimated_tokens, example_item, example_user
from extractor.prompts import answer_schema, build_prompt
from extractor.scenario import FOLDER, load_scenario, shipped_scenarios

SHIPPED = list(shipped_scenarios())
BARE = """
name = "news"
version = "1"
item_word = "notice"
user_word = "reader"
liked_word = "liked"
disliked_word = "disliked"
seen_word = "saw"
attributes = ["section"]
[factors]
a = "what"
b = "where"
c = "when"
"""


def check(name, **changed):
    bounds = {"n_history": Plan().history, "max_answer_tokens": Extract().max_answer_tokens} | changed
    return check_scenario(str(name), **bounds)


def test_five_scenarios_are_shipped():
    assert SHIPPED == ["books", "movies", "music", "news", "products"]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_scenario_has_nothing_to_remark_but_factors_that_only_a_model_knows(name):
    checked = check(name)
    assert checked.scenario.name == name
    assert [remark for remark in checked.remarks if "without a language model" not in remark] == []
    assert checked.size.shared >= MIN_PREFIX_TOKENS


@pytest.mark.parametrize("name", SHIPPED)
def test_items_and_users_of_a_shipped_scenario_are_asked_about_the_same_factors(name):
    checked = check(name)
    scenario = checked.scenario
    assert checked.item.system == checked.user.system
    assert checked.item.schema == checked.user.schema == answer_schema(scenario)
    jsonschema.Draft202012Validator.check_schema(checked.item.schema)
    assert all(f"- {factor}: {meaning}" in checked.item.system for factor, meaning in scenario.factors.items())
    for word in (scenario.item_word, scenario.user_word, scenario.liked_word, scenario.disliked_word, scenario.seen_word):
        assert word in checked.item.system


@pytest.mark.parametrize("name", SHIPPED)
def test_every_example_goes_into_prompts_whole(name):
    scenario = load_scenario(name)
    assert len(scenario.examples) >= 3
    user = build_prompt(scenario, example_user(scenario, 30)).user
    assert user.count("\n- ") == 30
    for example in scenario.examples:
        assert example.title in user
    item = build_prompt(scenario, example_item(scenario)).user
    for values in scenario.examples[0].attributes.values():
        assert ", ".join(values) in item


@pytest.mark.parametrize("name", SHIPPED)
def test_without_a_model_the_examples_have_factors_too(name):
    scenario = load_scenario(name)
    for request in (example_item(scenario), example_user(scenario, 6)):
        made = asyncio.run(AttributesBackend(scenario).extract(request))
        assert len(made.factors) >= 2
        assert made.factors.keys() <= scenario.factors.keys()


def test_a_poor_scenario_gets_every_remark(tmp_path):
    file = tmp_path / "bare.toml"
    file.write_text(BARE)
    remarks = "\n".join(check(file, max_answer_tokens=50).remarks)
    for words in ("named 'news' too", "no [[examples]]", "stay empty: a, b, c", "'@title'", "max_answer_tokens is 50"):
        assert words in remarks
    assert "title: The title of a notice\nsection: some section" in check(file).item.user


def test_a_copy_under_a_name_of_its_own_has_no_remark_about_its_name(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text((FOLDER / "news.toml").read_text().replace('name = "news"', 'name = "mine"'))
    assert "named" not in "\n".join(check(file).remarks)


def test_sizes_are_counted_by_whatever_counts():
    assert estimated_tokens("12345") == 2
    by_words = check("news", n_tokens=lambda text: len(text.split()))
    assert by_words.size.shared == len(by_words.item.system.split())
    assert check("news").size.shared == estimated_tokens(by_words.item.system)
