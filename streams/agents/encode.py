"""knowledge -> Milvus `knowledge` -> encodings."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
from faust.types import StreamT

from contracts.records import Knowledge
from contracts.settings import Settings
from contracts.topics import ENCODINGS, KNOWLEDGE
from hein.encoding import Encoding
from streams.agents.app import batches, faust_app, source
from streams.agents.batches import BatchHandler, Output, removals_first
from streams.edge import Admitted

_BATCH = 64  # about two seconds of one encoder thread: what a kill -9 repeats, and what a vector waits for its neighbours


def encode_app(settings: Settings, stage: Encoding, handler: BatchHandler) -> faust.App:
    """The app of the encode role: knowledge becomes an encoder vector, stored before it is announced."""
    app = faust_app(settings, "encode")

    def encode(admitted: list[Admitted]) -> list[Output]:
        gone, kept = removals_first(admitted)
        stage.forget(gone)
        encoded = stage.encode_many([one.record for one in kept if isinstance(one.record, Knowledge)])
        return [*((ENCODINGS, key) for key in gone), *((ENCODINGS, record) for record in encoded)]

    async def work(admitted: list[Admitted]) -> list[Output]:
        return await asyncio.to_thread(encode, admitted)

    @app.agent(source(app, settings, KNOWLEDGE))
    async def encode_knowledge(stream: StreamT[Any]) -> None:
        async for events in batches(stream, _BATCH):
            await handler.handle(KNOWLEDGE, events, work)

    return app
