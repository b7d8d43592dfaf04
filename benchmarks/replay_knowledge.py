"""A replay of ML-1M with planning, extraction and clustering on: who was asked about and why, what was served, what it cost.

    python benchmarks/replay_knowledge.py --path ../shared/data/ml-1m [--limit 200000] [--rate 1000] [--tokens-per-minute 400000]
        [--outage-at 100000] [--outage-s 60] [--markdown docs/results/replay.md]

Real: broker, vector store, roles (plan, extract, cluster, encode), HTTP. The language model is a stand-in
(benchmarks/model_server.py): its texts are words of the prompt, its tokens characters / 4. So this measures the machinery, not
the quality of knowledge. In the middle of the stream the model server is killed, and comes back later; the stream goes on.
At the end the run waits until nobody waits, and checks that every subject has the answer to its last request.

One JSON line; with ``--markdown`` a report too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from machine import commit, machine
from model_server import model_server
from role_process import role_process, throw_away
from scipy.stats import spearmanr

from contracts.records import InteractionEvent, Knowledge, KnowledgeRequest
from contracts.settings import Collective, Extract, Plan, Settings
from contracts.subjects import split_subject
from contracts.topics import CLUSTER_KNOWLEDGE, DEAD_LETTERS, KNOWLEDGE, REQUESTS
from streams.datasets.movielens import MovieLens
from streams.embedded.programs import free_port
from streams.publisher import KafkaPublisher, wall_ms
from streams.replay import send_event
from streams.tail import Tail, Tailed

if TYPE_CHECKING:
    from collections.abc import Iterator

STEP = 20_000  # interactions between two looks
CALM_S = 15.0  # without an answer and without a waiting request: the run is over
DEADLINE_S = 1_800
_HEAD = (
    "up to",
    "requests by reason",
    "what was said, by tier",
    "tokens in and out",
    "of these from the prefix cache",
    "saved by kept answers",
    "waiting",
)
_FEW = 3  # answers: no order to speak of
_LINE = re.compile(r"^(?P<name>\w+?)(_total)?(\{(?P<labels>[^}]*)\})? (?P<value>[\d.e+-]+)$")


def metrics(port: int) -> Counter[str]:
    """Counters and gauges of a role's process: ``name:label,label`` -> value."""
    found: Counter[str] = Counter()
    for line in httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10).text.splitlines():
        if (match := _LINE.match(line)) and match["name"].startswith("reki_"):
            labels = ",".join(re.findall(r'"([^"]*)"', match["labels"] or ""))
            found[f"{match['name']}:{labels}" if labels else match["name"]] += float(match["value"])  # type: ignore[assignment]
    return found


def part(now: Counter[str], before: Counter[str], name: str) -> dict[str, int]:
    """What was added to a metric, by label."""
    keys = [key for key in now if key == name or key.startswith(f"{name}:")]
    return {key.partition(":")[2]: round(now[key] - before[key]) for key in keys if now[key] != before[key]}


class Look:
    """One row: what happened over some interactions."""

    def __init__(self, settings: Settings) -> None:
        self._port = settings.metrics_port
        self._before: Counter[str] = Counter()
        self.rows: list[dict[str, Any]] = []

    def take(self, n_events: int) -> None:
        """Look at the roles now."""
        now = metrics(self._port)
        row = {
            "events": n_events,
            "n": n_events - (self.rows[-1]["events"] if self.rows else 0),
            "requests": part(now, self._before, "reki_planned"),
            "extractions": part(now, self._before, "reki_extractions"),
            "tokens": part(now, self._before, "reki_llm_tokens"),
            "cached_tokens": part(now, self._before, "reki_llm_cached_tokens"),
            "saved_requests": part(now, self._before, "reki_llm_saved_requests"),
            "saved_tokens": part(now, self._before, "reki_llm_saved_tokens"),
            "clusters_asked": part(now, self._before, "reki_cluster_requests"),
            "waiting": round(now["reki_extract_waiting"]),
        }
        self._before = now
        self.rows.append(row)
        print(json.dumps(row), flush=True)


def read(settings: Settings, topic: Any) -> list[Tailed]:
    """Everything on a topic."""
    with Tail(settings, [topic]) as tail:
        return list(tail.to_end())


def stream(settings: Settings, data: MovieLens, given: argparse.Namespace, look: Look, outage: Outage) -> None:
    """Send the events at the rate asked for."""
    started_s, n = time.monotonic(), 0
    with KafkaPublisher(settings) as publisher:
        for event in data.events(given.limit):
            send_event(publisher, event)
            if not isinstance(event, InteractionEvent):
                continue
            n += 1
            if n % 100 == 0:
                publisher.flush()
                time.sleep(max(0.0, started_s + n / given.rate - time.monotonic()))
                outage.follow(n)
            if n % STEP == 0:
                look.take(n)
        publisher.flush()


