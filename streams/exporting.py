"""The questions that are open, read off the topics and written as one OpenAI batch file.

The file appears whole or not at all: an export that is stopped leaves the last one as it was, and is simply run again.
"""

from __future__ import annotations

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from contracts.errors import DatasetError, SettingsError
from contracts.records import ItemEvent, Knowledge, KnowledgeRequest
from contracts.settings import Settings
from contracts.topics import CLUSTER_KNOWLEDGE, IMPORTED, ITEMS, KNOWLEDGE, REQUESTS, Topic
from extractor.batch_file import write_requests
from extractor.checking import CHARS_PER_TOKEN
from extractor.exporting import AskedTier, OpenQuestions, Side, Why, WhyNot, side_of
from extractor.prompts import Prompt
from extractor.scenario import Scenario
from streams.tail import Tail, Tailed

_ASKED_ON: Final[dict[Side, Topic]] = {"item": ITEMS, "user": REQUESTS}


@dataclass(slots=True, kw_only=True)
class Exported:
    """What an export wrote, by whom it is about (clusters of items count as items), and what it left out.

    Tokens are characters / 4: an estimate.
    """

    lines: Counter[Side] = field(default_factory=Counter)
    reasons: Counter[Why] = field(default_factory=Counter)
    left_out: Counter[WhyNot] = field(default_factory=Counter)
    prompt_chars: int = 0
    shared_chars: int = 0  # of it the instructions, which a prefix cache computes once

    @property
    def prompt_tokens(self) -> int:
        """Estimated tokens of all prompts."""
        return self.prompt_chars // CHARS_PER_TOKEN

    @property
    def shared_tokens(self) -> int:
        """Estimated tokens of the instructions in all prompts."""
        return self.shared_chars // CHARS_PER_TOKEN


def topics_of(kinds: Collection[Side], tier: AskedTier = "individual") -> list[Topic]:
    """The topics that say what is asked and known of these kinds of subjects, or of clusters of them."""
    if tier == "collective":
        return [REQUESTS, CLUSTER_KNOWLEDGE, IMPORTED]
    return [*(_ASKED_ON[kind] for kind in sorted(kinds)), KNOWLEDGE, IMPORTED]


def export(  # noqa: PLR0913 - one argument for each choice of the command
    settings: Settings,
    scenario: Scenario,
    file: Path,
    *,
    kinds: Collection[Side],
    model: str,
    tier: AskedTier = "individual",
    everything: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Exported:
    """Read the topics to their ends and write the open questions.

    Args:
        settings: Where the broker is, and the bound on answers.
        scenario: What is asked.
        file: Where to; replaced at the end.
        kinds: Whom about: items, users or both.
        model: Name of the model, as the batch's server knows it.
        tier: Individual: about the items and users; collective: about clusters of them.
        everything: Also those whose answer would change nothing.
        progress: Told how many records were read.

    Raises:
        UnavailableError: The broker does not answer, or a topic is missing.
        SettingsError: No model is named.
        DatasetError: The file cannot be written, or there is no room for the temporary database.
    """
    if not model:
        raise SettingsError(
            "no model", wanted="a model name as the batch's server knows it", todo="give --model, or set extract.model"
        )
    if not file.parent.is_dir():  # before an hour of reading
        raise DatasetError(f"{file}, whose folder does not exist", wanted="a file in a folder that does", todo="make the folder")
    questions = OpenQuestions(scenario, tier=tier)
    try:
        with Tail(settings, topics_of(kinds, tier)) as tail:
            collect(tail.to_end(progress), questions)
        return write(
            questions,
            file,
            kinds=kinds,
            everything=everything,
            model=model,
            max_tokens=settings.extract.max_answer_tokens,
        )
    except sqlite3.OperationalError as error:
        raise DatasetError(
            f"a temporary database that cannot be written ({error})",
            wanted="as much free disk as the texts of the catalogue and the last requests of all users take",
            todo="set TMPDIR to a folder on a larger disk",
        ) from error
    finally:
        questions.close()


def collect(records: Iterable[Tailed], questions: OpenQuestions) -> None:
    """Tell the records of `topics_of` to the questions; one under another key than its own is passed over (a bad record)."""
    for one in records:
        match one.record:
            case ItemEvent() as event if event.item == one.key:
                questions.item(event, one.at_ms)
            case KnowledgeRequest() as request if request.subject == one.key:
                questions.request(request)
            case Knowledge() as made if made.subject == one.key:
                (questions.answer if one.topic is IMPORTED else questions.knowledge)(made)
            case None if one.topic is ITEMS:
                questions.no_item(one.key)
            case None if one.topic is REQUESTS:
                questions.no_request(one.key)
            case None if one.topic in {KNOWLEDGE, CLUSTER_KNOWLEDGE}:
                questions.no_knowledge(one.key)
            case None if one.topic is IMPORTED:
                questions.no_answer(one.key)


def write(  # noqa: PLR0913 - as above
    questions: OpenQuestions,
    file: Path,
    *,
    kinds: Collection[Side],
    model: str,
    max_tokens: int,
    everything: bool = False,
) -> Exported:
    """Write the open questions, ordered by subject, and replace the file by them.

    Raises:
        DatasetError: The file cannot be written.
    """
    done = Exported()

    def counted() -> Iterator[tuple[str, KnowledgeRequest, Prompt]]:
        for why, request, prompt in questions.questions(kinds, everything=everything):
            done.lines[side_of(request.subject)] += 1
            done.reasons[why] += 1
            done.prompt_chars += len(prompt.system) + len(prompt.user)
            done.shared_chars += len(prompt.system)
            yield request.subject, request, prompt

    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as out:
            write_requests(counted(), out, model=model, max_tokens=max_tokens)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        raise DatasetError(
            f"{file}, which cannot be written ({error.strerror})", wanted="a file on a disk with room", todo="choose another"
        ) from error
    done.left_out.update(questions.left_out)
    return done
