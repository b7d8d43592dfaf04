"""What stages count is on the page, by name, as it is at the moment of the scrape."""

from collections import Counter
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from contracts.settings import Extract
from extractor.backends.openai import OpenAIBackend
from extractor.scenario import load_scenario
from streams.counters import (
    Counted,
    Counters,
    of_augmenting,
    of_cache,
    of_encoding,
    of_extraction,
    of_model,
    of_savings,
)


@pytest.fixture
def registry():
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def lines(registry):
    return lambda: [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_every_count_of_a_stage_has_its_line(registry, lines):
    encoding = SimpleNamespace(n_encoded=4, n_reused=3, n_stale=2, n_cut=1)
    Counters(registry).add(
        *of_extraction(SimpleNamespace(counts=Counter({"made": 2, "stood in: refusal": 1}))),
        *of_encoding(encoding),
        *of_augmenting(lambda: Counter(augmented=5)),
        *of_cache(SimpleNamespace(saved_tokens=Counter({"cache": 240}))),
        *of_savings(lambda: {"cache": 2, "near-duplicate": 1, "collective": 7}),
    )
    assert set(lines()) == {
        'reki_extractions_total{outcome="made"} 2.0',
        'reki_extractions_total{outcome="stood in: refusal"} 1.0',
        'reki_encodings_total{outcome="encoded"} 4.0',
        'reki_encodings_total{outcome="reused"} 3.0',
        'reki_encodings_total{outcome="stale"} 2.0',
        "reki_documents_cut_total 1.0",
        'reki_augmentations_total{outcome="augmented"} 5.0',
        'reki_llm_saved_tokens_total{by="cache"} 240.0',
        'reki_llm_saved_requests_total{by="cache"} 2.0',
        'reki_llm_saved_requests_total{by="near-duplicate"} 1.0',
        'reki_llm_saved_requests_total{by="collective"} 7.0',
    }


def test_what_a_model_was_asked_stands_by_kind_and_tier_with_its_price(registry, lines):
    settings = Extract(model="m", concurrency=10, price_in=1_000_000, price_out=2_000_000, tokens_per_minute=5_000)
    model = OpenAIBackend(settings, load_scenario("news"))
    Counters(registry).add(*of_model(model))
    model.spent.update({"retries": 1, "rejected: refusal": 1})
    item, cluster = ("item", "individual"), ("cluster", "collective")
    model.spent_on.update({("requests", *item): 3, ("answers", *item): 2, ("tokens_in", *item): 20, ("tokens_out", *item): 7})
    model.spent_on.update({("tokens_cached", *item): 16, ("requests", *cluster): 1, ("tokens_in", *cluster): 5})
    model.access.budget.left()
    model.access.waits_for = "pause"
    assert set(lines()) == {
        'reki_llm_tokens_total{direction="in",kind="item",tier="individual"} 20.0',
        'reki_llm_tokens_total{direction="out",kind="item",tier="individual"} 7.0',
        'reki_llm_tokens_total{direction="in",kind="cluster",tier="collective"} 5.0',
        'reki_llm_cached_tokens_total{kind="item",tier="individual"} 16.0',
        'reki_llm_cost_total{kind="item",tier="individual"} 34.0',
        'reki_llm_cost_total{kind="cluster",tier="collective"} 5.0',
        'reki_llm_answers_total{kind="item",tier="individual"} 2.0',
        'reki_llm_requests_total{kind="item",tier="individual"} 3.0',
        'reki_llm_requests_total{kind="cluster",tier="collective"} 1.0',
        "reki_llm_retries_total 1.0",
        'reki_llm_rejected_total{reason="refusal"} 1.0',
        "reki_llm_limit 8.0",
        "reki_llm_under_way 0.0",
        'reki_llm_breaker{state="closed"} 1.0',
        'reki_llm_breaker{state="half-open"} 0.0',
        'reki_llm_breaker{state="open"} 0.0',
        'reki_llm_waits{for="slot"} 0.0',
        'reki_llm_waits{for="pause"} 1.0',
        'reki_llm_waits{for="breaker"} 0.0',
        'reki_llm_waits{for="budget"} 0.0',
        'reki_llm_budget_tokens{window="minute"} 5000.0',
    }


def test_counts_are_read_at_each_scrape_and_a_name_added_again_replaces_the_first(registry, lines):
    counters, count = Counters(registry), Counter()
    counters.add(Counted(name="reki_x", text="x", label="outcome", read=lambda: {"old": 1}))
    counters.add(Counted(name="reki_x", text="x", label="outcome", read=lambda: count))
    assert lines() == []
    count["new"] += 1
    assert lines() == ['reki_x_total{outcome="new"} 1.0']


def test_a_gauge_may_fall_and_several_labels_stand_in_their_order(registry, lines):
    counters, value = Counters(registry), {("a", "b"): 5}
    counters.add(Counted(name="reki_y", text="y", label=("first", "second"), kind="gauge", read=lambda: value))
    assert lines() == ['reki_y{first="a",second="b"} 5.0']
    value["a", "b"] = 2
    assert lines() == ['reki_y{first="a",second="b"} 2.0']
