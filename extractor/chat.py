"""The chat-completion format, both ways: one place for what is sent live and what stands in batch files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from contracts.records import Knowledge, KnowledgeRequest, Tier
from contracts.subjects import split_subject
from extractor.answers import RejectedAnswerError, parse_answer
from extractor.prompts import Prompt, prompt_version

if TYPE_CHECKING:
    from extractor.scenario import Scenario


class _Message(msgspec.Struct):
    content: str | None = None
    refusal: str | None = None


class _Choice(msgspec.Struct):
    message: _Message
    finish_reason: str | None = None


class PromptDetails(msgspec.Struct):
    """How many of the prompt's tokens came out of the server's prefix cache."""

    cached_tokens: int | None = None


class Usage(msgspec.Struct):
    """Tokens as the server counted them."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: PromptDetails | None = None

    @property
    def cached_tokens(self) -> int | None:
        """Of ``prompt_tokens``, those out of the prefix cache; None where the server does not say."""
        return None if self.prompt_tokens_details is None else self.prompt_tokens_details.cached_tokens


class ChatReply(msgspec.Struct):
    """What reki reads of a chat completion; everything else in it is ignored."""

    choices: list[_Choice]
    model: str = ""
    usage: Usage | None = None


def read_reply(raw: str | msgspec.Raw) -> ChatReply:
    """The reply in a response's body.

    Raises:
        RejectedAnswerError: The body is no chat completion.
    """
    try:
        return msgspec.json.decode(raw, type=ChatReply)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise RejectedAnswerError("wrong shape", f"a response that is no chat completion ({error})") from error


def request_body(prompt: Prompt, *, model: str, max_tokens: int) -> dict[str, Any]:
    """The body of a request: structured output by JSON schema, as little chance as the server allows."""
    return {
        "model": model,
        "messages": [{"role": "system", "content": prompt.system}, {"role": "user", "content": prompt.user}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "knowledge", "strict": True, "schema": prompt.schema}},
        "max_completion_tokens": max_tokens,
        "temperature": 0,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Whom a question was about, and what was known then: what goes from the request into the knowledge."""

    subject: str
    as_of_ms: int
    source_hash: str
    trigger_ms: int = 0

    @classmethod
    def of(cls, request: KnowledgeRequest) -> Asked:
        """What a request says of itself."""
        return cls(
            subject=request.subject, as_of_ms=request.as_of_ms, source_hash=request.source_hash, trigger_ms=request.trigger_ms
        )


def tier_of(subject: str) -> Tier:
    """The tier of a model's answer: of one item or user ``individual``, of a cluster ``collective``."""
    return "collective" if split_subject(subject)[0] == "cluster" else "individual"


def knowledge_of(reply: ChatReply, scenario: Scenario, asked: Asked, *, backend: str) -> Knowledge:
    """The knowledge in a reply: its answer parsed and checked, its tokens counted.

    Raises:
        RejectedAnswerError: As `parse_answer` does, or there is no answer in the reply.
    """
    if not reply.choices:
        raise RejectedAnswerError("wrong shape", "a reply without choices")
    choice = reply.choices[0]
    if choice.message.refusal:
        raise RejectedAnswerError("refusal", choice.message.refusal)
    kind, _ = split_subject(asked.subject)
    factors, summary = parse_answer(scenario, choice.message.content or "", choice.finish_reason or "", kind=kind)
    usage = reply.usage or Usage()
    return Knowledge(
        subject=asked.subject,
        factors=factors,
        summary=summary,
        tier=tier_of(asked.subject),
        backend=backend,
        scenario=scenario.name,
        prompt_version=prompt_version(scenario),
        model=reply.model,
        as_of_ms=asked.as_of_ms,
        trigger_ms=asked.trigger_ms,
        source_hash=asked.source_hash,
        tokens_in=usage.prompt_tokens,
        tokens_out=usage.completion_tokens,
        tokens_cached=usage.cached_tokens,
    )
