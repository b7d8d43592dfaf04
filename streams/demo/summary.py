"""The demo's summary: gathered from the topics, the store and the processes, checked, printed as a table or as JSON."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from contracts.records import DeadLetter, ModelManifest
from contracts.settings import Settings
from contracts.topics import IMPORTED, INTERACTIONS, ITEMS, Topic
from streams.demo import reading
from streams.demo.draining import SLOW_PATH, behind
from streams.demo.reading import percentiles
from streams.manifests import manifests
from streams.topics import n_records

IN: Final[dict[Topic, str]] = {ITEMS: "plan", INTERACTIONS: "plan"}
"""The topics whose records end in a role's own state, and that role: what it has taken in is counted there, not by offsets."""

MAX_DEAD: Final = 0.01  # the demo sends nothing that is wrong: more dead letters than this are a fault of ours


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """What only the demo itself knows: what it sent and measured at its own end.

    ``sent`` are events by topic; ``n_items`` of the items are distinct, the others were sent because they changed.
    """

    dataset: str
    licence: str
    simulated: bool
    sent: Counter[str]
    n_items: int
    asked_ms: list[float]
    n_retried: int
    second_part_ms: int
    start_s: dict[str, float]
    took_s: dict[str, float]


def gather(settings: Settings, told: Told, processes: list[dict[str, Any]]) -> dict[str, Any]:
    """The summary as plain JSON values."""
    latest = max(manifests(settings), key=lambda m: (m.version, m.step), default=None)
    answered = reading.rankings(settings)
    n_impressions, served = reading.served_quality(settings)
    made = reading.knowledge_made(settings)
    vectors = reading.event_to_vector_ms(settings, told.second_part_ms)
    letters = reading.dead_letters(settings)
    events = _accounts(settings, told, letters)
    return {
        "dataset": told.dataset,
        "licence": told.licence,
        "users_simulated": told.simulated,
        "events": events,
        "all_accounted_for": all(row["ok"] for row in events.values()),
        "dead_letter_reasons": reading.dead_letter_reasons(letters),
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


def _accounts(settings: Settings, told: Told, letters: Sequence[DeadLetter]) -> dict[str, dict[str, Any]]:
    """Per topic: what came in, is on the log, was done by the role that owns it, became a dead letter.

    Of `IN`, what was sent must be in the role's own state (``processed``) or a dead letter. Of the other topics, what is on the
    log (of imported knowledge: what was sent) must be ``committed`` as done, or a dead letter.
    """
    dead = Counter((letter.topic, letter.stage) for letter in letters)
    processed = reading.taken_in(settings)
    sent = {**told.sent, ITEMS.name: told.n_items}
    lags = behind(settings)
    accounts: dict[str, dict[str, Any]] = {}
    for topic, role in IN.items():
        row = {"in": sent.get(topic.name, 0), "on_log": n_records(settings, topic), "processed": processed[topic.name]}
        accounts[topic.name] = _verdict(row, "processed", dead[topic.name, role])
    for role, topics in SLOW_PATH.items():
        for topic in topics:
            if topic not in IN:
                on_log, n_dead = n_records(settings, topic), dead[topic.name, role]
                committed = on_log - lags[role][topic.name] - n_dead
                row = {"in": sent.get(topic.name, 0) if topic is IMPORTED else on_log, "on_log": on_log, "committed": committed}
                accounts[topic.name] = _verdict(row, "committed", n_dead)
    return accounts


def _verdict(row: dict[str, int], done: str, n_dead: int) -> dict[str, Any]:
    return {**row, "dead_letters": n_dead, "ok": row["in"] == row[done] + n_dead and n_dead <= MAX_DEAD * row["on_log"]}


def _models(latest: ModelManifest | None) -> dict[str, Any] | None:
    if latest is None:
        return None
    return {"version": latest.version, "step": latest.step, "state": latest.state, "metrics": latest.metrics}


def print_summary(summary: dict[str, Any]) -> None:
    """The summary as a table on stdout."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    people = "SIMULATED users" if summary["users_simulated"] else "recorded users"
    table = Table(
        "what",
        "value",
        title=escape(f"reki demo: {summary['dataset']} ({people})"),
        box=None,
        header_style="bold",
        title_justify="left",
    )
    for what, value in _lines(summary):
        table.add_row(escape(what), escape(value))
    Console(soft_wrap=True).print(table)


def _lines(summary: dict[str, Any]) -> list[tuple[str, str]]:
    mark = " (simulated)" if summary["users_simulated"] else ""
    lines = [("licence", summary["licence"])]
    for topic, row in summary["events"].items():
        verdict = "ok" if row["ok"] else "NOT ACCOUNTED FOR"
        done = "processed" if "processed" in row else "committed"
        lines.append((topic, f"in {row['in']} = {done} {row[done]} + dead letters {row['dead_letters']}: {verdict}"))
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
        ("impressions", f"{joined['joined']} joined, {joined['open']} still open or without any reaction"),
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
