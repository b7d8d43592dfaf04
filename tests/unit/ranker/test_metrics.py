"""The ranker's page shows what the whole process counts."""

from types import SimpleNamespace

from prometheus_client import REGISTRY, Counter

from ranker.serving.metrics import RankerMetrics


def test_the_page_has_the_metrics_of_the_process_too():
    counts = SimpleNamespace(default_user_vectors=0, default_item_vectors=0, unknown_users=0, unknown_items=0)
    scorer = SimpleNamespace(counts=counts, holder=SimpleNamespace(current=None), catalogue=(), histories=())
    elsewhere = Counter("reki_counted_elsewhere", "counted by another module of the process")
    elsewhere.inc(3)
    try:
        lines = RankerMetrics(scorer, None).page().decode().splitlines()
    finally:
        REGISTRY.unregister(elsewhere)
    assert "reki_counted_elsewhere_total 3.0" in lines
    assert "reki_rank_items 0.0" in lines
