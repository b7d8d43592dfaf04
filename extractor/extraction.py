"""The extract stage: requests to knowledge, imported knowledge first, the backend for the rest, nothing lost on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from contracts.errors import AnswerError, RecordError
from contracts.precedence import supersedes
from contracts.records import Knowledge, KnowledgeRequest, Tier
from contracts.subjects import split_subject
from extractor.answers import RejectedAnswerError
from extractor.backends.attributes import AttributesBackend

if TYPE_CHECKING:
    from collections.abc import Sequence

    from contracts.ports import KnowledgeBackend
    from extractor.scenario import Scenario


Standing = tuple[Tier, int, str]
"""What decides between two answers about one subject: tier, as_of_ms, source_hash (`contracts.precedence`)."""


def standing(made: Knowledge) -> Standing:
    """What decides about an answer."""
    return made.tier, made.as_of_ms, made.source_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class ToExtract:
    """A request, with what is there for its subject: what was imported, and what stands (the last answer sent)."""

    request: KnowledgeRequest
    imported: Knowledge | None = None
    stands: Standing | None = None

    def improves(self, answer: Standing) -> bool:
        """Whether an answer is better or newer than what stands."""
        return supersedes(self.request.subject, answer, self.stands)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtractionFailure:
    """A request that no knowledge can be made for, however often it is tried: it belongs into the dead letters."""

    request: KnowledgeRequest
    reason: str


Result = Knowledge | ExtractionFailure | None


def usable_import(request: KnowledgeRequest, imported: Knowledge) -> bool:
    """Whether imported knowledge answers this request.

    A user's must not have seen anything later than the request (leak guard). An item's must be about this very content, or not
    say what it was made from.
    """
    if imported.subject != request.subject:
        return False
    if split_subject(request.subject)[0] == "user":
        return imported.as_of_ms <= request.as_of_ms
    return imported.source_hash in {"", request.source_hash}


class Extraction:
    """Makes knowledge for batches of requests.

    ``counts`` tells where it came from: ``imported``, ``made``, ``stood in: <reason>`` (the backend's answer could not be used,
    so the subject's own attributes stand in, labelled as such), ``kept`` (what stands is as good and as new, so there is nothing
    to say: the backend was not asked, or its answer was no better) and ``failed``.

    Args:
        backend: Who is asked.
        scenario: For the stand-in.
    """

    def __init__(self, backend: KnowledgeBackend, scenario: Scenario) -> None:
        self.counts: Counter[str] = Counter()
        self._backend = backend
        self._attributes = AttributesBackend(scenario)
        self._answered: dict[_Key, Knowledge] = {}  # of a batch that failed half-way: paid for already

    async def extract_many(self, requests: Sequence[ToExtract]) -> list[Result]:
        """One result per request, in their order; None where what stands is kept.

        Args:
            requests: In the order in which the backend is to be asked.

        Raises:
            UnavailableError: The model server does not answer. Call again with the same requests: what was answered before is not
                asked again.
            SettingsError: The model server refuses the key, the model or the address.
        """
        self._answered = {key: self._answered[key] for key in (_key(one.request) for one in requests) if key in self._answered}
        tasks: dict[_Key, asyncio.Task[tuple[str, Result]]] = {}
        for one in requests:
            if _key(one.request) not in tasks:  # delivered twice in one batch: asked once
                tasks[_key(one.request)] = asyncio.create_task(self._one(one))
        try:
            if tasks:
                await asyncio.wait(tasks.values(), return_when=asyncio.FIRST_EXCEPTION)
        finally:
            pending = [task for task in tasks.values() if not task.done()]
            for task in pending:
                task.cancel()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
        for task in tasks.values():
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
        answers = {key: task.result() for key, task in tasks.items()}
        self._answered = {}
        self.counts.update(label for label, _ in answers.values())
        return [answers[_key(one.request)][1] for one in requests]

    async def aclose(self) -> None:
        """Let go of the backend's connections."""
        await self._backend.aclose()

    async def _one(self, one: ToExtract) -> tuple[str, Result]:
        """How one result came about, for ``counts``, and the result."""
        request, imported = one.request, one.imported
        if request.mode == "collective" or split_subject(request.subject)[0] == "cluster":
            reason = "got mode `collective`; wanted `individual`; collective extraction is not built yet"
            return "failed", ExtractionFailure(request=request, reason=reason)
        if imported is not None and usable_import(request, imported) and one.improves(standing(imported)):
            return "imported", msgspec.structs.replace(imported, trigger_ms=request.trigger_ms)
        if not one.improves((self._backend.tier, request.as_of_ms, request.source_hash)):
            return "kept", None
        try:
            label, knowledge = await self._made(request)
        except RecordError as error:
            return "failed", ExtractionFailure(request=request, reason=str(error))
        return (label, knowledge) if one.improves(standing(knowledge)) else ("kept", None)

    async def _made(self, request: KnowledgeRequest) -> tuple[str, Knowledge]:
        if (before := self._answered.get(_key(request))) is not None:
            return "made", msgspec.structs.replace(before, trigger_ms=request.trigger_ms)
        try:
            knowledge = await self._backend.extract(request)
        except AnswerError as error:
            reason = error.reason if isinstance(error, RejectedAnswerError) else "other"
            return f"stood in: {reason}", await self._attributes.extract(request)
        self._answered[_key(request)] = knowledge
        return "made", knowledge


_Key = tuple[str, int, str]


def _key(request: KnowledgeRequest) -> _Key:
    return request.subject, request.as_of_ms, request.source_hash
