"""/healthz, /readyz and /metrics of a process that has no other HTTP server, on loopback."""

from __future__ import annotations

import threading
from collections.abc import Callable

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from contracts.errors import UnavailableError

Missing = Callable[[], dict[str, str]]


def status_app(missing: Missing) -> Starlette:
    """The three pages. ``missing`` says, by role, what is not there yet; empty means ready."""

    async def healthz(_: Request) -> Response:
        return JSONResponse({"ok": True})

    async def readyz(_: Request) -> Response:
        waiting = missing()
        return JSONResponse({"ready": not waiting, "missing": waiting}, status_code=503 if waiting else 200)

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/readyz", readyz), Route("/metrics", metrics)])


class HttpThread:
    """uvicorn in a thread of its own, so that a busy stage does not slow its answers down and the other way round.

    Args:
        app: An ASGI app.
        host: Address to listen on.
        port: Port to listen on.
    """

    def __init__(self, app: Callable[..., object], host: str, port: int) -> None:
        self._address = f"{host}:{port}"
        self._server = uvicorn.Server(
            uvicorn.Config(app, host=host, port=port, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        )
        self._thread = threading.Thread(target=self._server.run, name=f"http-{port}", daemon=True)

    def start(self) -> None:
        """Start listening.

        Raises:
            UnavailableError: The port is taken.
        """
        self._thread.start()
        while not self._server.started:
            self._thread.join(timeout=0.02)
            if not self._thread.is_alive():  # its own message went to the log
                raise UnavailableError(
                    f"no server on {self._address}", wanted="a free port", todo="stop what listens there, or change the setting"
                )

    def stop(self) -> None:
        """Stop listening and wait for the thread."""
        self._server.should_exit = True
        self._thread.join(timeout=5)
