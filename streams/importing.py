"""Answers of a batch file, sent to imported-knowledge. One line at a time: memory does not grow with the file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

import msgspec

from contracts.errors import DatasetError
from contracts.ports import Publisher
from contracts.subjects import Kind, split_subject
from contracts.topics import IMPORTED
from extractor.batch_file import BadAnswer, read_answers
from extractor.scenario import Scenario

MAX_LISTED: Final = 1_000


@dataclass(slots=True, kw_only=True)
class Imported:
    """What an import did. ``errors`` are the first thousand; ``reasons`` counts all of them."""

    answers: Counter[Kind] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    errors: list[BadAnswer] = field(default_factory=list)


def import_answers(
    file: Path,
    scenario: Scenario,
    publisher: Publisher,
    *,
    errors: IO[bytes] | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Imported:
    """Send every usable answer; twice is the same as once.

    Args:
        file: A batch output file.
        scenario: What was asked.
        publisher: Where to.
        errors: A binary file that gets every line that could not be used, as JSONL.
        progress: Told how many lines were read.

    Raises:
        DatasetError: The file cannot be read.
        UnavailableError: The broker does not answer; import the file again.
    """
    done = Imported()
    for answer in read_answers(file, scenario):
        progress(1)
        if not isinstance(answer, BadAnswer):
            publisher.send(IMPORTED, answer)
            done.answers[split_subject(answer.subject)[0]] += 1
            continue
        done.reasons[answer.kind] += 1
        if len(done.errors) < MAX_LISTED:
            done.errors.append(answer)
        if errors is not None:
            errors.write(msgspec.json.encode(answer) + b"\n")
    publisher.flush()
    return done


@contextmanager
def errors_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to list errors in, opened before anything is sent.

    Raises:
        DatasetError: It cannot be written.
    """
    try:
        with path.open("wb") as out:
            yield out
    except OSError as error:
        raise DatasetError(
            f"{path}, which cannot be written ({error.strerror})", wanted="a file for the errors", todo="choose another"
        ) from error
