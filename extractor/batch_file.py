"""OpenAI batch files: questions out as JSONL, answers in, for `vllm run-batch` or a provider's batch interface.

A line's ``custom_id`` carries what its answer needs to become knowledge, so that answers can be read without the questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus
from typing import IO, TYPE_CHECKING, Final, Literal

import msgspec

from contracts.errors import DatasetError
from contracts.subjects import split_subject
from extractor.answers import RejectedAnswerError, Rejection
from extractor.chat import Asked, knowledge_of, read_reply, request_body

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from contracts.records import Knowledge, KnowledgeRequest
    from extractor.prompts import Prompt
    from extractor.scenario import Scenario

NoAnswer = Literal["line too long", "not a batch line", "server error"]
MAX_LINE_BYTES: Final = 1_000_000
_N_FIELDS: Final = 4
_MAX_REASON_CHARS: Final = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class BadAnswer:
    """A line of an answer file that is no knowledge. ``line`` counts from 1; ``kind`` is fixed, so it can be counted."""

    line: int
    custom_id: str
    kind: NoAnswer | Rejection
    reason: str


class _Response(msgspec.Struct):
    status_code: int
    body: msgspec.Raw


class _Line(msgspec.Struct):
    custom_id: str
    response: _Response | None = None
    error: object = None  # any JSON: only quoted, never read


def custom_id(request: KnowledgeRequest, prompt: Prompt) -> str:
    """``subject|as_of_ms|source_hash|prompt_hash``; `split_custom_id` is its inverse."""
    return f"{request.subject}|{request.as_of_ms}|{request.source_hash}|{prompt.prompt_hash}"


def split_custom_id(text: str) -> tuple[Asked, str]:
    """Whom the line is about, and the prompt's hash.

    Raises:
        ValueError: It is not of `custom_id`'s form.
    """
    fields = text.rsplit("|", _N_FIELDS - 1)  # from the right: a subject's id may hold the separator
    if len(fields) != _N_FIELDS or not (fields[1].isascii() and fields[1].isdigit()):
        raise ValueError(f"got custom_id {text[:120]!r}; wanted subject|as_of_ms|source_hash|prompt_hash")
    subject, as_of_ms, source_hash, prompt_hash = fields
    split_subject(subject)
    return Asked(subject=subject, as_of_ms=int(as_of_ms), source_hash=source_hash), prompt_hash


def write_requests(
    prompts: Iterable[tuple[str, KnowledgeRequest, Prompt]], out: IO[bytes], *, model: str, max_tokens: int = 400
) -> int:
    """Write one line per question.

    Args:
        prompts: Subject, request and prompt.
        out: A binary file.
        model: Model name, as the batch's server knows it.
        max_tokens: Bound on one answer.

    Returns:
        The number of lines.
    """
    n_lines = 0
    for _subject, request, prompt in prompts:
        line = {
            "custom_id": custom_id(request, prompt),
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": request_body(prompt, model=model, max_tokens=max_tokens),
        }
        out.write(msgspec.json.encode(line) + b"\n")
        n_lines += 1
    return n_lines


def answer_line(request: KnowledgeRequest, prompt: Prompt, *, model: str, content: str) -> bytes:
    """One line as a batch server writes it: for answers that were got in another way."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
    body = {"object": "chat.completion", "model": model, "choices": [choice]}
    line = {"custom_id": custom_id(request, prompt), "response": {"status_code": 200, "body": body}, "error": None}
    return msgspec.json.encode(line) + b"\n"


def read_answers(path: Path, scenario: Scenario) -> Iterator[Knowledge | BadAnswer]:
    """Knowledge of every line, in file order, and what is wrong with the lines that are none.

    Args:
        path: A batch output file (JSONL).
        scenario: What was asked.

    Raises:
        DatasetError: The file cannot be read.
    """
    try:
        with path.open("rb") as lines:
            number = 0
            while raw := lines.readline(MAX_LINE_BYTES + 1):
                number += 1
                if len(raw) > MAX_LINE_BYTES:
                    yield BadAnswer(line=number, custom_id="", kind="line too long", reason=f"longer than {MAX_LINE_BYTES} bytes")
                    while raw and not raw.endswith(b"\n"):
                        raw = lines.readline(MAX_LINE_BYTES)
                elif raw.strip():
                    yield _read_line(number, raw, scenario)
    except OSError as error:
        raise DatasetError(
            f"{path}, which cannot be read ({error.strerror})", wanted="a batch output file (JSONL)", todo="check the path"
        ) from error


def _read_line(number: int, raw: bytes, scenario: Scenario) -> Knowledge | BadAnswer:
    name = ""
    try:
        line = msgspec.json.decode(raw, type=_Line)
        name = line.custom_id
        asked, _ = split_custom_id(name)
        if line.response is None or line.response.status_code != HTTPStatus.OK:
            said = str(line.error or (bytes(line.response.body) if line.response else "nothing"))
            reason = f"the server answered with an error: {said[:200]}"
            return BadAnswer(line=number, custom_id=name, kind="server error", reason=reason)
        return knowledge_of(read_reply(line.response.body), scenario, asked, backend="batch")
    except RejectedAnswerError as error:
        return BadAnswer(line=number, custom_id=name, kind=error.reason, reason=str(error)[:_MAX_REASON_CHARS])
    except (ValueError, RecursionError) as error:  # msgspec's and unicode's errors are ValueErrors
        return BadAnswer(line=number, custom_id=name, kind="not a batch line", reason=str(error)[:_MAX_REASON_CHARS])
