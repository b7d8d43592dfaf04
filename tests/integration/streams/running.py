"""Roles as real processes, on topics and collections of their own."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx

from contracts.errors import UnavailableError
from contracts.ports import VectorStore
from contracts.records import InteractionEvent, ItemEvent, ModelManifest, RankRequest
from contracts.settings import ENV_PREFIX, Settings, environment_of, load_settings
from contracts.topics import INTERACTIONS, ITEMS, MODELS, RANK_REQUESTS, Changelog, Topic
from streams import wiring
from streams.broker import whole_log
from streams.embedded.programs import free_port
from streams.publisher import KafkaPublisher
from streams.tail import Tail, Tailed
from streams.topics import create_topics, topic_name

DEADLINE_S = 90
T = TypeVar("T")

SMALL = {
    "plan": {"interactions_per_request": 3, "min_gap_s": 0},
    "hein": {"d_hidden": 16, "d_aug": 8, "n_dedicated": 2},
    "model": {"d_embedding": 8, "hash_buckets": 512, "history": 5},
    "train": {"batch": 32, "epochs": 1, "publish_every_s": 0.3},
    "join": {"window_ms": 60_000, "lateness_ms": 1_000},
}


def until(condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S, detail: Callable[[], str] = str) -> T:
    """What the condition gives once it is true; a service that is too busy to answer is asked again."""
    end = time.monotonic() + deadline_s
    while True:
        with suppress(UnavailableError):
            if found := condition():
                return found
        assert time.monotonic() < end, f"not in {deadline_s} s: {what}\n{detail()}"
        time.sleep(0.1)


class RoleProcess:
    """`reki run ROLE...` as a process."""

    def __init__(self, roles: Sequence[str], settings: Settings, log: Path) -> None:
        self.roles = tuple(roles)
        self.log = log
        port = free_port()
        serving = "rank" in roles
        changes: dict[str, Any] = {"metrics_port": port}
        if serving:
            changes["rank"] = settings.rank.model_copy(update={"port": port})
        own = settings.model_copy(update=changes)
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)},
            **environment_of(own),
            "OMP_NUM_THREADS": "1",
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "streams.cli.main", "run", *self.roles]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)

    def ready(self) -> bool:
        return self._answers("/readyz")

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, how: signal.Signals) -> int:
        """Signal it, wait for its end, return its exit code."""
        assert self.process is not None
        self.process.send_signal(how)
        try:
            return self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.roles} did not end on {how.name}\n{self.tail()}") from None

    def tail(self, n_lines: int = 25) -> str:
        return "\n".join([f"--- {' '.join(self.roles)}", *self.log.read_text().splitlines()[-n_lines:]])

    def _answers(self, path: str) -> bool:
        try:
            return httpx.get(self.url + path, timeout=2).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


class Reki:
    """Topics and collections with a prefix of their own, a publisher, and the roles that were started on them."""

    def __init__(self, services: Settings, home: Path, **sections: dict[str, Any]) -> None:
        self.prefix = f"t{uuid.uuid4().hex[:8]}"
        merged = {name: {**SMALL.get(name, {}), **sections.get(name, {})} for name in {*SMALL, *sections}}
        merged["kafka"] = {
            "bootstrap_servers": services.bootstrap_servers, "prefix": f"{self.prefix}.", "partitions": 2, **sections.get("kafka", {}),
        }  # fmt: skip
        merged["milvus"] = {"uri": services.milvus_uri, "prefix": f"{self.prefix}_", **sections.get("milvus", {})}
        self.settings = load_settings(home=home, **merged)
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        create_topics(self.settings)
        self.publisher = KafkaPublisher(self.settings)
        self.processes: dict[str, RoleProcess] = {}
        self._stores: dict[str, VectorStore] = {}

    def start(self, *groups: str) -> None:
        """Start processes, one per group of roles ("plan extract"), without waiting."""
        for roles in groups:
            self.processes[roles] = RoleProcess(roles.split(), self.settings, self.home / f"{roles.replace(' ', '-')}.log")

    def until_ready(self, *groups: str, deadline_s: float = DEADLINE_S) -> None:
        for roles in groups:
            self.until(self.processes[roles].ready, f"{roles} ready", deadline_s)

    def until(self, condition: Callable[[], T], what: str, deadline_s: float = DEADLINE_S) -> T:
        return until(condition, what, deadline_s, lambda: "\n".join(one.tail() for one in self.processes.values()))

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A `reki` command, as a process."""
        environment = {**os.environ, **environment_of(self.settings), "OMP_NUM_THREADS": "1"}
        return subprocess.run(
            [sys.executable, "-m", "streams.cli.main", *words], env=environment, capture_output=True, text=True, timeout=120, check=False
        )  # fmt: skip

    def send(self, *records: ItemEvent | InteractionEvent | RankRequest) -> None:
        topics: dict[type, Topic] = {ItemEvent: ITEMS, InteractionEvent: INTERACTIONS, RankRequest: RANK_REQUESTS}
        for record in records:
            self.publisher.send(topics[type(record)], record)
        self.publisher.flush()

    def records(self, topic: Topic) -> list[Tailed]:
        """Everything on a topic now."""
        with Tail(self.settings, [topic]) as tail:
            return list(tail.to_end())

    def typed(self, topic: Topic) -> list[Any]:
        """The records on a topic now, without tombstones."""
        return [one.record for one in self.records(topic) if one.record is not None]

    def rows(self, collection: str = "knowledge") -> set[str]:
        """Subjects in a collection of the vector store, named without our prefix."""
        if collection not in self._stores:
            dim = wiring.encoder_dim(self.settings) if collection == "knowledge" else self.settings.hein.d_aug
            self._stores[collection] = wiring.open_store(self.settings, f"{self.settings.milvus.prefix}{collection}", dim)
        return {row.subject for batch in self._stores[collection].scan() for row in batch}

    def changelog(self, role: str, table: str) -> dict[bytes, bytes]:
        """What a role's table comes back as: the last value of every key of its changelog."""
        name = topic_name(self.settings, Changelog(role, table))
        found: dict[bytes, bytes] = {message.key: message.value for message in whole_log(self.settings, name)}
        return {key: value for key, value in found.items() if value is not None}

    def manifests(self) -> list[ModelManifest]:
        return self.typed(MODELS)

    def close(self) -> None:
        for one in self.processes.values():
            if one.alive():
                one.process.terminate()
        for one in self.processes.values():
            if one.alive():
                try:
                    one.process.wait(timeout=20)
                except subprocess.TimeoutExpired:
                    one.process.kill()
                    one.process.wait()
        for store in self._stores.values():
            store.close()
        self.publisher.close()


SECTIONS = ("Harbour", "Rail", "Schools", "Football")
DAY_MS = 24 * 3600 * 1000
START_MS = 1_700_000_000_000


def some_items(n: int, first: int = 0) -> list[ItemEvent]:
    """Short articles, a minute apart."""
    return [
        ItemEvent(
            item=f"n{number:03d}",
            published_ms=START_MS + number * 60_000,
            title=f"{SECTIONS[number % 4]} news {number}",
            attributes={"section": (SECTIONS[number % 4],)},
        )
        for number in range(first, first + n)
    ]


def some_interactions(users: Sequence[str], items: Sequence[str], n_each: int, from_ms: int) -> list[InteractionEvent]:
    """Every user clicks or skips one item after the other; liked sections differ by user."""
    actions = itertools.cycle(("click", "skip", "click"))
    return [
        InteractionEvent(
            user=user, item=items[(step * 3 + index) % len(items)], action=next(actions), event_ms=from_ms + step * 1000 + index
        )
        for step in range(n_each)
        for index, user in enumerate(users)
    ]