class Outage:
    """Kills the model server at an event, and starts it again after a while."""

    def __init__(self, stack: contextlib.ExitStack, port: int, given: argparse.Namespace) -> None:
        self._stack, self._port, self._given = stack, port, given
        self._server = stack.enter_context(model_server(port, given.latency_s, given.slots))
        self._until_s = 0.0
        self.back_ms = 0

    def follow(self, n_events: int) -> None:
        """Do what is due."""
        if n_events >= self._given.outage_at and not self._until_s:
            self._server.kill()
            self._until_s = time.monotonic() + self._given.outage_s
        elif self._until_s and not self.back_ms and time.monotonic() >= self._until_s:
            self._server = self._stack.enter_context(model_server(self._port, self._given.latency_s, self._given.slots))
            self.back_ms = wall_ms()


def wait_for_calm(settings: Settings, look: Look, outage: Outage, given: argparse.Namespace) -> None:
    """Return when nobody waits any more."""
    calm_since, end_s = time.monotonic(), time.monotonic() + DEADLINE_S
    before: Counter[str] = Counter()
    while time.monotonic() - calm_since < CALM_S:
        outage.follow(given.limit)
        now = metrics(settings.metrics_port)
        busy = now["reki_extract_waiting"] or now["reki_extract_under_way"]
        if busy or part(now, before, "reki_extractions"):
            calm_since = time.monotonic()
        before = now
        if time.monotonic() > end_s:
            raise RuntimeError(f"{now['reki_extract_waiting']} still wait after {DEADLINE_S} s")
        time.sleep(1)
    look.take(given.limit)


def checks(settings: Settings, back_ms: int) -> dict[str, Any]:
    """What came of every request: the last one of each subject is answered, and the backlog left in the order of priority."""
    requests = [one for one in read(settings, REQUESTS) if isinstance(one.record, KnowledgeRequest)]
    answers = [
        one for topic in (KNOWLEDGE, CLUSTER_KNOWLEDGE) for one in read(settings, topic) if isinstance(one.record, Knowledge)
    ]
    last = {one.record.subject: one.record for one in requests}
    best = {one.record.subject: one.record for one in answers if one.record.tier != "attributes"}
    letters = {one.record.key.decode() for one in read(settings, DEAD_LETTERS) if one.record.key}
    missing = [subject for subject, asked in last.items() if subject not in letters and not _answered(asked, best.get(subject))]
    tiers = Counter(one.record.tier for one in {one.record.subject: one for one in answers}.values())
    return {
        "subjects": len(last),
        "requests": len(requests),
        "last_request_unanswered": len(missing),
        "dead_letters": len(letters),
        "never_asked": _never_asked([one.record for one in requests], [one.record for one in answers]),
        "served_in_the_end": dict(tiers),
        "priority_against_order_after_the_outage": _order(requests, answers, back_ms),
    }


def _never_asked(requests: list[KnowledgeRequest], answers: list[Knowledge]) -> dict[str, int]:
    """Requests that a newer one about the same subject replaced before their turn, and what they would have cost."""
    spent: dict[tuple[str, int], int] = {
        (one.subject, one.as_of_ms): one.tokens_in + (one.tokens_out or 0) for one in answers if one.tokens_in is not None
    }
    by_kind: dict[str, list[int]] = {}
    for (subject, _), n_tokens in spent.items():
        by_kind.setdefault(split_subject(subject)[0], []).append(n_tokens)
    replaced = [split_subject(one.subject)[0] for one in requests if (one.subject, one.as_of_ms) not in spent]
    typical = {kind: sum(found) / len(found) for kind, found in by_kind.items()}
    return {"requests": len(replaced), "tokens": round(sum(typical.get(kind, 0) for kind in replaced))}


def _answered(asked: KnowledgeRequest, answer: Knowledge | None) -> bool:
    return answer is not None and (answer.as_of_ms >= asked.as_of_ms or answer.source_hash == asked.source_hash)


def _order(requests: list[Tailed], answers: list[Tailed], back_ms: int) -> dict[str, float]:
    """Of what waited when the server came back: rank correlation of priority with the order of the answers (-1: by priority)."""
    priority = {(one.record.subject, one.record.as_of_ms): one.record.priority for one in requests if one.at_ms < back_ms}
    drained: Iterator[Tailed] = (one for one in sorted(answers, key=lambda one: one.at_ms) if one.at_ms >= back_ms)
    found = [
        priority[one.record.subject, one.record.as_of_ms]
        for one in drained
        if one.record.tier == "individual" and (one.record.subject, one.record.as_of_ms) in priority
    ]
    if len(found) < _FEW:
        return {"n": len(found)}
    return {"n": len(found), "spearman": round(float(spearmanr(np.arange(len(found)), found).statistic), 3)}


