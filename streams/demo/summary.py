"""The demo's summary: gathered from the topics, the store and the processes, checked, printed as a table or as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import Any, Final

from contracts.records import ModelManifest
from contracts.settings import Settings
from contracts.topics import IMPORTED, INTERACTIONS, ITEMS, Topic
from streams.demo import reading
from streams.demo.draining import SLOW_PATH, behind
from streams.demo.reading import percentiles
from streams.topics import n_records

IN: Final[dict[Topic, str]] = {ITEMS: "plan", INTERACTIONS: "plan", IMPORTED: "extract"}
"""The topics that events come in by, and the role that must have done each of their records."""

MAX_DEAD: Final = 0.01  # the demo sends nothing that is wrong: more dead letters than this are a fault of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What only the demo itself knows: what it sent and measured at its own end."""

    dataset: str
    licence: str
    simulated: bool
    sent: Counter[str]
    asked_ms: list[float]
    n_retried: int
    second_part_ms: int
    start_s: dict[str, float]
    took_s: dict[str, float]


def gather(settings: Settings, told: Told, processes: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary as plain JSON values."""
    manifests = reading.manifests(settings)
    latest = max(manifests, key=lambda m: (m.version, m.step), default=None)
    answered = reading.rankings(settings)
    n_impressions, served = reading.served_quality(settings)
    made = reading.knowledge_made(settings)
    vectors = reading.event_to_vector_ms(settings, told.second_part_ms)
    events = _accounts(settings, told.sent)
    return {
        "dataset": told.dataset,
        "licence": told.licence,
        "users_simulated": told.simulated,
        "events": events,
        "all_accounted_for": all(row["ok"] for row in events.values()),
        "dead_letter_reasons": reading.dead_letter_reasons(settings),
        "knowledge": [
            {"kind": kind, "backend": backend, "model": model, "tier": tier, "records": n}
            for (kind, backend, model, tier), n in sorted(made.items())
        ],
        "vectors_stored": reading.stored_vectors(settings, latest),
        "rankings": {
            "answered": answered.n,
            "asked_again": told.n_retried,
            "by_version": {str(version): n for version, n in sorted(answered.versions.items())},
            "items": answered.n_items,
            "items_with_default_vector": answered.n_default_items,
            "items_unknown": answered.n_unknown_items,
        },
        "impressions": {"joined": n_impressions, "open": answered.n - n_impressions},
        "served": dataclasses.asdict(served),
        "models": _models(latest),
        "event_to_vector_ms": {kind: percentiles(waited) for kind, waited in sorted(vectors.items())},
        "ranking_http_ms": percentiles(told.asked_ms),
        "ranking_inside_ms": percentiles(answered.took_ms),
        "memory_mb": {row["name"]: round(row["rss_bytes"] / 2**20) for row in processes if row["rss_bytes"]},
        "restarts": {row["name"]: row["restarts"] for row in processes if row["restarts"]},
        "start_s": told.start_s,
        "took_s": told.took_s,
    }


def _accounts(settings: Settings, sent: Counter[str]) -> dict[str, dict[str, Any]]:
    """Per topic: sent by us, on the log, done by the role that owns it, dead letters. Sent must be processed + dead letters."""
    letters = reading.dead_letters(settings)
    lags = behind(settings)
    accounts: dict[str, dict[str, Any]] = {}
    for topic, role in IN.items():
        on_log = n_records(settings, topic)
        dead = sum(n for (name, stage), n in letters.items() if name == topic.name and stage == role)
        processed = on_log - lags[role][topic.name] - dead
        accounts[topic.name] = {
            "in": sent[topic.name],
            "on_log": on_log,
            "processed": processed,
            "dead_letters": dead,
            "ok": sent[topic.name] == processed + dead and dead <= MAX_DEAD * on_log,
        }
    for role, topics in SLOW_PATH.items():
        for topic in topics:
            if topic not in IN:
                dead = sum(n for (name, stage), n in letters.items() if name == topic.name and stage == role)
                left = lags[role][topic.name]
                on_log = n_records(settings, topic)
                processed = on_log - left - dead
                accounts[topic.name] = {
                    "in": on_log,
                    "on_log": on_log,
                    "processed": processed,
                    "dead_letters": dead,
                    "ok": left == 0 and dead <= MAX_DEAD * on_log,
                }
    return accounts


def _models(latest: ModelManifest | None) -> dict[str, Any] | None:
    if latest is None:
        return None
    return {"version": latest.version, "step": latest.step, "state": latest.state, "metrics": latest.metrics}


def print_summary(summary: dict[str, Any]) -> None:
    """The summary as a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    people = "SIMULATED users" if summary["users_simulated"] else "recorded users"
    table = Table(
        "what", "value", title=f"reki demo: {summary['dataset']} ({people})", box=None, header_style="bold", title_justify="left"
    )
    for what, value in _lines(summary):
        table.add_row(what, value)
    Console(soft_wrap=True).print(table)


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    mark = " (simulated)" if summary["users_simulated"] else ""
    lines = [("licence", summary["licence"])]
    for topic, row in summary["events"].items():
        verdict = "ok" if row["ok"] else "NOT ACCOUNTED FOR"
        lines.append((topic, f"in {row['in']} = processed {row['processed']} + dead letters {row['dead_letters']}: {verdict}"))
    lines += [("dead letter", f"{n} times: {reason}") for reason, n in summary["dead_letter_reasons"].items()]
    lines += [
        (f"knowledge of {row['kind']}s", f"{row['records']} by {row['backend']}, {row['model']} (tier {row['tier']})")
        for row in summary["knowledge"]
    ]
    for name, kinds in summary["vectors_stored"].items():
        lines.append((f"vectors in {name}", ", ".join(f"{n} {kind}s" for kind, n in sorted(kinds.items())) or "none"))
    ranked, joined = summary["rankings"], summary["impressions"]
    defaults = f"{ranked['items_with_default_vector']} of {ranked['items']} items with the default vector"
    lines += [
        ("rankings answered", f"{ranked['answered']} ({defaults})"),
        ("impressions", f"{joined['joined']} joined, {joined['open']} open"),
        (f"served rankings{mark}", _quality(summary["served"])),
        *(
            [("", "what is shown first is examined more: this lifts the served GAUC by itself")]
            if summary["users_simulated"]
            else []
        ),
    ]
    metrics = (summary["models"] or {}).get("metrics", {})
    for model in ("online", "frozen"):
        found = {name.removesuffix(f"_{model}"): value for name, value in metrics.items() if name.endswith(f"_{model}")}
        lines.append((f"{model} model{mark}", ", ".join(f"{name} {value:.4f}" for name, value in found.items()) or "no metrics"))
    for kind, times in summary["event_to_vector_ms"].items():
        lines.append((f"event -> vector, {kind}s", _times(times)))
    lines += [
        ("a ranking over HTTP", _times(summary["ranking_http_ms"])),
        ("the ranking alone", _times(summary["ranking_inside_ms"])),
        ("memory", ", ".join(f"{name} {mb} MB" for name, mb in summary["memory_mb"].items())),
        ("start-up", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in summary["start_s"].items())),
        ("took", ", ".join(f"{what} {seconds:.0f} s" for what, seconds in summary["took_s"].items())),
    ]
    return lines


def _quality(served: dict[str, Any]) -> str:
    shown = [
        f"{name} {served[key]:.4f}"
        for name, key in (("AUC", "auc"), ("LogLoss", "log_loss"), ("GAUC", "gauc"))
        if served[key] is not None
    ]
    return ", ".join([*shown, f"{served['n_items']} items, {served['n_liked']} liked"])


def _times(times: dict[str, float] | None) -> str:
    return "none" if times is None else f"p50 {times['p50']:.1f} ms, p99 {times['p99']:.1f} ms ({times['n']:.0f})"
