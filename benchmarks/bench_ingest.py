"""Interactions per second through the plan role (a real process on a real broker), beside a bare kafka-python consumer.

    python benchmarks/bench_ingest.py [--interactions 40000]

The topic is filled first. The bare consumer reads it before and after plan does: the same records in the same run.
Plan's rate is taken between its first and its last commit, so its start is not in it; its work is: decoding, histories, a request
for knowledge every 10 interactions of a user, and its changelog.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from contextlib import suppress

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from machine import commit, machine
from role_process import DEADLINE_S, role_process, throw_away

from contracts.records import InteractionEvent, ItemEvent
from contracts.settings import Settings
from contracts.topics import INTERACTIONS, ITEMS
from streams.broker import admin
from streams.publisher import KafkaPublisher
from streams.topics import group, n_records, topic_name

N_USERS, N_ITEMS = 2_000, 500
START_MS = 1_700_000_000_000


def fill(settings: Settings, n_interactions: int) -> None:
    """Items, then interactions of random users with random items, a second apart."""
    draw = random.Random(0)
    with KafkaPublisher(settings) as publisher:
        for n in range(N_ITEMS):
            title = f"Article number {n} about the harbour"
            publisher.send(
                ITEMS, ItemEvent(item=f"n{n}", published_ms=START_MS, title=title, attributes={"section": (f"s{n % 9}",)})
            )
        for n in range(n_interactions):
            user, item = f"u{draw.randrange(N_USERS)}", f"n{draw.randrange(N_ITEMS)}"
            publisher.send(INTERACTIONS, InteractionEvent(user=user, item=item, action="click", event_ms=START_MS + 1000 * n))
            if n % 5_000 == 0:
                publisher.flush()
        publisher.flush()


def bare_per_s(settings: Settings, n_interactions: int) -> float:
    """Records per second of a consumer that does nothing with them, from its first poll that gave some to the last."""
    consumer = KafkaConsumer(bootstrap_servers=settings.bootstrap_servers, enable_auto_commit=False, max_poll_records=2000)
    name = topic_name(settings, INTERACTIONS)
    partitions = [TopicPartition(name, number) for number in sorted(consumer.partitions_for_topic(name))]
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    n_first = n_read = 0
    started_s = 0.0
    while n_read < n_interactions:
        n_read += sum(map(len, consumer.poll(timeout_ms=500).values()))
        if n_read and not started_s:
            started_s, n_first = time.perf_counter(), n_read
    took_s = time.perf_counter() - started_s
    consumer.close()
    return (n_read - n_first) / took_s


def plan_per_s(settings: Settings, n_interactions: int) -> float:
    """Interactions per second between plan's first commit and its last.

    Raises:
        RuntimeError: Nothing was committed in time, or all of it in one commit: ask for more interactions.
    """
    name, members = topic_name(settings, INTERACTIONS), group(settings, "plan")
    seen: list[tuple[float, int]] = []  # (when, interactions committed), where it changed
    deadline_s = time.perf_counter() + DEADLINE_S
    with role_process(settings, "plan", wait=False), admin(settings) as client:
        while not seen or seen[-1][1] < n_interactions:
            if time.perf_counter() > deadline_s:
                raise RuntimeError(f"plan committed {seen[-1][1] if seen else 0} of {n_interactions} in {DEADLINE_S} s")
            offsets = {}
            with suppress(KafkaError):  # a new broker has no coordinator yet
                offsets = client.list_group_offsets(members).get(members, {})
            done = sum(max(0, at.offset) for partition, at in offsets.items() if partition.topic == name)
            if done > (seen[-1][1] if seen else 0):
                seen.append((time.perf_counter(), done))
            time.sleep(0.01)
    (first_s, first), (last_s, last) = seen[0], seen[-1]
    if first == last:
        raise RuntimeError(f"all {last} interactions in one commit; use more --interactions")
    return (last - first) / (last_s - first_s)


def main() -> None:
    """Print one JSON line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--interactions", type=int, default=40_000)
    n_interactions = parser.parse_args().interactions
    described = machine()
    with throw_away() as settings:
        fill(settings, n_interactions)
        before = bare_per_s(settings, n_interactions)
        plan = plan_per_s(settings, n_interactions)
        bare = statistics.mean([before, bare_per_s(settings, n_interactions)])
        n_written = n_records(settings, INTERACTIONS)
    line = {
        "bench": "ingest",
        "interactions": n_written,
        "plan_per_s": round(plan),
        "bare_consumer_per_s": round(bare),
        "ratio": round(plan / bare, 3),
        "machine": described,
        "commit": commit(),
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