def markdown(line: dict[str, Any]) -> str:
    """The run as a page."""
    given, checks_ = line["settings"], line["checks"]
    rows = [
        f"| {row['events']:,} | {_words(row['requests'], row['n'])} | {_words(_said(row['extractions']), row['n'])} | "
        f"{_words(_tokens(row['tokens']), row['n'])} | {_words(_cached(row['cached_tokens']), row['n'])} | "
        f"{_words(row['saved_tokens'], row['n']) or '0'} | {row['waiting']:,} |"
        for row in line["rows"]
    ]
    served = sum(checks_["served_in_the_end"].values())
    tiers = ", ".join(f"{tier} {n:,} ({n / served:.1%})" for tier, n in sorted(checks_["served_in_the_end"].items()))
    order = checks_["priority_against_order_after_the_outage"]
    never = checks_["never_asked"]
    cpu, n, missing = line["machine"]["cpu"], line["interactions"], checks_["last_request_unanswered"]
    options = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items())
    return f"""# A replay with planning, extraction and clusters on

    python benchmarks/replay_knowledge.py {options}

MovieLens-1M in time order: {n:,} interactions in {line["streamed_s"]} s, all of it in {line["took_s"]} s,
on {line["machine"]["cores"]} cores ({cpu}), commit {line["commit"]}.

Broker, vector store, roles and HTTP are real; **the language model is a stand-in**: its texts are words of the prompt, its tokens
characters / 4. The model server was killed at interaction {int(given["outage_at"]):,} and came back
{float(given["outage_s"]):.0f} s later, while the stream went on.

Per 1,000 interactions (the last row: after the stream, in all):

| {" | ".join(_HEAD)} |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}

* {checks_["subjects"]:,} subjects, {checks_["requests"]:,} requests, {checks_["dead_letters"]} dead letters.
* **Subjects whose last request has no answer: {missing}.**
* {never["requests"]:,} requests were never asked, because a newer one about the same subject came before their turn:
  some {never["tokens"]:,} tokens.
* Served in the end (clusters themselves are among the collective ones): {tiers}.
* Rank correlation of priority with the order of answers after the outage: {order.get("spearman")} over {order["n"]:,} answers.
  -1 is strictly by priority; what is under way at once, and what becomes urgent meanwhile, keeps it above that.
"""


def _tokens(tokens: dict[str, int]) -> dict[str, int]:
    """In and out together, by kind and tier."""
    found: Counter[str] = Counter()
    for key, n in tokens.items():
        found[key.partition(",")[2].replace(",", " ")] += n
    return dict(found)


def _said(extractions: dict[str, int]) -> dict[str, int]:
    return {"by the model" if what == "made" else what: n for what, n in extractions.items()}


def _cached(tokens: dict[str, int]) -> dict[str, int]:
    return {"": sum(tokens.values())} if tokens else {}


def _words(counts: dict[str, int], n_events: int) -> str:
    """Counts per 1,000 interactions; as they are where there were none."""
    per = n_events / 1_000 or 1
    return ", ".join(f"{name} {n / per:,.0f}".strip() for name, n in sorted(counts.items(), key=lambda one: -one[1]))


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--path", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=200_000)
    parser.add_argument("--rate", type=float, default=1_000, help="interactions per second")
    parser.add_argument("--latency-s", type=float, default=0.5)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--tokens-per-minute", type=int, default=400_000)
    parser.add_argument("--outage-at", type=int, default=100_000)
    parser.add_argument("--outage-s", type=float, default=60)
    parser.add_argument("--markdown", type=Path)
    given = parser.parse_args()
    described, port = machine(), free_port()
    changes = {
        "plan": Plan(min_gap_s=5),
        "extract": Extract(
            scenario="movies", backend="openai", base_url=f"http://127.0.0.1:{port}/v1", model="stand-in",
            concurrency=given.slots, tokens_per_minute=given.tokens_per_minute,
        ),
        "collective": Collective(item_clusters=50, user_clusters=50),
    }  # fmt: skip
    with throw_away() as base, contextlib.ExitStack() as stack:
        settings = base.model_copy(update={**changes, "metrics_port": free_port()})
        outage, look = Outage(stack, port, given), Look(settings)
        stack.enter_context(role_process(settings, "plan", "extract", "cluster", port=settings.metrics_port))
        stack.enter_context(role_process(settings, "encode"))
        started_s = time.monotonic()
        stream(settings, MovieLens(given.path), given, look, outage)
        streamed_s = time.monotonic() - started_s
        wait_for_calm(settings, look, outage, given)
        took_s = time.monotonic() - started_s
        checked = checks(settings, outage.back_ms)
        total = metrics(settings.metrics_port)
    line = {
        "bench": "replay_knowledge",
        "interactions": given.limit,
        "streamed_s": round(streamed_s),
        "took_s": round(took_s),
        "rows": look.rows,
        "checks": checked,
        "totals": {
            key: round(value) for key, value in sorted(total.items()) if key.startswith(("reki_llm", "reki_planned", "reki_extr"))
        },
        "settings": {key: str(value) for key, value in vars(given).items()},
        "machine": described,
        "commit": commit(),
    }
    print(json.dumps(line))
    if given.markdown:
        given.markdown.write_text(markdown(line), encoding="utf-8")


if __name__ == "__main__":
    main()
