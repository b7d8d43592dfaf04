"""knowledge-requests (and imported-knowledge) -> ask -> knowledge.

What was imported for a subject, and what was asked about it last, stand in a table under the subject's key: a request finds
the answer that was imported before it, and an answer imported after it is used at once.
"""

from __future__ import annotations

from typing import Any

import faust
import msgspec
from faust.types import StreamT

from contracts.records import Knowledge, KnowledgeRequest
from contracts.settings import Settings
from contracts.topics import IMPORTED, KNOWLEDGE, REQUESTS
from extractor.extraction import Extraction, ExtractionFailure, usable_import
from streams.agents.app import batches, changelogs_known, faust_app, source
from streams.agents.batches import BatchHandler, Output
from streams.edge import Admitted, dead_letter
from streams.publisher import KafkaPublisher

Table = Any  # subject -> packed `Subject`


class Subject(msgspec.Struct, frozen=True):
    """What extraction keeps of a subject. ``asked`` is its last request without the text that it carried."""

    imported: Knowledge | None = None
    asked: KnowledgeRequest | None = None


_subjects = msgspec.msgpack.Decoder(Subject)


class Extracting:
    """The extract stage over its table.

    Args:
        table: subject -> packed `Subject`.
        extraction: Who asks.
        publisher: For dead letters of requests that no knowledge can be made for.
    """

    def __init__(self, table: Table, extraction: Extraction, publisher: KafkaPublisher) -> None:
        self._table = table
        self._extraction = extraction
        self._publisher = publisher

    async def requests(self, admitted: list[Admitted]) -> list[Output]:
        """Knowledge for these requests; of several about one subject, the last one is asked."""
        last = {one.record.subject: one for one in admitted if isinstance(one.record, KnowledgeRequest)}
        asked = [one.record for one in last.values() if isinstance(one.record, KnowledgeRequest)]
        for request in asked:  # before asking: an import that arrives meanwhile must see that it is wanted
            bare = msgspec.structs.replace(request, item=None, history=())
            self._keep(request.subject, msgspec.structs.replace(self._of(request.subject), asked=bare))
        answers = await self._extraction.extract_many([(request, self._of(request.subject).imported) for request in asked])
        outputs: list[Output] = []
        for request, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ExtractionFailure):
                dead_letter("extract", last[request.subject].raw, answer.reason, self._publisher)
            else:
                outputs.append((KNOWLEDGE, answer))
        return outputs

    async def imports(self, admitted: list[Admitted]) -> list[Output]:
        """Remember imported knowledge; where its subject was asked about before, it is used at once."""
        outputs: list[Output] = []
        for one in admitted:
            subject = self._of(one.key)
            imported = one.record if isinstance(one.record, Knowledge) else None
            self._keep(one.key, msgspec.structs.replace(subject, imported=imported))
            if imported and subject.asked and usable_import(subject.asked, imported):
                outputs.append((KNOWLEDGE, msgspec.structs.replace(imported, trigger_ms=one.raw.at_ms)))
        return outputs

    def _of(self, subject: str) -> Subject:
        packed = self._table.get(subject.encode())
        return _subjects.decode(packed) if packed else Subject()

    def _keep(self, subject: str, state: Subject) -> None:
        self._table[subject.encode()] = msgspec.msgpack.encode(state)


def extract_app(settings: Settings, extraction: Extraction, handler: BatchHandler) -> faust.App:
    """The app of the extract role."""
    app = faust_app(settings, "extract")
    table = app.Table("subjects", key_type=bytes, value_type=bytes, partitions=settings.kafka.partitions, use_partitioner=True)
    stage = Extracting(table, extraction, handler.publisher)

    @app.agent(source(app, settings, REQUESTS))
    async def extract_requests(stream: StreamT[Any]) -> None:
        await changelogs_known(app, table)
        async for events in batches(stream, 4 * settings.extract.concurrency):
            await handler.handle(REQUESTS, events, stage.requests)

    @app.agent(source(app, settings, IMPORTED))
    async def extract_imports(stream: StreamT[Any]) -> None:
        await changelogs_known(app, table)
        async for events in batches(stream, 500):
            await handler.handle(IMPORTED, events, stage.imports)

    return app
