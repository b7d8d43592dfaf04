"""The ranker over HTTP, and its page. Built by a function, so that a test or a benchmark gets one with its own parts.

Scoring runs in a few threads of its own: a read on the vector store may take ``rank.miss_timeout_s``, and the event loop must
not wait for it.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import msgspec
from fastapi import FastAPI, Request
from starlette.datastructures import MutableHeaders
from starlette.responses import Response

from contracts.errors import RankRequestError, RekiError, UnavailableError
from contracts.records import RankRequest
from ranker.serving.bodies import MAX_BODY_BYTES, ExplainBody, RankAnswer, RankBody, decode_body
from ranker.serving.metrics import RankerMetrics
from ranker.serving.origins import guarded
from ranker.serving.outbox import Outbox

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from contracts.records import Knowledge, Ranking
    from contracts.settings import Settings
    from ranker.scoring import Scorer

_SCORING_THREADS: Final = 3  # one more than reads on the store under way at once (ranker.vectors), so one can always score
_MAX_LISTED: Final = 1_000
_RETRY_AFTER_S: Final = "1"
_PAGE: Final = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(  # noqa: PLR0913, PLR0917 - the one place where a ranker's parts meet; each is another kind of thing
    scorer: Scorer,
    knowledge_of: Callable[[Sequence[str]], Mapping[str, Knowledge]],
    ready: Callable[[], Mapping[str, bool]],
    publish: Callable[[Sequence[Ranking]], None] | None,
    settings: Settings,
    about: Mapping[str, object] | None = None,
) -> FastAPI:
    """The app.

    Args:
        scorer: Answers rankings.
        knowledge_of: Knowledge by subject, what there is; called in a thread, may block.
        ready: What must be there before requests are answered, by name; a false one makes ``/readyz`` answer 503. Called in the
            event loop, must not block. The model is looked at in any case.
        publish: Takes the rankings that were answered and returns when they are safe; called in a thread. None: they go nowhere.
        settings: Section ``rank`` is read.
        about: What ``/v1/about`` says besides the model, for example ``{"simulated": True, "dataset": "news"}``; read at each
            request.
    """
    return guarded(_Serving(scorer, knowledge_of, ready, publish, settings, about or {}).app(), settings.rank.host)


class _Serving:
    """The handlers of one app and what they share."""

    def __init__(  # noqa: PLR0913, PLR0917 - as `build_app`
        self,
        scorer: Scorer,
        knowledge_of: Callable[[Sequence[str]], Mapping[str, Knowledge]],
        ready: Callable[[], Mapping[str, bool]],
        publish: Callable[[Sequence[Ranking]], None] | None,
        settings: Settings,
        about: Mapping[str, object],
    ) -> None:
        self._scorer = scorer
        self._knowledge_of = knowledge_of
        self._ready = ready
        self._outbox = Outbox(publish) if publish is not None else None
        self._max_recent = min(settings.rank.max_candidates, _MAX_LISTED)
        self._clock = settings.rank.clock
        self._about = about
        self._metrics = RankerMetrics(scorer, self._outbox)
        self._scoring = ThreadPoolExecutor(_SCORING_THREADS, thread_name_prefix="scoring")
        page = files("ranker.serving.page")
        self._page = {path: (page.joinpath(name).read_bytes(), media) for path, (name, media) in _PAGE.items()}

    def app(self) -> FastAPI:
        app = FastAPI(title="reki", docs_url=None, redoc_url=None, openapi_url=None, lifespan=self._lifespan)
        app.add_route("/v1/rank", self._rank, methods=["POST"])
        app.add_route("/v1/explain", self._explain, methods=["POST"])
        app.add_route("/v1/users", self._users)
        app.add_route("/v1/items", self._items)
        app.add_route("/v1/knowledge", self._knowledge_many)
        app.add_route("/v1/knowledge/{subject:path}", self._knowledge_one)
        app.add_route("/v1/about", self._about_model)
        app.add_route("/healthz", self._healthz)
        app.add_route("/readyz", self._readyz)
        app.add_route("/metrics", self._prometheus)
        for path in _PAGE:
            app.add_route(path, self._static)
        app.add_route("/favicon.ico", self._no_icon)
        app.add_exception_handler(RankRequestError, self._invalid)
        app.add_exception_handler(UnavailableError, self._unavailable)
        app.add_middleware(_SafeHeaders)
        return app

    @asynccontextmanager
    async def _lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        if self._outbox is not None:
            self._outbox.start()
        yield
        if self._outbox is not None:
            await asyncio.to_thread(self._outbox.close)
        self._scoring.shutdown(wait=False, cancel_futures=True)

    def _clock_ms(self) -> int:
        """The time of a request that names none: now, or, in a replay of old events (``rank.clock``), that of the newest one.

        There, a ranking from years after the stream would close the windows of every ranking before it (`ranker.joining`).
        """
        return (self._metrics.newest_ms() if self._clock == "stream" else 0) or _now_ms()

    async def _rank(self, request: Request) -> Response:
        body = decode_body(await _body(request), RankBody, _now_ms())
        wanted = RankRequest(
            request=body.request or uuid.uuid4().hex,
            user=body.user,
            candidates=body.candidates,
            k=body.k,
            event_ms=self._clock_ms() if body.event_ms is None else body.event_ms,
            context=body.context,
        )
        ranking = await asyncio.get_running_loop().run_in_executor(self._scoring, self._scorer.rank, wanted)
        self._metrics.ranked(ranking.took_ms, len(body.candidates))
        if self._outbox is not None:
            self._outbox.offer(ranking)
        return _json(RankAnswer.of(ranking))

    async def _explain(self, request: Request) -> Response:
        body = decode_body(await _body(request), ExplainBody, _now_ms())
        event_ms = self._clock_ms() if body.event_ms is None else body.event_ms
        explain = self._scorer.explain
        items = await asyncio.get_running_loop().run_in_executor(self._scoring, explain, body.user, body.candidates, event_ms)
        history = self._scorer.histories.of(body.user, before_ms=event_ms)
        return _json({"user": body.user, "event_ms": event_ms, "history": history, "items": items})

    async def _users(self, request: Request) -> Response:
        return _json({"users": self._scorer.histories.some_users(min(max(_number(request, "n", 50), 0), _MAX_LISTED))})

    async def _items(self, request: Request) -> Response:
        catalogue = self._scorer.catalogue
        ids = request.query_params.getlist("ids")
        if ids:
            return _json({"items": [known for item in ids[:_MAX_LISTED] if (known := catalogue.get(item)) is not None]})
        n = min(max(_number(request, "recent", 50), 0), self._max_recent)
        before_ms = _number(request, "before_ms", -1)
        return _json({"items": catalogue.recent(n, before_ms if before_ms >= 0 else None)})

    async def _knowledge_one(self, request: Request) -> Response:
        subject = request.path_params["subject"]
        found = await asyncio.to_thread(self._knowledge_of, [subject])
        if subject in found:
            return _json(found[subject])
        return _refusal(
            404, f"subject {subject[:300]!r}", "one that has knowledge (item:ID or user:ID)", "wait, or look at another"
        )

    async def _knowledge_many(self, request: Request) -> Response:
        subjects = request.query_params.getlist("subject")[:_MAX_LISTED]
        return _json({"knowledge": await asyncio.to_thread(self._knowledge_of, subjects) if subjects else {}})

    async def _about_model(self, _request: Request) -> Response:
        bundle = self._scorer.holder.current
        model = {"version": bundle.version, "step": bundle.step, "backbone": bundle.manifest.backbone} if bundle else None
        about = {"simulated": False, "dataset": "", **self._about, "clock": self._clock}
        return _json({**about, "model": model, "live": self._metrics.live()})

    async def _healthz(self, _request: Request) -> Response:
        return _json({"alive": True})

    async def _readyz(self, _request: Request) -> Response:
        parts = {"model": self._scorer.holder.current is not None, **self._ready()}
        missing = [name for name, there in parts.items() if not there]
        headers = {"Retry-After": _RETRY_AFTER_S} if missing else {}
        return _json({"ready": not missing, "missing": missing, "parts": parts}, 503 if missing else 200, headers)

    async def _prometheus(self, _request: Request) -> Response:
        return Response(self._metrics.page(), media_type="text/plain; version=0.0.4")

    async def _static(self, request: Request) -> Response:
        content, media = self._page[request.url.path]
        return Response(content, media_type=media)

    async def _no_icon(self, _request: Request) -> Response:
        return Response(status_code=204)

    async def _invalid(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, RekiError)
        self._metrics.refused("invalid")
        return _refusal(422, error.got, error.wanted, error.todo)

    async def _unavailable(self, _request: Request, error: Exception) -> Response:
        assert isinstance(error, RekiError)
        self._metrics.refused("not_ready")
        return _refusal(503, error.got, error.wanted, error.todo, {"Retry-After": _RETRY_AFTER_S})


class _SafeHeaders:
    """Puts `_HEADERS` on every answer: item and user text is hostile, and the page must not load or run anything else."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_safe(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self._app(scope, receive, send_safe)


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise RankRequestError(f"more than {MAX_BODY_BYTES} bytes", wanted="less", todo="send fewer candidates")
    return bytes(body)


def _json(answer: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(answer), status, headers, "application/json")


def _refusal(status: int, got: str, wanted: str, todo: str, headers: Mapping[str, str] | None = None) -> Response:
    return _json({"error": {"got": got, "wanted": wanted, "todo": todo}}, status, headers)


def _number(request: Request, name: str, default: int) -> int:
    raw = request.query_params.get(name, str(default))
    if re.fullmatch(r"-?[0-9]{1,14}", raw) is None:
        raise RankRequestError(f"{name}={raw[:80]!r}", wanted="a whole number", todo="mend the address")
    return int(raw)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
