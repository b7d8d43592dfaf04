"""encodings -> HEIN -> Milvus `augmented_v<n>` -> vectors, for every active model version."""

from __future__ import annotations

import asyncio
from typing import Any

import faust
from faust.types import StreamT

from contracts.records import EncodedKnowledge
from contracts.settings import Settings
from contracts.topics import ENCODINGS, VECTORS
from streams.agents.app import batches, faust_app, source
from streams.agents.batches import BatchHandler, Output, removals_first
from streams.edge import Admitted
from streams.roles.versions import Versions

_BATCH = 200


def augment_app(settings: Settings, versions: Versions, handler: BatchHandler) -> faust.App:
    """The app of the augment role: an encoder vector becomes a small vector, stored before it is announced."""
    app = faust_app(settings, "augment")

    def augment(admitted: list[Admitted]) -> list[Output]:
        gone, kept = removals_first(admitted)
        versions.forget(gone)
        vectors = versions.augment_many([one.record for one in kept if isinstance(one.record, EncodedKnowledge)])
        return [*((VECTORS, key) for key in gone), *((VECTORS, vector) for vector in vectors)]

    async def work(admitted: list[Admitted]) -> list[Output]:
        return await asyncio.to_thread(augment, admitted)

    @app.agent(source(app, settings, ENCODINGS))
    async def augment_encodings(stream: StreamT[Any]) -> None:
        async for events in batches(stream, _BATCH):
            await handler.handle(ENCODINGS, events, work)

    return app
