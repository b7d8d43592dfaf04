"""Latency of ``POST /v1/rank`` for 200 candidates at a fixed rate, with and without knowledge, in turns in one run.

    python benchmarks/bench_rank.py [--n 1000] [--rate 100]

Open loop: requests leave when they are due, and a latency counts from then, so a slow answer does not hide the ones behind it.
The server is a process of its own; the client shares the machine with it. "Without" is the same backbone without the two
augmented fields.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import socket
import time
from typing import TYPE_CHECKING

import httpx
import numpy as np
from machine import commit, machine

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from fastapi import FastAPI

N_ITEMS, N_USERS, N_CANDIDATES, K, ROUNDS, WARM_UP = 100_000, 1_000, 200, 20, 5, 50
NOW_MS = 1_700_000_000_000
ARMS = {"with": "with knowledge", "without": "without knowledge"}


def build(*, knowledge: bool) -> FastAPI:
    """A ranker of 100,000 items, in memory."""
    from contracts.records import AugmentedVector, InteractionEvent, ItemEvent, ModelManifest
    from contracts.settings import load_settings
    from ranker.bundle import Bundle, BundleHolder
    from ranker.catalogue import Catalogue
    from ranker.crm import CRM, CRMConfig
    from ranker.histories import Histories
    from ranker.scoring import Scorer
    from ranker.serving.app import build_app
    from ranker.vectors import VectorMatrix

    settings, rng = load_settings(), np.random.default_rng(0)
    crm, d_aug = CRM(CRMConfig.of(settings, base=not knowledge)), settings.hein.d_aug
    catalogue, holder = Catalogue(crm.config.features), BundleHolder()
    histories = Histories(settings.rank.max_users, settings.model.history)
    vectors = VectorMatrix(d_aug, version=1)
    for n in range(N_ITEMS):
        attributes = {"section": (f"s{n % 20}",), "topic": (f"t{n % 300}", f"t{n % 7}")}
        catalogue.apply(ItemEvent(item=f"i{n}", published_ms=NOW_MS - n, title=f"Title {n}", attributes=attributes))
    for subject in (*(f"item:i{n}" for n in range(N_ITEMS)), *(f"user:u{n}" for n in range(N_USERS))):
        raw = rng.standard_normal(d_aug, dtype=np.float32).tobytes()
        vectors.apply(AugmentedVector(subject=subject, vector=raw, version=1, tier="individual", as_of_ms=1, trigger_ms=1))
    histories.learn_many(
        [
            InteractionEvent(user=f"u{user}", item=f"i{rng.integers(N_ITEMS)}", action="click", event_ms=NOW_MS - 1_000 + n)
            for user in range(N_USERS)
            for n in range(settings.model.history)
        ]
    )
    manifest = ModelManifest(
        version=1, step=0, state="ready", backbone=settings.model.backbone, weights="", sha256="", collection="", encoder="",
        d_text=1, d_aug=d_aug, created_ms=0,
    )  # fmt: skip
    holder.install(Bundle(crm=crm, vectors=vectors, manifest=manifest))
    return build_app(Scorer(holder, histories, catalogue, settings), lambda _: {}, dict, None, settings)


def serve(listening: socket.socket, ready: Connection) -> None:
    """Both arms on one socket, in a process of its own."""
    import torch
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount

    torch.set_num_threads(1)
    app = Starlette(routes=[Mount(f"/{arm}", build(knowledge=arm == "with")) for arm in ARMS])
    ready.send(True)
    uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[listening])


async def load(client: httpx.AsyncClient, arm: str, bodies: list[bytes], rate: float) -> tuple[list[float], list[float]]:
    """Send at a fixed rate. Returns ms per request from when it was due, and ms of scoring alone as the server says."""
    start = time.perf_counter() + 0.05

    async def one(n: int, body: bytes) -> tuple[float, float]:
        due = start + n / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        response = await client.post(f"/{arm}/v1/rank", content=body)
        took_ms = (time.perf_counter() - due) * 1_000
        response.raise_for_status()
        return took_ms, response.json()["took_ms"]

    answers = await asyncio.gather(*(one(n, body) for n, body in enumerate(bodies)))
    return [took for took, _ in answers], [scored for _, scored in answers]


async def measure(address: str, n: int, rate: float) -> dict[str, dict[str, float]]:
    """p50 and p99 per arm; the arms take turns."""
    rng = np.random.default_rng(1)
    bodies = []
    for _ in range(n):
        candidates = [f"i{item}" for item in rng.integers(0, N_ITEMS, N_CANDIDATES)]
        bodies.append(json.dumps({"user": f"u{rng.integers(N_USERS)}", "k": K, "candidates": candidates}).encode())
    took: dict[str, tuple[list[float], list[float]]] = {arm: ([], []) for arm in ARMS}
    limits = httpx.Limits(max_connections=50, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=address, timeout=30, limits=limits, trust_env=False) as client:
        for arm in ARMS:
            await load(client, arm, bodies[:WARM_UP], rate)
        for turn in range(ROUNDS):
            for arm in ARMS if turn % 2 else reversed(ARMS):
                http_ms, scored_ms = await load(client, arm, bodies[turn::ROUNDS], rate)
                took[arm][0].extend(http_ms)
                took[arm][1].extend(scored_ms)
    return {
        arm: {
            f"{name}_p{q}_ms": round(float(np.percentile(values, q)), 3)
            for name, values in zip(("http", "scoring"), both, strict=True)
            for q in (50, 99)
        }
        for arm, both in took.items()
    }


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=1_000, help="requests per arm (default 1000)")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second (default 100)")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    ready, their_ready = context.Pipe(duplex=False)
    # with its protocol named: asyncio sets TCP_NODELAY only then, and without it every answer waits 40 ms for a delayed ACK
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = context.Process(target=serve, args=(listening, their_ready), daemon=True)
        server.start()
        try:
            their_ready.close()
            ready.recv()
            address = f"http://127.0.0.1:{listening.getsockname()[1]}"
            found = asyncio.run(measure(address, arguments.n, arguments.rate))
        finally:
            server.terminate()
            server.join()
    result = {
        "bench": "rank",
        "n_per_arm": arguments.n,
        "rate_per_s": arguments.rate,
        "candidates": N_CANDIDATES,
        "items": N_ITEMS,
        **found,
        "knowledge_costs": {key: round(found["with"][key] / found["without"][key], 3) for key in found["with"]},
        "machine": machine(),
        "commit": commit(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
