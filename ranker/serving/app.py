"""The ranker over HTTP, and its page. Built by a function, so that a test or a benchmark gets one with its own parts.

Scoring runs in a few threads of its own: a read on the vector store may take ``rank.miss_timeout_s``, and the event loop must not wait for it.
"""

from __future__ import annotations

import asyncio
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
_PAGE: Final = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def build_app(
    scorer: Scorer,
    knowledge_of: Callable[[Sequence[str]], Mapping[str, Knowledge]],
    ready: Callable[[], Mapping[str, bool]],
    publish: Callable[[Ranking], None] | None,
    settings: Settings,
    about: Mapping[str, object] | None = None,
) -> FastAPI:
    """The app.

    Args:
        scorer: Answers rankings.
        knowledge_of: Knowledge by subject, what there is; called in a thread, may block.
        ready: What must be there before requests are answered, by name; a false one makes ``/readyz`` answer 503. Called in the
            event loop, must not block. The model is looked at in any case.
        publish: Takes every ranking that was answered; called in a thread, may block. None: rankings go nowhere.
        settings: Section ``rank`` is read.
        about: What ``/v1/about`` says besides the model, for example ``{"simulated": True, "dataset": "news"}``. Read at each request.
    """
    return _Serving(scorer, knowledge_of, ready, publish, settings, about or {}).app()
