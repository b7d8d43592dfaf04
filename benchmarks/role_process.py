"""Roles as processes on a throw-away broker and vector store, for the benchmarks that measure them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

from contracts.settings import Kafka, Milvus, Rank, Settings, environment_of
from streams.embedded.processes import EmbeddedServices
from streams.embedded.programs import free_port
from streams.topics import create_topics

DEADLINE_S = 120


@contextlib.contextmanager
def throw_away() -> Iterator[Settings]:
    """Settings of a broker with its topics and a vector store that end with the block."""
    with tempfile.TemporaryDirectory(prefix="reki-bench-") as folder:
        settings = Settings(
            home=Path(folder),
            metrics_port=free_port(),
            kafka=Kafka(embedded_port=free_port(2)),
            milvus=Milvus(embedded_port=free_port()),
            rank=Rank(port=free_port()),
        )
        with EmbeddedServices(settings):
            create_topics(settings)
            yield settings


@contextlib.contextmanager
def role_process(
    settings: Settings, *roles: str, wait: bool = True, port: int | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """`reki run ROLE...`, ready (or only started): the process, and the seconds from its start to a ready answer.

    Raises:
        RuntimeError: It ended or was not ready in time; with the end of its log.
    """
    port = settings.rank.port if "rank" in roles else port or free_port()
    metrics = settings.metrics_port if "rank" in roles else port
    environment = {**os.environ, **environment_of(settings.model_copy(update={"metrics_port": metrics})), "OMP_NUM_THREADS": "1"}
    log = settings.home / f"{'-'.join(roles)}.log"
    started_s = time.perf_counter()
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "streams.cli.main", "run", *roles], env=environment, stdout=out, stderr=out
        )
    try:
        while wait and not _ready(port):
            if process.poll() is not None or time.perf_counter() - started_s > DEADLINE_S:
                raise RuntimeError(f"{roles} not ready:\n{log.read_text()[-2000:]}")
            time.sleep(0.02)
        yield process, time.perf_counter() - started_s
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
