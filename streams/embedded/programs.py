"""One supervised program, as plain facts: what is run, where it listens, how it is stopped."""

from __future__ import annotations

import errno
import http.client
import json
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from contracts.errors import RekiError

LOOPBACK = "127.0.0.1"
_ANSWER_MAX_BYTES = 10_000

Probe = Literal["port", "http"]
Answer = Literal["silent", "no model yet", "ready"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Listening:
    """A port that a program opens, with the setting that chose it."""

    port: int
    setting: str
    host: str = LOOPBACK


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """One supervised program.

    Attributes:
        name: As in `reki status` and in the log's file name.
        kind: Services start before roles and stop after them.
        command: Program and arguments.
        listens: Ports it opens; the first one tells whether it is ready.
        probe: ``port``: ready when the port accepts; ``http``: when ``GET /readyz`` answers 200.
        environment: Set on top of the supervisor's environment.
        stop_signal: What ends it cleanly.
        stop_s: Grace before it is killed.
    """

    name: str
    kind: Literal["services", "roles"]
    command: tuple[str, ...]
    listens: tuple[Listening, ...]
    probe: Probe
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_signal: Literal["TERM", "INT"] = "TERM"
    stop_s: int = 10

    @property
    def port(self) -> int:
        """The port that tells whether it is ready."""
        return self.listens[0].port

    def answer(self, timeout_s: float = 2.0) -> Answer:
        """What it says now."""
        return answer(self.probe, self.port, self.listens[0].host, timeout_s)


class PortTakenError(RekiError):
    """Something else listens where a program of ours is to listen."""


def accepts(port: int, host: str = LOOPBACK, timeout_s: float = 1.0) -> bool:
    """Whether a TCP connection to the port is accepted."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def answer(probe: Probe, port: int, host: str = LOOPBACK, timeout_s: float = 2.0) -> Answer:
    """What a program on this port says now. A ranker that lacks nothing but its first model is up: only `reki train` helps it."""
    if probe == "port":
        return "ready" if accepts(port, host, timeout_s) else "silent"
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        if response.status == http.HTTPStatus.OK:
            return "ready"
        said = json.loads(response.read(_ANSWER_MAX_BYTES))
        return "no model yet" if isinstance(said, dict) and said.get("missing") == ["model"] else "silent"
    except (OSError, http.client.HTTPException, ValueError):
        return "silent"
    finally:
        connection.close()


def reachable(host: str) -> str:
    """The address under which this machine reaches a server that listens on ``host``."""
    return LOOPBACK if host in {"", "0.0.0.0", "::", "localhost"} else host  # noqa: S104 - compared, not bound


def check_free(programs: Iterable[Program]) -> None:
    """Find out before anything starts that every port is free.

    Raises:
        PortTakenError: With every taken port and the setting that names it.
    """
    taken = [where for program in programs for where in program.listens if not is_free(where.port, where.host)]
    wanted: dict[tuple[str, int], list[str]] = {}
    for where in (where for program in programs for where in program.listens):
        wanted.setdefault((where.host, where.port), []).append(where.setting)
    twice = {port: names for (_, port), names in wanted.items() if len(names) > 1}
    if twice:
        got = "; ".join(f"port {port} for {' and '.join(names)}" for port, names in twice.items())
        raise PortTakenError(got, wanted="a port of its own for each", todo="change one of these settings")
    if taken:
        got = ", ".join(f"port {where.port} on {where.host} (setting {where.setting}) already taken" for where in taken)
        raise PortTakenError(got, wanted="free ports", todo="stop what listens there, or change the setting; nothing was started")


def free_port(n_in_a_row: int = 1) -> int:
    """The first of ``n_in_a_row`` ports that are free on loopback now (for tests and throw-away homes)."""
    while True:
        with socket.socket() as probe:
            probe.bind((LOOPBACK, 0))
            first = int(probe.getsockname()[1])
        if first + n_in_a_row < 65_536 and all(map(is_free, range(first, first + n_in_a_row))):  # noqa: PLR2004 - ports end there
            return first


def is_free(port: int, host: str = LOOPBACK) -> bool:
    """Whether nothing listens on a port."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections in TIME_WAIT do not count
            probe.bind((host, port))
            return True
    except OSError as error:
        return error.errno != errno.EADDRINUSE
