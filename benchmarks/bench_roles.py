"""Start-up seconds (process start to a ready answer) and resident memory of every role alone, and of the default groups.

    python benchmarks/bench_roles.py [--limit 3000]

Measured on the sample: its articles, and the first interactions of its simulated readers, went through all roles before, and a
version was trained; so every role starts with its tables, its catalogue and its vectors to read. Memory is read when the role is
ready, and again two seconds later: the larger one counts. Pages that processes share are counted in each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from typing import Any

import psutil
from machine import commit, machine
from role_process import role_process, throw_away

from contracts.roles import ROLES
from contracts.settings import Settings
from contracts.topics import IMPORTED
from streams.datasets.news import NewsSample
from streams.demo.draining import Drain, behind
from streams.embedded.processes import ROLE_GROUPS
from streams.publisher import KafkaPublisher
from streams.replay import send_event
from streams.training import train_version

LIMITS_MB = {"without torch": 200, "with torch": 1_200}  # resident, per role: what we aim at
WITH_TORCH = {"augment", "train", "rank"}
_SETTLE_S = 2.0


def prepare(settings: Settings, limit: int) -> None:
    """The sample through all roles, and a first version."""
    sample = NewsSample()
    with contextlib.ExitStack() as running:
        for roles in ROLE_GROUPS:
            if "rank" not in roles:  # it is not ready before there is a version
                running.enter_context(role_process(settings, *roles))
        with KafkaPublisher(settings) as publisher:
            for knowledge in sample.imported():
                publisher.send(IMPORTED, knowledge)
            for event in sample.events(limit):
                send_event(publisher, event)
            publisher.flush()
        drain = Drain(lambda: behind(settings))
        drain.until()
        train_version(settings)
        with role_process(settings, "rank"):  # ready when augment has made every vector
            drain.until()


def measure(settings: Settings, *roles: str) -> dict[str, Any]:
    """Start some roles in one process and look at it."""
    with role_process(settings, *roles) as (process, ready_s):
        first = psutil.Process(process.pid).memory_info().rss
        time.sleep(_SETTLE_S)
        rss = max(first, psutil.Process(process.pid).memory_info().rss)
    wanted = LIMITS_MB["with torch" if WITH_TORCH & set(roles) else "without torch"]
    return {"ready_s": round(ready_s, 2), "resident_mb": round(rss / 2**20), "wanted_below_mb": wanted}


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--limit", type=int, default=3_000, help="interactions of the sample")
    limit = parser.parse_args().limit
    described = machine()
    with throw_away() as settings:
        prepare(settings, limit)
        alone = {role: measure(settings, role) for role in ROLES}
        groups = {" ".join(roles): measure(settings, *roles) for roles in ROLE_GROUPS if len(roles) > 1}
    line = {"bench": "roles", "interactions": limit, "alone": alone, "groups": groups, "machine": described, "commit": commit()}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
