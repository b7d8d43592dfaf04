"""What stages count is on the page, by name, as it is at the moment of the scrape."""

from collections import Counter
from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from streams.counters import Counted, Counters, of_augmenting, of_encoding, of_extraction, of_model


@pytest.fixture
def registry():
    return CollectorRegistry(auto_describe=True)


@pytest.fixture
def lines(registry):
    return lambda: [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]


def test_every_count_of_a_stage_has_its_line(registry, lines):
    spent = Counter({"requests": 3, "retries": 1, "tokens_in": 20, "tokens_out": 7, "rejected: refusal": 1})
    encoding = SimpleNamespace(n_encoded=4, n_reused=3, n_stale=2, n_cut=1)
    Counters(registry).add(
        *of_extraction(SimpleNamespace(counts=Counter({"made": 2, "stood in: refusal": 1}))),
        *of_model(spent),
        *of_encoding(encoding),
        *of_augmenting(lambda: Counter(augmented=5)),
    )
    assert set(lines()) == {
        'reki_extractions_total{outcome="made"} 2.0',
        'reki_extractions_total{outcome="stood in: refusal"} 1.0',
        'reki_llm_tokens_total{direction="in"} 20.0',
        'reki_llm_tokens_total{direction="out"} 7.0',
        "reki_llm_requests_total 3.0",
        "reki_llm_retries_total 1.0",
        'reki_llm_rejected_total{reason="refusal"} 1.0',
        'reki_encodings_total{outcome="encoded"} 4.0',
        'reki_encodings_total{outcome="reused"} 3.0',
        'reki_encodings_total{outcome="stale"} 2.0',
        "reki_documents_cut_total 1.0",
        'reki_augmentations_total{outcome="augmented"} 5.0',
    }


def test_counts_are_read_at_each_scrape_and_a_name_added_again_replaces_the_first(registry, lines):
    counters, count = Counters(registry), Counter()
    counters.add(Counted(name="reki_x", text="x", label="outcome", read=lambda: {"old": 1}))
    counters.add(Counted(name="reki_x", text="x", label="outcome", read=lambda: count))
    assert lines() == []
    count["new"] += 1
    assert lines() == ['reki_x_total{outcome="new"} 1.0']
