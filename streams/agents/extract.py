"""knowledge-requests (and imported-knowledge) -> ask -> knowledge.

What was imported for a subject, what was asked about it last, and what stands (the last answer that went out) are in a table
under the subject's key: a request finds the answer that was imported before it, an answer imported after it is used at once, and
an answer that is no better than what stands is not sent. What stands is kept only after it is safe on `knowledge`: a crash in
between makes the answer again.

An empty value on knowledge-requests is a removal: it goes on to `knowledge` behind every answer to the requests before it.
"""

from __future__ import annotations

from typing import Any

import faust
import msgspec
from faust.types import StreamT

from contracts.precedence import supersedes
from contracts.records import Knowledge, KnowledgeRequest
from contracts.settings import Settings
from contracts.topics import IMPORTED, KNOWLEDGE, REQUESTS, Topic
from extractor.extraction import Extraction, ExtractionFailure, Standing, ToExtract, standing, usable_import
from streams.agents.app import Changelogs, batches, changelogs_known, faust_app, source
from streams.agents.batches import BatchHandler, Output, removals_first
from streams.edge import Admitted, dead_letter
from streams.publisher import KafkaPublisher

Table = Any  # subject -> packed `Subject`


class Subject(msgspec.Struct, frozen=True):
    """What extraction keeps of a subject.

    ``asked`` is its last request without the text that it carried; ``stands`` what decides about the last answer that went out.
    """

    imported: Knowledge | None = None
    asked: KnowledgeRequest | None = None
    stands: Standing | None = None


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
        self._sent: dict[tuple[Topic, str], Standing] = {}  # not yet known to be safe, by where the cause came from and subject

    async def requests(self, admitted: list[Admitted]) -> list[Output]:
        """Knowledge for these requests, the most urgent asked first; of several about one subject, the last one is asked.

        No output where what stands is kept; tombstones for removed subjects, before the knowledge of those that came back.
        """
        gone, kept = removals_first(admitted)
        for subject in gone:
            self._remove(subject)
        last = {one.record.subject: one for one in kept if isinstance(one.record, KnowledgeRequest)}
        asked = [one.record for one in last.values() if isinstance(one.record, KnowledgeRequest)]
        asked.sort(key=lambda request: -request.priority)
        for request in asked:  # before asking: an import that arrives meanwhile must see that it is wanted
            self._sent.pop((REQUESTS, request.subject), None)
            bare = msgspec.structs.replace(request, item=None, history=())
            self._keep(request.subject, msgspec.structs.replace(self._of(request.subject), asked=bare))
        answers = await self._extraction.extract_many([self._to_extract(request) for request in asked])
        outputs: list[Output] = [(KNOWLEDGE, subject) for subject in gone]
        for request, answer in zip(asked, answers, strict=True):
            if isinstance(answer, ExtractionFailure):
                dead_letter("extract", last[request.subject].raw, answer.reason, self._publisher)
            elif answer is not None and self._improves(answer):  # again: something may have been imported meanwhile
                self._sent[REQUESTS, request.subject] = standing(answer)
                outputs.append((KNOWLEDGE, answer))
        return outputs

    async def imports(self, admitted: list[Admitted]) -> list[Output]:
        """Remember imported knowledge; where its subject was asked about before and it is better, it is used at once."""
        outputs: list[Output] = []
        for key in {one.key for one in admitted}:
            self._sent.pop((IMPORTED, key), None)
        for one in admitted:
            subject = self._of(one.key)
            imported = one.record if isinstance(one.record, Knowledge) else None
            self._keep(one.key, msgspec.structs.replace(subject, imported=imported))
            if imported and subject.asked and usable_import(subject.asked, imported) and self._improves(imported):
                self._sent[IMPORTED, one.key] = standing(imported)
                outputs.append((KNOWLEDGE, msgspec.structs.replace(imported, trigger_ms=one.raw.at_ms)))
        return outputs

    def remember(self, admitted: list[Admitted]) -> None:
        """Keep what stands, now that the answers are safe; before, a crash would lose them (made again, they are no better)."""
        for one in admitted:
            sent = self._sent.pop((one.raw.topic, one.key), None)
            subject = self._of(one.key)
            if sent is not None and supersedes(one.key, sent, subject.stands):
                self._keep(one.key, msgspec.structs.replace(subject, stands=sent))

    def _improves(self, answer: Knowledge) -> bool:
        """Whether an answer is better than what stands and what is on its way."""
        on_its_way = (self._sent.get((topic, answer.subject)) for topic in (REQUESTS, IMPORTED))
        return all(
            supersedes(answer.subject, standing(answer), other) for other in (self._of(answer.subject).stands, *on_its_way)
        )

    def _to_extract(self, request: KnowledgeRequest) -> ToExtract:
        subject = self._of(request.subject)
        return ToExtract(request=request, imported=subject.imported, stands=subject.stands)

    def _remove(self, subject: str) -> None:
        """Forget a subject but for its import, which its own topic takes back: between two topics there is no order."""
        for topic in (REQUESTS, IMPORTED):
            self._sent.pop((topic, subject), None)
        self._keep(subject, Subject(imported=self._of(subject).imported))

    def _of(self, subject: str) -> Subject:
        packed = self._table.get(subject.encode())
        return _subjects.decode(packed) if packed else Subject()

    def _keep(self, subject: str, state: Subject) -> None:
        if state == Subject():
            self._table.pop(subject.encode(), None)
        else:
            self._table[subject.encode()] = msgspec.msgpack.encode(state)


def extract_app(settings: Settings, extraction: Extraction, handler: BatchHandler) -> faust.App:
    """The app of the extract role."""
    app = faust_app(settings, "extract")
    table = app.Table("subjects", key_type=bytes, value_type=bytes, partitions=settings.kafka.partitions, use_partitioner=True)
    kept = Changelogs(table)
    stage = Extracting(table, extraction, handler.publisher(REQUESTS))

    @app.agent(source(app, settings, REQUESTS))
    async def extract_requests(stream: StreamT[Any]) -> None:
        await changelogs_known(app, table)
        async for events in batches(stream, 4 * settings.extract.concurrency):
            await handler.handle(REQUESTS, events, stage.requests, stage.remember)
            await kept.written()

    @app.agent(source(app, settings, IMPORTED))
    async def extract_imports(stream: StreamT[Any]) -> None:
        await changelogs_known(app, table)
        async for events in batches(stream, 500):
            await handler.handle(IMPORTED, events, stage.imports, stage.remember)
            await kept.written()

    return app
