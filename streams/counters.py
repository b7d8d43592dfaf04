"""What stages count in plain attributes, for Prometheus: read at each scrape.

It stands here because the stages themselves (`extractor`, `hein`) need not know who watches them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from extractor.access import Access
    from extractor.answer_cache import CachedBackend
    from extractor.backends.openai import OpenAIBackend
    from extractor.extraction import Extraction
    from hein.encoding import Encoding

Read = Callable[[], Mapping[str, float]]
ReadMany = Callable[[], Mapping[tuple[str, ...], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One metric: ``read`` gives its values by the value of ``label``; without a label, its one value under ``""``.

    With several labels the values stand under tuples, in the order of the labels. A ``gauge`` may also fall.
    """

    name: str
    text: str
    read: Read | ReadMany
    label: str | tuple[str, ...] = ()
    kind: Literal["counter", "gauge"] = "counter"

    def metric(self) -> Metric:
        """As it is now."""
        labels = (self.label,) if isinstance(self.label, str) else self.label
        family = (CounterMetricFamily if self.kind == "counter" else GaugeMetricFamily)(self.name, self.text, labels=labels)
        for key, value in dict(self.read()).items():  # a copy at once: a stage in another thread may add to it
            values = (key,) if isinstance(key, str) else key
            family.add_metric(values if labels else (), value)
        return family


class Counters(Collector):
    """The counts of a process. A name that is added again replaces the one before.

    Args:
        registry: Where they are collected.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._counted: dict[str, Counted] = {}
        registry.register(self)

    def add(self, *counted: Counted) -> None:
        """Export these too."""
        self._counted |= {one.name: one for one in counted}

    def describe(self) -> Iterable[Metric]:
        """Nothing yet: names come with the roles."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Read them all."""
        return [one.metric() for one in list(self._counted.values())]


COUNTERS = Counters()


def of_planning(counts: Mapping[str, int]) -> list[Counted]:
    """Of the plan stage."""
    text = "Requests for knowledge that planning made, by reason."
    return [Counted(name="reki_planned", text=text, label="reason", read=lambda: counts)]


def of_extraction(extraction: Extraction) -> list[Counted]:
    """Of the extract stage."""
    return [
        Counted(
            name="reki_extractions",
            text="Requests for knowledge, by what became of them; kept: what stands is as good and as new.",
            label="outcome",
            read=lambda: extraction.counts,
        )
    ]


def of_model(model: OpenAIBackend) -> list[Counted]:
    """Of a language model: what it was asked and what that cost. Cost per subject is cost / answers."""
    spent, rejected = model.spent, "rejected: "
    by_subject = ("kind", "tier")

    def reasons() -> dict[str, int]:
        return {key.removeprefix(rejected): count for key, count in dict(spent).items() if key.startswith(rejected)}

    def of(what: str) -> ReadMany:
        return lambda: {(kind, tier): n for (of_what, kind, tier), n in dict(model.spent_on).items() if of_what == what}

    def tokens() -> dict[tuple[str, ...], int]:
        ways = {"tokens_in": "in", "tokens_out": "out"}
        return {(ways[what], kind, tier): n for (what, kind, tier), n in dict(model.spent_on).items() if what in ways}

    return [
        Counted(
            name="reki_llm_tokens",
            text="Tokens, also of answers that were thrown away; what the model server did not count is missing.",
            label=("direction", *by_subject),
            read=tokens,
        ),
        Counted(
            name="reki_llm_cached_tokens",
            text="Of the tokens in, those that the model server had in its prefix cache.",
            label=by_subject,
            read=of("tokens_cached"),
        ),
        Counted(name="reki_llm_cost", text="What the tokens cost at the prices set.", label=by_subject, read=model.cost),
        Counted(
            name="reki_llm_answers", text="Subjects that the model gave knowledge about.", label=by_subject, read=of("answers")
        ),
        Counted(
            name="reki_llm_requests",
            text="HTTP requests to the model server, retries among them.",
            label=by_subject,
            read=of("requests"),
        ),
        Counted(
            name="reki_llm_retries",
            text="Requests to the model server that were made again after an error that waiting may mend.",
            read=lambda: {"": spent["retries"]},
        ),
        Counted(
            name="reki_llm_rejected", text="Answers of the model that could not be used, by reason.", label="reason", read=reasons
        ),
        *of_access(model.access),
    ]


def of_access(access: Access) -> list[Counted]:
    """Of what stands in front of a language model."""
    budget = access.budget
    return [
        Counted(
            name="reki_llm_limit",
            text="Requests that may be under way at once, as found out from the model server.",
            kind="gauge",
            read=lambda: {"": access.concurrency.limit},
        ),
        Counted(name="reki_llm_under_way", text="Requests under way.", kind="gauge", read=lambda: {"": access.n_places}),
        Counted(
            name="reki_llm_breaker",
            text="1 for the state that the circuit breaker is in; open: the model server is left alone.",
            label="state",
            kind="gauge",
            read=lambda: {state: float(state == access.breaker) for state in ("closed", "half-open", "open")},
        ),
        Counted(
            name="reki_llm_waits",
            text="1 for what the next request waits for; pause: the model server asked for it.",
            label="for",
            kind="gauge",
            read=lambda: {what: float(what == access.waits_for) for what in ("slot", "pause", "breaker", "budget")},
        ),
        Counted(
            name="reki_llm_budget_tokens",
            text="Tokens left of the budget when it was last looked at.",
            label="window",
            kind="gauge",
            read=lambda: budget.last_left,
        ),
    ]


def of_cache(cached: CachedBackend) -> list[Counted]:
    """Of the answers kept: tokens that need not be spent again. Its requests belong to `of_savings`."""
    return [
        Counted(
            name="reki_llm_saved_tokens",
            text="Tokens that the answers taken from the cache or from a near-duplicate had cost.",
            label="by",
            read=lambda: cached.saved_tokens,
        )
    ]


def of_savings(read: Read) -> list[Counted]:
    """Of requests that need not be made: ``read`` gives them by what saved them (cache, near-duplicate, collective)."""
    text = "Requests to the model that need not be made, by what saved them."
    return [Counted(name="reki_llm_saved_requests", text=text, label="by", read=read)]


def of_encoding(stage: Encoding) -> list[Counted]:
    """Of the encode stage."""
    return [
        Counted(
            name="reki_encodings",
            text="Knowledge, by what became of it; reused: the same text has its vector; stale: newer or better stands.",
            label="outcome",
            read=lambda: {"encoded": stage.n_encoded, "reused": stage.n_reused, "stale": stage.n_stale},
        ),
        Counted(
            name="reki_documents_cut",
            text="Knowledge whose texts were cut to fit their row (the vector is of the whole text).",
            read=lambda: {"": stage.n_cut},
        ),
    ]


def of_augmenting(read: Read) -> list[Counted]:
    """Of the augment stage, all versions together."""
    text = "Encodings, by what became of them in each model version; stale: newer or better stands."
    return [Counted(name="reki_augmentations", text=text, label="outcome", read=read)]
