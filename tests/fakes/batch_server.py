"""A batch server without a model: answers every question by its own schema, in another order than it was asked."""

from __future__ import annotations

import hashlib
import json
import random
from typing import Any

import jsonschema


def answer_batch(questions: bytes, *, model: str = "fake", seed: int = 0) -> bytes:
    """The output file for an input file of questions. Answers depend on the question alone, so twice is the same."""
    lines = [_answered(json.loads(line), model) for line in questions.splitlines()]
    random.Random(seed).shuffle(lines)  # as servers do
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines)


def content_of(body: dict[str, Any]) -> dict[str, Any]:
    """What it answers to a request's body: a text for every property of the schema, told apart by the subject's words."""
    schema = body["response_format"]["json_schema"]["schema"]
    about = hashlib.sha256(body["messages"][-1]["content"].encode()).hexdigest()[:8]
    factors = {name: f"{name} of {about}" for name in schema["properties"]["factors"]["properties"]}
    content = {"factors": factors, "summary": f"all of {about}"}
    jsonschema.Draft202012Validator(schema).validate(content)
    return content


def _answered(question: dict[str, Any], model: str) -> dict[str, Any]:
    body = question["body"]
    message = {"role": "assistant", "content": json.dumps(content_of(body))}
    tokens = sum(len(said["content"].split()) for said in body["messages"])
    reply = {
        "object": "chat.completion",
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": len(message["content"].split())},
    }
    return {
        "id": f"batch_req_{question['custom_id']}",
        "custom_id": question["custom_id"],
        "response": {"status_code": 200, "request_id": "r", "body": reply},
        "error": None,
    }
