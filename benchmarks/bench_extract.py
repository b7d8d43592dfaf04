"""Requests per second of the extract stage against bare client calls, and the memory of a long queue.

    python benchmarks/bench_extract.py [--n 3200] [--concurrency 64] [--latency-s 0.2] [--queued 100000]

One stand-in server with a fixed latency (benchmarks/model_server.py), the same prompts, in turns in one run. "Bare" is the openai
client with the same structured output and as many calls at once, answers thrown away; "reki" is queue, limits, counters, parsing
and checking of every answer, without Kafka; ideal is concurrency / latency. The cache is off: every request is sent. Memory is of
requests with an item of 600 characters, in the queue and, packed, in the table.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from typing import TYPE_CHECKING, Any

import msgspec
import psutil
from machine import commit, machine
from model_server import model_server

from contracts.records import ItemEvent, KnowledgeRequest
from contracts.settings import Extract
from extractor.asking import Asking
from extractor.backends.openai import OpenAIBackend
from extractor.chat import request_body
from extractor.extraction import Extraction
from extractor.prompts import build_prompt
from extractor.scenario import load_scenario
from extractor.subject_state import Subject
from streams.embedded.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Sequence

ROUNDS = 3
NEWS = load_scenario("news")


def requests(n: int, first: int = 0) -> list[KnowledgeRequest]:
    """Requests for different items."""
    return [
        KnowledgeRequest(
            subject=f"item:i{number}",
            mode="individual",
            reason="new_item",
            priority=100 + number % 7,
            as_of_ms=1,
            trigger_ms=1,
            source_hash=str(number),
            item=ItemEvent(
                item=f"i{number}", published_ms=1, title=f"Article {number} of the harbour", text=f"word{number} " * 60
            ),
        )
        for number in range(first, first + n)
    ]


def bare(settings: Extract, asked: Sequence[KnowledgeRequest]) -> float:
    """Requests per second of the client alone."""

    async def all_of_them() -> float:
        from openai import AsyncOpenAI

        client = AsyncOpenAI(base_url=settings.base_url, api_key="none", max_retries=0, timeout=60)
        bodies = iter([request_body(build_prompt(NEWS, one), model="m", max_tokens=400) for one in asked])

        async def caller() -> None:
            for body in bodies:
                await client.chat.completions.with_raw_response.create(**body)

        started_s = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(settings.concurrency)))
        took_s = time.perf_counter() - started_s
        await client.close()
        return len(asked) / took_s

    return asyncio.run(all_of_them())


def through_reki(settings: Extract, asked: Sequence[KnowledgeRequest]) -> float:
    """Requests per second of the stage, queue and answers included."""
    asking = Asking(OpenAIBackend(settings, NEWS))
    stage = Extraction(settings, NEWS, _States(), asking)
    asking.start()
    started_s = time.perf_counter()
    for one in asked:
        stage.requested(one, 0, time.monotonic())
    n_said = 0
    while n_said < len(asked):
        n_said += sum(bool(stage.answered(answer)) for answer in asking.answers())
        time.sleep(0.02)
    took_s = time.perf_counter() - started_s
    asking.close()
    if stage.counts["made"] != len(asked):
        raise RuntimeError(f"got {dict(stage.counts)}; wanted {len(asked)} made")
    return len(asked) / took_s


class _States(dict[str, Subject]):
    def put(self, subject: str, state: Subject | None) -> None:
        if state is not None:
            self[subject] = state


class _HeldBackend(OpenAIBackend):
    """Lets nobody through, so that all that is asked waits."""

    async def ready(self) -> None:
        await asyncio.Event().wait()


class _Packed:
    """States as the role's table holds them."""

    def __init__(self) -> None:
        self.packed: dict[str, bytes] = {}

    def get(self, subject: str) -> Subject | None:
        found = self.packed.get(subject)
        return None if found is None else msgspec.msgpack.decode(found, type=Subject)

    def put(self, subject: str, state: Subject | None) -> None:
        if state is not None:
            self.packed[subject] = msgspec.msgpack.encode(state)


def queued_mb(settings: Extract, n: int) -> dict[str, float]:
    """Resident memory that n waiting requests cost, as the role holds them."""
    process, states = psutil.Process(), _Packed()
    asking = Asking(_HeldBackend(settings, NEWS))
    asking.start()
    stage = Extraction(settings, NEWS, states, asking)
    before = process.memory_info().rss
    for start in range(0, n, 1000):
        for one in requests(1000, start):
            stage.requested(one, 0, time.monotonic())
    while asking.n_waiting < n:
        time.sleep(0.05)
    used = process.memory_info().rss - before
    in_table = sum(map(len, states.packed.values()))
    asking.close()
    return {
        "queued": n,
        "resident_mb": round(used / 2**20),
        "of_it_in_the_table_mb": round(in_table / 2**20),
        "kb_each": round(used / n / 1024, 2),
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=3_200)  # 50 full rounds: a last half-empty one would count against everybody
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--queued", type=int, default=100_000)
    given = parser.parse_args()
    described, port = machine(), free_port()
    settings = Extract(
        backend="openai",
        base_url=f"http://127.0.0.1:{port}/v1",
        model="m",
        concurrency=given.concurrency,
        cache_mib=0,
        near_duplicate=0,
    )
    memory = queued_mb(settings, given.queued)
    rates: dict[str, list[float]] = {"bare": [], "reki": []}
    with model_server(port, given.latency_s):
        for number in range(ROUNDS):
            asked = requests(given.n, number * given.n)
            rates["bare"].append(bare(settings, asked))
            rates["reki"].append(through_reki(settings, asked))
    ideal = given.concurrency / given.latency_s
    best = {name: max(found) for name, found in rates.items()}
    line: dict[str, Any] = {
        "bench": "extract",
        "concurrency": given.concurrency,
        "latency_s": given.latency_s,
        "n": given.n,
        "requests_per_s": {name: [round(rate, 1) for rate in found] for name, found in rates.items()},
        "ideal_per_s": ideal,
        "over_ideal": {name: round(ideal / rate - 1, 4) for name, rate in best.items()},
        "reki_over_bare": round(best["bare"] / best["reki"] - 1, 4),
        "memory": memory,
        "machine": described,
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
