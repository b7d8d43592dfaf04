"""The sample that comes with the project is whole: every article has an answer that extraction will take."""

import importlib.util
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contracts.errors import DatasetError
from contracts.subjects import split_subject
from extractor.batch_file import split_custom_id
from extractor.planning import ItemPlanner, content_hash
from extractor.prompts import build_prompt
from extractor.scenario import load_scenario
from streams.datasets.news import SAMPLE, NewsSample


@pytest.fixture(scope="module")
def sample():
    return NewsSample()


def test_there_are_enough_articles_over_sections_and_days(sample):
    sections = Counter(item.attributes["section"][0] for item in sample.items)
    days = Counter(datetime.fromtimestamp(item.published_ms / 1000, UTC).date().isoformat() for item in sample.items)
    assert len(sample.items) >= 240
    assert len(sections) >= 10
    assert sorted(days) == [f"2026-06-0{day}" for day in range(1, 8)]
    assert len({item.title for item in sample.items}) == len(sample.items)


def test_every_answer_belongs_to_its_article_as_it_stands_and_to_the_prompt_in_force(sample):
    scenario = load_scenario("news")
    answers = (SAMPLE / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    found = [split_custom_id(json.loads(line)["custom_id"]) for line in answers]
    ids = {asked.subject: (asked, prompt_hash) for asked, prompt_hash in found}
    assert len(ids) == len(answers) == len(sample.items)
    for item in sample.items:
        asked, prompt_hash = ids[f"item:{item.item}"]
        assert (asked.source_hash, asked.as_of_ms) == (content_hash(item), item.published_ms)
        request = ItemPlanner(scenario).plan(item, None, item.published_ms)
        assert prompt_hash == build_prompt(scenario, request).prompt_hash, "run scripts/make_news_sample.py"


def test_every_answer_is_knowledge_with_all_factors(sample):
    factors = set(load_scenario("news").factors)
    found = {split_subject(k.subject)[1]: k for k in sample.imported()}
    assert found.keys() == {item.item for item in sample.items}
    assert all(k.factors.keys() == factors and all(k.factors.values()) and k.summary for k in found.values())
    assert {k.model for k in found.values()} == {"assistant (written for this sample)"}


def test_the_script_gives_the_sample_as_it_stands(tmp_path):
    spec = importlib.util.spec_from_file_location(
        "make_news_sample", Path(__file__).parents[3] / "scripts" / "make_news_sample.py"
    )
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    for name in ("articles.jsonl", "answers.jsonl"):
        (tmp_path / name).write_bytes((SAMPLE / name).read_bytes())
    assert script.main(["--folder", str(tmp_path)]) == 0
    for name in ("articles.jsonl", "answers.jsonl"):
        assert (tmp_path / name).read_bytes() == (SAMPLE / name).read_bytes()


def test_events_start_alike_for_any_limit(sample):
    assert sum(hasattr(e, "action") for e in sample.events(50)) == 50
    assert sample.count(50) == len(list(sample.events(50)))


def test_a_damaged_sample_is_named(tmp_path):
    (tmp_path / "articles.jsonl").write_text('{"item": "a"}\n')
    (tmp_path / "answers.jsonl").write_text("")
    with pytest.raises(DatasetError, match="line 1"):
        NewsSample(tmp_path)
