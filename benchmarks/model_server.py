"""A stand-in for a language model's server, for benchmarks of what is around it: OpenAI protocol, fixed latency, plain answers.

    python benchmarks/model_server.py --port 8000 [--latency-s 0.2] [--slots 64]

An answer repeats words of the subject, one share per factor, so that different subjects get different texts. Tokens are counted
as characters / 4, and the system message as served from a prefix cache. With more than ``--slots`` requests at once it answers
429, as hosted models do.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

_WORDS_PER_FACTOR = 6


def answer(body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion for this request."""
    system, user = (message["content"] for message in body["messages"])
    names = body["response_format"]["json_schema"]["schema"]["properties"]["factors"]["required"]
    subject = user.split("<subject>")[-1].split("</subject>")[0]
    words = itertools.cycle(subject.replace("-", " ").split() or ["nothing"])
    factors = {name: " ".join(itertools.islice(words, _WORDS_PER_FACTOR)) for name in names}
    content = json.dumps({"factors": factors, "summary": " ".join(itertools.islice(words, 12))})
    n_in, n_out, n_cached = (len(system) + len(user)) // 4, len(content) // 4, len(system) // 4
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
        "usage": {
            "prompt_tokens": n_in,
            "completion_tokens": n_out,
            "total_tokens": n_in + n_out,
            "prompt_tokens_details": {"cached_tokens": n_cached},
        },
    }


def app(latency_s: float, slots: int) -> Starlette:
    """The server's app."""
    under_way = 0

    async def complete(request: Request) -> Response:
        nonlocal under_way
        if under_way >= slots:
            return JSONResponse({"error": {"message": "too many requests"}}, status_code=429, headers={"retry-after": "1"})
        under_way += 1
        try:
            await asyncio.sleep(latency_s)
            return JSONResponse(answer(await request.json()))
        finally:
            under_way -= 1

    async def health(_: Request) -> Response:
        return JSONResponse({})

    return Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"]), Route("/health", health)])


@contextlib.contextmanager
def model_server(port: int, latency_s: float, slots: int = 10_000) -> Iterator[subprocess.Popen[bytes]]:
    """The server as a process of its own, ready."""
    command = [sys.executable, str(Path(__file__)), "--port", str(port), "--latency-s", str(latency_s), "--slots", str(slots)]
    process = subprocess.Popen(command)
    try:
        end_s = time.monotonic() + 60
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).is_success:
                    break
            if process.poll() is not None or time.monotonic() > end_s:
                raise RuntimeError(f"no model server on port {port}")
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(timeout=20)


def main() -> None:
    """Serve until told to stop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--latency-s", type=float, default=0.2)
    parser.add_argument("--slots", type=int, default=10_000)
    given = parser.parse_args()
    uvicorn.run(app(given.latency_s, given.slots), host="127.0.0.1", port=given.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
