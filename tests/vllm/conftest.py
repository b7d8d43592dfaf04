"""A real vLLM with the tiny model of `scripts/vllm-cpu`, as a process on a free port. Opt in with ``-m vllm`` (`make test-vllm`)."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

import httpx
import pytest

from contracts.records import HistoryEntry, ItemEvent, KnowledgeRequest
from contracts.settings import Extract
from extractor.backends.openai import OpenAIBackend
from streams.embedded.programs import free_port

ROOT = Path(__file__).parents[2]
STARTS_WITHIN_S = 400  # 30 to 100 s on an idle machine
FIGURES: list[str] = []


def pytest_ignore_collect(collection_path, config):
    return True if "vllm" not in config.option.markexpr else None


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section("what vLLM did with a tiny model on this machine")
        for line in FIGURES:
            terminalreporter.write_line(line)


class VllmServer:
    """`scripts/vllm-cpu serve`. A group of processes (the server and its engine) that is signalled as one, by the id that it was given here."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        self.log = log
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [ROOT / "scripts" / "vllm-cpu", "serve", "--port", str(self.port)],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def until_healthy(self) -> None:
        end = time.monotonic() + STARTS_WITHIN_S
        while not self.healthy():
            assert self._process is not None
            assert self._process.poll() is None, f"vLLM ended:\n{self.tail()}"
            assert time.monotonic() < end, f"vLLM is not healthy after {STARTS_WITHIN_S} s:\n{self.tail()}"
            time.sleep(0.5)

    def healthy(self) -> bool:
        try:
            return httpx.get(f"{self.address}/health", timeout=5).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def signal(self, which: signal.Signals) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, which)

    def kill(self) -> None:
        """Kill -9, and wait until the port is free."""
        self.signal(signal.SIGKILL)
        self._process.wait(60)

    def close(self) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        self.signal(signal.SIGTERM)
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self.kill()

    def tail(self, n_lines: int = 30) -> str:
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-n_lines:])

    def counted(self) -> Counter[str]:
        """The counters of /metrics by name, labels added up."""
        counted: Counter[str] = Counter()
        for line in httpx.get(f"{self.address}/metrics", timeout=30).text.splitlines():
            if found := re.fullmatch(r"(vllm:\w+_total)(?:\{.*\})? ([0-9.e+]+)", line):
                counted[found[1]] += float(found[2])
        return counted


@pytest.fixture(scope="session")
def vllm(tmp_path_factory):
    """The server, healthy when a test starts. A test that kills it starts it again."""
    server = VllmServer(tmp_path_factory.mktemp("vllm") / "vllm.log")
    server.start()
    try:
        server.until_healthy()
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def figures():
    """Lines that are printed at the end."""
    return FIGURES


@pytest.fixture
def ask():
    """Runs `work(backend)` with a backend at an address, in an event loop of its own, and closes it."""

    def run(address, scenario, work, **changed):
        settings = {"backend": "openai", "base_url": f"{address}/v1", "model": "tiny", "timeout_s": 300, "max_answer_tokens": 600}

        async def main():
            backend = OpenAIBackend(Extract(**settings | changed), scenario)
            try:
                return await work(backend), backend
            finally:
                await backend.aclose()

        return asyncio.run(main())

    return run


@pytest.fixture(scope="session")
def articles():
    """Made-up articles; every one is another."""
    places = ("harbour", "orchard", "quarry", "ferry", "furnace", "meadow", "lantern", "signal")
    events = ("opens", "closes", "burns", "moves", "grows", "floods", "returns")

    def make(n):
        return [
            ItemEvent(
                item=f"a{number:04d}",
                published_ms=1_700_000_000_000 + number * 60_000,
                title=f"The {places[number % 8]} of district {number} {events[number % 7]}",
                text=f"Residents said on Monday that number {number} was a surprise. The council meets next week.",
                attributes={"section": (places[(number // 8) % 8],)},
            )
            for number in range(n)
        ]

    return make


@pytest.fixture(scope="session")
def requests_about():
    def make(items):
        return [
            KnowledgeRequest(
                subject=f"item:{item.item}",
                mode="individual",
                reason="new_item",
                priority=1.0,
                as_of_ms=item.published_ms,
                trigger_ms=item.published_ms,
                source_hash=f"{number:032x}",
                item=item,
            )
            for number, item in enumerate(items)
        ]

    return make


@pytest.fixture(scope="session")
def readers(articles):
    """Requests about users, each with a history of its own."""

    def make(n, n_history=30):
        items = articles(400)
        return [
            KnowledgeRequest(
                subject=f"user:u{number:03d}",
                mode="individual",
                reason="new_interactions",
                priority=1.0,
                as_of_ms=1_700_100_000_000 + number,
                trigger_ms=1_700_100_000_000,
                source_hash=f"{number:032x}",
                history=tuple(
                    HistoryEntry(
                        item=item.item,
                        title=item.title,
                        action="click" if step % 3 else "skip",
                        event_ms=item.published_ms,
                        liked=bool(step % 3),
                        attributes=dict(item.attributes),
                    )
                    for step, item in enumerate(items[number * 3 : number * 3 + n_history])
                ),
            )
            for number in range(n)
        ]

    return make
