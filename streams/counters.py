"""What stages count in plain attributes, for Prometheus: read at each scrape.

It stands here because the stages themselves (`extractor`, `hein`) need not know who watches them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from extractor.extraction import Extraction
    from hein.encoding import Encoding

Read = Callable[[], Mapping[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """One metric: ``read`` gives its counts by the values of ``label``; without a label, its one count under ``""``."""

    name: str
    text: str
    read: Read
    label: str = ""


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
        for one in list(self._counted.values()):
            family = CounterMetricFamily(one.name, one.text, labels=[one.label] if one.label else [])
            for value, count in dict(one.read()).items():  # a copy at once: a stage in another thread may add to it
                family.add_metric([value] if one.label else [], count)
            yield family


COUNTERS = Counters()


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


def of_model(spent: Mapping[str, int]) -> list[Counted]:
    """Of a language model, ``spent`` as `extractor.backends.openai.OpenAIBackend` keeps it."""
    rejected = "rejected: "

    def reasons() -> dict[str, int]:
        return {key.removeprefix(rejected): count for key, count in dict(spent).items() if key.startswith(rejected)}

    return [
        Counted(
            name="reki_llm_tokens",
            text="Tokens, also of answers that were thrown away; what the model server did not count is missing.",
            label="direction",
            read=lambda: {"in": spent.get("tokens_in", 0), "out": spent.get("tokens_out", 0)},
        ),
        Counted(
            name="reki_llm_requests",
            text="HTTP requests to the model server, retries among them.",
            read=lambda: {"": spent.get("requests", 0)},
        ),
        Counted(
            name="reki_llm_retries",
            text="Requests to the model server that were made again after an error that waiting may mend.",
            read=lambda: {"": spent.get("retries", 0)},
        ),
        Counted(
            name="reki_llm_rejected", text="Answers of the model that could not be used, by reason.", label="reason", read=reasons
        ),
    ]


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
