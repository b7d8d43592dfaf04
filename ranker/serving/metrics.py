"""What a ranker says about itself: Prometheus for machines, `live` for the page.

One registry per app, so that tests can have many; the process's own (records in, dead letters, ...) is on the page too.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import REGISTRY, CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client.core import Metric

    from ranker.scoring import Scorer
    from ranker.serving.outbox import Outbox

_BUCKETS_S = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_RECENT = 1_000


class RankerMetrics(Collector):
    """Metrics of one app.

    Args:
        scorer: Its counters are read at each scrape.
        outbox: Where rankings wait to be published, or None.
    """

    def __init__(self, scorer: Scorer, outbox: Outbox | None) -> None:
        self._scorer = scorer
        self._outbox = outbox
        self._registry = CollectorRegistry()
        self._latency = Histogram(
            "reki_rank_seconds", "Time of one ranking, without HTTP.", registry=self._registry, buckets=_BUCKETS_S
        )
        self._candidates = Histogram(
            "reki_rank_candidates",
            "Candidates of one ranking.",
            registry=self._registry,
            buckets=(1, 10, 50, 100, 200, 500, 1_000),
        )
        self._refused = {"invalid": 0, "not_ready": 0}
        self._recent_ms: deque[float] = deque(maxlen=_RECENT)
        self._registry.register(self)

    def ranked(self, took_ms: float, n_candidates: int) -> None:
        """One ranking was answered."""
        self._latency.observe(took_ms / 1_000)
        self._candidates.observe(n_candidates)
        self._recent_ms.append(took_ms)

    def refused(self, why: str) -> None:
        """One request was not answered: ``invalid`` or ``not_ready``."""
        self._refused[why] += 1

    def page(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry) + generate_latest(REGISTRY)

    def newest_ms(self) -> int:
        """The newest event time of the stream, 0 before the first event."""
        return max(self._scorer.histories.newest_ms, *(item.published_ms for item in self._scorer.catalogue.recent(1)), 0)

    def live(self) -> dict[str, float | int | None]:
        """A few figures for the page; p50 and p99 of the last thousand rankings, ``newest_ms`` the newest event time."""
        bundle = self._scorer.holder.current
        recent = list(self._recent_ms)
        p50_ms, p99_ms = np.percentile(recent, (50, 99)).tolist() if recent else (None, None)
        return {
            "rankings": self._scorer.counts.rankings,
            "items": len(self._scorer.catalogue),
            "users": len(self._scorer.histories),
            "vectors": len(bundle.vectors) if bundle else 0,
            "newest_ms": self.newest_ms(),
            "p50_ms": p50_ms,
            "p99_ms": p99_ms,
        }

    def collect(self) -> Iterable[Metric]:
        """Counters kept elsewhere, for `prometheus_client`."""
        counts, bundle = self._scorer.counts, self._scorer.holder.current
        yield _labelled(
            "reki_rank_default_vectors",
            "Subjects ranked with the default vector, for want of knowledge.",
            "subject",
            {"user": counts.default_user_vectors, "item": counts.default_item_vectors},
        )
        yield _labelled(
            "reki_rank_unknown",
            "Users without history and ranked items that the catalogue does not have.",
            "subject",
            {"user": counts.unknown_users, "item": counts.unknown_items},
        )
        yield _labelled("reki_rank_refused", "Requests that were not answered.", "why", self._refused)
        yield CounterMetricFamily("reki_rank_unpublished", "Rankings not published.", self._outbox.dropped if self._outbox else 0)
        yield GaugeMetricFamily("reki_rank_items", "Items in the catalogue.", len(self._scorer.catalogue))
        yield GaugeMetricFamily("reki_rank_users", "Users with history.", len(self._scorer.histories))
        if bundle is None:
            return
        found = bundle.vectors.counts
        yield GaugeMetricFamily("reki_model_version", "Model version in force.", bundle.version)
        yield GaugeMetricFamily("reki_model_step", "Online updates inside the version in force.", bundle.step)
        yield GaugeMetricFamily("reki_vectors", "Vectors in the local matrix of this version.", len(bundle.vectors))
        yield CounterMetricFamily("reki_vector_misses", "Vectors asked for that were not in the local matrix.", found.misses)
        yield _labelled(
            "reki_vector_reads",
            "Batched reads on the vector store, by how they ended.",
            "end",
            {
                "answered": found.reads - found.reads_late - found.reads_failed,
                "late": found.reads_late,
                "failed": found.reads_failed,
                "skipped": found.reads_skipped,
            },
        )


def _labelled(name: str, text: str, label: str, values: dict[str, int]) -> CounterMetricFamily:
    family = CounterMetricFamily(name, text, labels=[label])
    for value, count in values.items():
        family.add_metric([value], count)
    return family
