"""Makes faust apps: one a role, so that roles can be grouped into processes in any way and keep their groups.

No app has tables: with faust 0.15.3 on a real broker they lost writes after a kill -9 now and then (docs/architecture.md); roles
with state keep it in `streams.roles.tables`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, cast

import faust
from faust.streams import Stream
from faust.types import TP, EventT, StreamT, TopicT
from faust.types.transports import ConsumerT

from contracts.settings import Settings
from contracts.topics import Topic
from streams.topics import group, topic_name

_COMPANY_S = 0.02  # how long a record waits for others; while a batch is worked on, the next one gathers by itself


class _App(faust.App):
    """An app whose first start reads a partition from its first record.

    As its source reads, faust 0.15.3 opens partitions before its recovery (also where there is no table), throws away what it
    fetched meanwhile, and then seeks back to the committed offsets; a partition that has none (or 0) it does not seek. Here it
    goes back too.
    """

    def _new_consumer(self) -> ConsumerT:
        consumer: Any = super()._new_consumer()  # faust's types leave out what its own app calls
        seek = consumer.seek_to_committed

        async def seek_all() -> Mapping[TP, int]:
            committed: Mapping[TP, int] = await seek()
            uncommitted = {tp: 0 for tp, offset in committed.items() if not offset}
            if uncommitted:
                await consumer.seek_wait(uncommitted)  # from the first record there is: offset 0 may be gone by retention
            return committed

        consumer.seek_to_committed = seek_all
        return cast("ConsumerT", consumer)


def faust_app(settings: Settings, role: str) -> faust.App:
    """An app for one role. Not started; declares no topic (`reki topics create` does that).

    At-least-once: faust's exactly-once processed nothing on a real broker (docs/architecture.md), so every write is idempotent.
    """
    datadir = settings.home / "faust" / role
    datadir.mkdir(parents=True, exist_ok=True)
    brokers = [f"kafka://{address.strip()}" for address in settings.bootstrap_servers.split(",")]
    return _App(
        group(settings, role),
        broker=brokers,
        store="memory://",
        agent_supervisor="mode.supervisors:CrashingSupervisor",  # an agent started again in place would pass over its batch
        key_serializer="raw",  # bytes in, bytes out: decoding is ours (`streams.edge`)
        value_serializer="raw",
        datadir=str(datadir),
        web_enabled=False,
        topic_partitions=settings.kafka.partitions,
        topic_disable_leader=True,
        topic_replication_factor=settings.kafka.replication,
        consumer_auto_offset_reset="earliest",
        broker_commit_interval=1.0,
        stream_wait_empty=False,
        broker_max_poll_records=2000,
        broker_session_timeout=10.0,  # what a restart after kill -9 waits for its partitions
        broker_request_timeout=60.0,
    )


def source(app: faust.App, settings: Settings, topic: Topic) -> TopicT:
    """A topic to read, as bytes: decoding is ours (`streams.edge`)."""
    return app.topic(
        topic_name(settings, topic),
        key_type=bytes,
        value_type=bytes,
        key_serializer="raw",
        value_serializer="raw",
        allow_empty=True,
    )


async def batches(stream: StreamT[Any], n_records: int) -> AsyncIterator[Sequence[EventT[bytes]]]:
    """The stream in batches, waiting a moment for company. A batch counts as done only when the next one is asked for.

    Not faust's own `take_events`: with 0.15.3, extract stopped and started over 40 requests lost two or three of them in half
    of the runs (tests/integration/streams/test_stop.py), mostly those behind a full batch; it also acknowledges a batch whose
    agent is stopped in the middle. Why it loses them was not found.
    """
    source_stream = cast("Stream[Any]", stream)
    source_stream.enable_acks = False  # acknowledged here, batch by batch
    waiting: asyncio.Queue[EventT[bytes]] = asyncio.Queue(maxsize=n_records)

    async def feed() -> None:
        async for event in source_stream.events():
            await waiting.put(event)

    feeder = source_stream.add_future(feed())
    clock = asyncio.get_running_loop().time
    try:
        while True:
            batch = [await waiting.get()]
            end_s = clock() + _COMPANY_S
            with suppress(TimeoutError):
                while len(batch) < n_records:
                    batch.append(await asyncio.wait_for(waiting.get(), end_s - clock()))
            yield batch
            for event in batch:
                await source_stream.ack(event)
    finally:
        feeder.cancel()
