"""A model server over real HTTP on loopback: it speaks the OpenAI chat-completion protocol and misbehaves on demand."""

import asyncio
import json
import socket
import threading
import time
from collections import deque

import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.records import ItemEvent, KnowledgeRequest

DEADLINE_S = 20


class FakeModelServer:
    """Answers well by default; ``script`` holds what to do with the next requests: a response, or a function of the request body.

    Bodies and headers of all requests are kept in ``requests`` and ``headers``, when they came (monotonic seconds) in ``came_s``; the
    most that were under way at once in ``most_at_once``.
    """

    @staticmethod
    def completion(content, finish_reason="stop", usage=(100, 20), cached=None, **message):
        """A chat completion with this content."""
        choice = {"index": 0, "finish_reason": finish_reason, "message": {"role": "assistant", "content": content} | message}
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "fake-model", "choices": [choice]}
        if usage:
            body["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            if cached is not None:
                body["usage"]["prompt_tokens_details"] = {"cached_tokens": cached}
        return JSONResponse(body)

    @staticmethod
    def good_answer(body, text="about {}"):
        """The answer that the schema in the request asks for."""
        factors = body["response_format"]["json_schema"]["schema"]["properties"]["factors"]["required"]
        return json.dumps({"factors": {factor: text.format(factor) for factor in factors}, "summary": "Short."})

    def __init__(self):
        self.script = deque()
        self.default = lambda body: self.completion(self.good_answer(body))
        self.requests = []
        self.headers = []
        self.came_s = []
        self.most_at_once = 0
        self.gate = 0  # hold every request until this many are under way
        self._under_way = 0
        self._port = 0
        self._server = None
        self.start()

    @property
    def base_url(self):
        return f"http://127.0.0.1:{self._port}/v1"

    def start(self):
        listener = socket.create_server(("127.0.0.1", self._port))  # the same port again after a stop
        self._port = listener.getsockname()[1]
        self._loop, self._open, self._stopping = None, asyncio.Event(), asyncio.Event()
        app = Starlette(routes=[Route("/v1/chat/completions", self._answer, methods=["POST"])])
        config = uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=1)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [listener]}, daemon=True)
        self._thread.start()

    def stop(self):
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._server.should_exit = True
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive()

    async def _answer(self, request):
        self._loop = asyncio.get_running_loop()
        body = await request.json()
        self.came_s.append(time.monotonic())
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        self._under_way += 1
        self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            if self._under_way >= self.gate:
                self._open.set()
            await self._open.wait()
            act = self.script.popleft() if self.script else self.default
            if act == "hang":
                await self._stopping.wait()
                return Response(status_code=500)
            return act(body) if callable(act) and not isinstance(act, Response) else act
        finally:
            self._under_way -= 1


@pytest.fixture
def item_request():
    def make(ident="n1", title="Harbour opens", text="The harbour opened on Monday."):
        item = ItemEvent(item=ident, published_ms=1_000, title=title, text=text)
        return KnowledgeRequest(
            subject=f"item:{ident}", mode="individual", reason="new_item", priority=1.0, as_of_ms=1_000, trigger_ms=2_000,
            source_hash="abc", item=item,
        )  # fmt: skip

    return make


@pytest.fixture
def model_server():
    server = FakeModelServer()
    yield server
    server.stop()
