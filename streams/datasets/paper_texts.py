"""The texts of the arms, by source: what the encoder reads of each item and user of MovieLens-1M, as the stream would make it.

A text about a user is written from the prefix alone. A language model's text that says it has seen anything else is left out.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from contracts.errors import SettingsError
from contracts.records import HistoryEntry, ItemEvent, KnowledgeRequest
from contracts.subjects import item_subject, user_subject
from hein.text import knowledge_text
from ranker.evaluation.arms import ATTRIBUTES, KNOWLEDGE_ITEMS, KNOWLEDGE_USERS, METADATA, SOURCES
from ranker.features import LIKED
from streams.datasets.movielens import ITEM_TEXTS, USER_TEXTS, imported_knowledge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ranker.evaluation.task import EvaluationTask
    from streams.datasets.movielens import MovieLens

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceTexts:
    """The texts of one source, one for each item or user of the task, empty where there is none."""

    source: str
    texts: tuple[str, ...]
    n_leaking: int = 0  # left out, because they were not written from the user's prefix

    @property
    def n_missing(self) -> int:
        """Items or users without a text, those left out included."""
        return sum(not text for text in self.texts)


def collect_texts(source: str, task: EvaluationTask, dataset: MovieLens) -> SourceTexts:
    """The texts of a source.

    Args:
        source: A key of `ranker.evaluation.arms.SOURCES`.
        task: Built from ``dataset``.
        dataset: The raw files.

    Raises:
        SettingsError: There is no such source.
        DatasetError: Its file is missing or damaged.
    """
    if source not in SOURCES:
        raise SettingsError(f"text source {source!r}", wanted=f"one of {', '.join(SOURCES)}", todo="ask for one of them")
    if source == KNOWLEDGE_USERS:
        return _knowledge_users(task, dataset)
    if source == KNOWLEDGE_ITEMS:
        said = {str(movie): text for movie, text in dataset.item_texts()}
        texts = [_imported(item_subject(item), said.get(item, ""), ITEM_TEXTS) for item in task.items]
    elif source == METADATA:
        texts = [_metadata(task, row) for row in range(1, len(task.items) + 1)]
    elif source == ATTRIBUTES:
        texts = asyncio.run(_attributes([_item_request(task, row) for row in range(1, len(task.items) + 1)]))
    else:
        texts = asyncio.run(_attributes([_user_request(task, user) for user in range(len(task.users))]))
    return SourceTexts(source=source, texts=tuple(texts))


def _knowledge_users(task: EvaluationTask, dataset: MovieLens) -> SourceTexts:
    place = {user: place for place, user in enumerate(task.users)}
    texts, n_leaking = [""] * len(task.users), 0
    for said in dataset.user_texts():
        user = place.get(str(said.user))
        if user is None:
            continue
        prefix = {task.items[row - 1] for row in task.prefix[user, : task.n_prefix[user]].tolist()}
        if {str(movie) for movie in said.used.tolist()} != prefix:
            n_leaking += 1
            continue
        knowledge = imported_knowledge(user_subject(task.users[user]), said.factors, said.summary, model=USER_TEXTS, as_of_ms=0)
        texts[user] = knowledge_text(knowledge)
    if n_leaking:
        log.warning("%d user texts left out: they were not written from exactly the user's prefix", n_leaking)
    return SourceTexts(source=KNOWLEDGE_USERS, texts=tuple(texts), n_leaking=n_leaking)


def _imported(subject: str, text: str, file: str) -> str:
    return knowledge_text(imported_knowledge(subject, {}, text, model=file, as_of_ms=0))


def _metadata(task: EvaluationTask, row: int) -> str:
    """Such as ``Toy Story (1995), genres Animation, Comedy``."""
    attributes = task.attributes[row - 1]
    year, genres = attributes.get("year", ()), attributes.get("genre", ())
    text = f"{task.titles[row - 1]} ({year[0]})" if year else task.titles[row - 1]
    return f"{text}, genres {', '.join(genres)}" if genres else text


async def _attributes(requests: Sequence[KnowledgeRequest]) -> list[str]:
    from extractor.backends.attributes import AttributesBackend
    from extractor.scenario import load_scenario
    from streams.datasets.movielens import MovieLens

    backend = AttributesBackend(load_scenario(MovieLens.scenario))
    return [knowledge_text(await backend.extract(request)) for request in requests]


def _item_request(task: EvaluationTask, row: int) -> KnowledgeRequest:
    item = ItemEvent(
        item=task.items[row - 1], published_ms=0, title=task.titles[row - 1], attributes=dict(task.attributes[row - 1])
    )
    return msgspec.structs.replace(_request(item_subject(item.item)), item=item)


def _user_request(task: EvaluationTask, user: int) -> KnowledgeRequest:
    n = int(task.n_prefix[user])
    history = tuple(
        HistoryEntry(
            item=task.items[row - 1],
            title=task.titles[row - 1],
            action="rate",
            event_ms=0,
            liked=code == LIKED,
            attributes=dict(task.attributes[row - 1]),
        )
        for row, code in zip(task.prefix[user, :n].tolist(), task.prefix_liked[user, :n].tolist(), strict=True)
    )
    return msgspec.structs.replace(_request(user_subject(task.users[user])), history=history)


def _request(subject: str) -> KnowledgeRequest:
    """A request whose dates are of no matter: the backend writes the same words for all."""
    return KnowledgeRequest(
        subject=subject, mode="individual", reason="new_item", priority=0.0, as_of_ms=0, trigger_ms=0, source_hash=""
    )
