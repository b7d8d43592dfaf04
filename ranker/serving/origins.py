"""Which web pages may use the ranker: its own. It asks for no password, so without this any page in a user's browser could.

Two ways are closed. A foreign name that resolves to this machine (DNS rebinding) makes a browser take our answers for that
page's own: the Host header must be a name of ours. A foreign page may also post blindly, since a browser asks only before it
shows the answer: the Origin header of a request that is no mere read must be the host that is asked. Programs send no Origin.
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Receive, Scope, Send

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_EVERYWHERE: Final = frozenset({"", "0.0.0.0", "::"})  # noqa: S104 - compared, not bound
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_SHOWN_CHARS: Final = 300


def guarded(app: FastAPI, host: str = "127.0.0.1") -> FastAPI:
    """The same app behind `OwnOrigin`.

    Args:
        app: The app.
        host: Where it listens (``rank.host``).
    """
    app.add_middleware(OwnOrigin, host=host)
    return app


class OwnOrigin:
    """Refuses (403) requests under a foreign name, and posts of foreign pages. Ports do not matter: they may be forwarded.

    Starlette's TrustedHostMiddleware is not enough: on a server that listens everywhere any address is ours, and only names can
    be rebound.

    Args:
        app: What is guarded.
        host: Where it listens: its name is accepted beside those of loopback and the machine's own. Where that is everywhere,
            every address is accepted too.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1") -> None:
        self._app = app
        self._names = _LOOPBACK | {host.strip("[]").lower(), socket.gethostname().lower()}
        self._everywhere = host in _EVERYWHERE

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or refuse it."""
        refusal = self._refusal(scope["method"], Headers(scope=scope)) if scope["type"] == "http" else None
        await (refusal or self._app)(scope, receive, send)

    def _refusal(self, method: str, headers: Headers) -> Response | None:
        host = headers.get("host", "")
        asked = _name(f"//{host}")
        if asked is None or not self._ours(asked):
            todo = "use one of these; behind a proxy, let it send Host and Origin under one of them"
            return _refuse(f"Host {host[:_SHOWN_CHARS]!r}", f"a name of this server: {', '.join(sorted(self._names))}", todo)
        origin = headers.get("origin")
        if method not in _READS and origin is not None and _name(origin) != asked:
            todo = "use this server's own page, or a program"
            return _refuse(f"a {method} of a page of {origin[:_SHOWN_CHARS]!r}", f"one of http://{host[:_SHOWN_CHARS]}", todo)
        return None

    def _ours(self, name: str) -> bool:
        return name in self._names or (self._everywhere and _is_address(name))


def _name(address: str) -> str | None:
    """The host in an address, without port and brackets; None where there is none (also for the Origin ``null``)."""
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _refuse(got: str, wanted: str, todo: str) -> Response:
    body = msgspec.json.encode({"error": {"got": got, "wanted": wanted, "todo": todo}})
    return Response(body, 403, {"X-Content-Type-Options": "nosniff"}, "application/json")
