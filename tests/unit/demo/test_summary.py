from collections import Counter

from contracts.topics import INTERACTIONS
from streams.demo import summary
from streams.demo.draining import SLOW_PATH


def accounts(monkeypatch, sent, on_log, letters, left=0):
    lags = {role: {topic.name: 0 for topic in topics} for role, topics in SLOW_PATH.items()}
    lags["plan"]["interactions"] = left
    monkeypatch.setattr(summary, "behind", lambda _: lags)
    monkeypatch.setattr(summary, "n_records", lambda _, topic: on_log if topic is INTERACTIONS else 0)
    monkeypatch.setattr(summary.reading, "dead_letters", lambda _: Counter(letters))
    return summary._accounts(None, Counter(interactions=sent))["interactions"]


def test_in_is_processed_and_dead_letters(monkeypatch):
    row = accounts(monkeypatch, 1000, 1000, {("interactions", "plan"): 2, ("interactions", "ingest"): 5, ("items", "plan"): 1})
    assert (row["processed"], row["dead_letters"], row["ok"]) == (998, 2, True)


def test_what_was_lost_or_not_done_or_mostly_dead_fails_the_check(monkeypatch):
    assert not accounts(monkeypatch, 1000, 999, {})["ok"]
    assert not accounts(monkeypatch, 1000, 1000, {}, left=1)["ok"]
    assert not accounts(monkeypatch, 1000, 1000, {("interactions", "plan"): 500})["ok"]


def test_percentiles_of_nothing_are_none():
    assert summary.percentiles([]) is None
    assert summary.percentiles([1.0, 3.0]) == {"n": 2, "p50": 2.0, "p99": 2.98}
