"""What `bench_economy` counts: the tokens of the prompts that reki would send, and of answers as long as those that exist.

Shapes: n subjects of one kind.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from contracts.records import HistoryEntry, ItemEvent, KnowledgeRequest
from contracts.subjects import item_subject, user_subject
from extractor.assignment import MemberKind
from extractor.backends.attributes import AttributesBackend
from extractor.prompts import build_prompt
from ranker.evaluation.arms import KNOWLEDGE_ITEMS, KNOWLEDGE_USERS
from ranker.evaluation.task import PARTS
from ranker.features import LIKED, PAD
from streams.datasets.movielens import MovieLens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from contracts.records import Knowledge
    from extractor.scenario import Scenario
    from ranker.evaluation.task import EvaluationTask
    from streams.datasets.paper_protocol import PaperProtocol

TokenCounter = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Tokens of some calls. ``prefix`` of ``tokens_in`` are the instructions, which a prefix cache holds after the first call."""

    calls: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    prefix: int = 0

    def __add__(self, other: Spent) -> Spent:
        """Of both."""
        return Spent(
            calls=self.calls + other.calls,
            tokens_in=self.tokens_in + other.tokens_in,
            tokens_out=self.tokens_out + other.tokens_out,
            prefix=self.prefix + other.prefix,
        )

    @property
    def total(self) -> int:
        """In and out."""
        return self.tokens_in + self.tokens_out

    @property
    def computed(self) -> int:
        """In and out, without what a prefix cache serves."""
        return self.total - self.prefix


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subjects:
    """All items, or all users, with what is known of each."""

    kind: MemberKind
    requests: tuple[KnowledgeRequest, ...]  # (n,) individual
    own: tuple[Knowledge, ...]  # (n,) from the subject's own attributes
    said: tuple[str, ...]  # (n,) the language model's text; empty where it gave none
    answers: NDArray[np.float64]  # (n,) tokens of each answer
    traffic: NDArray[np.int64]  # (n,) interactions
    order: NDArray[np.int64]  # (n,) the order in which they came

    def __len__(self) -> int:
        return len(self.requests)


def spent(scenario: Scenario, requests: Iterable[KnowledgeRequest], tokens_out: float, count: TokenCounter) -> Spent:
    """One call per request.

    Args:
        scenario: Whose prompts.
        requests: What is asked.
        tokens_out: Of all answers.
        count: Of the tokens of a text.
    """
    prompts = [build_prompt(scenario, request) for request in requests]
    system = {text: count(text) for text in {prompt.system for prompt in prompts}}
    n_in = sum(system[prompt.system] + count(prompt.user) for prompt in prompts)
    prefix = sum(system[prompt.system] for prompt in prompts) - sum(system.values())  # the first call computes it
    return Spent(calls=len(prompts), tokens_in=n_in, tokens_out=round(tokens_out), prefix=prefix)


def read_subjects(
    folder: Path, raw: PaperProtocol, task: EvaluationTask, scenario: Scenario, count: TokenCounter
) -> tuple[Subjects, Subjects]:
    """The items and the users of ML-1M.

    Args:
        folder: Of the raw files.
        raw: The same, under the protocol.
        task: Built from it.
        scenario: Whose prompts.
        count: Of the tokens of a text.

    Raises:
        DatasetError: A file is missing or damaged.
    """
    dataset, backend = MovieLens(folder), AttributesBackend(scenario)
    said = raw.texts(KNOWLEDGE_ITEMS, task).texts
    seen = {str(movie): place for place, movie in enumerate(dataset.ratings.movie[dataset.ratings.first_rows()].tolist())}
    requests = tuple(_item_request(task, row) for row in range(len(task.items)))
    items = Subjects(
        kind="item",
        requests=requests,
        own=tuple(map(backend.described, requests)),
        said=said,
        answers=_answer_tokens(scenario, [({}, text) if text else None for text in said], count),
        traffic=_traffic_of_items(task),
        order=np.argsort([seen.get(item, len(seen)) for item in task.items], kind="stable"),
    )
    answers = {str(text.user): (text.factors, text.summary) for text in dataset.user_texts()}
    requests = tuple(_user_request(task, user) for user in range(len(task.users)))
    users = Subjects(
        kind="user",
        requests=requests,
        own=tuple(map(backend.described, requests)),
        said=raw.texts(KNOWLEDGE_USERS, task).texts,
        answers=_answer_tokens(scenario, [answers.get(user) for user in task.users], count),
        traffic=np.bincount(task.user, minlength=len(task.users)) + task.n_prefix,
        order=np.argsort(_first_seen(dataset, task.users), kind="stable"),
    )
    return items, users


def _first_seen(dataset: MovieLens, users: Sequence[str]) -> NDArray[np.int64]:
    ids, first = np.unique(dataset.ratings.user, return_index=True)
    place: NDArray[np.int64] = first[np.searchsorted(ids, np.array(users, np.int32))]
    return place


def _traffic_of_items(task: EvaluationTask) -> NDArray[np.int64]:
    """Interactions of the training users alone: who gets the better text must not depend on the users tested."""
    train = task.part_of_user == PARTS.index("train")
    rated = np.concatenate([task.item[train[task.user]], task.prefix[train][task.prefix[train] != PAD]])
    return np.bincount(rated, minlength=len(task.items) + 1)[1:]


def _item_request(task: EvaluationTask, row: int) -> KnowledgeRequest:
    item = ItemEvent(item=task.items[row], published_ms=0, title=task.titles[row], attributes=dict(task.attributes[row]))
    return _request(item_subject(item.item), item=item)


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
    return _request(user_subject(task.users[user]), history=history)


def _request(subject: str, *, item: ItemEvent | None = None, history: tuple[HistoryEntry, ...] = ()) -> KnowledgeRequest:
    return KnowledgeRequest(
        subject=subject,
        mode="individual",
        reason="new_item",
        priority=0.0,
        as_of_ms=0,
        trigger_ms=0,
        source_hash="",
        item=item,
        history=history,
    )


def _answer_tokens(
    scenario: Scenario, answers: Sequence[tuple[dict[str, str], str] | None], count: TokenCounter
) -> NDArray[np.float64]:
    """Tokens of answers as the JSON that the schema asks for, (n,); the mean of the others where there is none."""
    said = [
        json.dumps({"factors": {name: one[0].get(name, "") for name in scenario.factors}, "summary": one[1]}, ensure_ascii=False)
        if one
        else ""
        for one in answers
    ]
    tokens = np.array([count(text) if text else np.nan for text in said])
    return np.where(np.isnan(tokens), np.nanmean(tokens), tokens)
