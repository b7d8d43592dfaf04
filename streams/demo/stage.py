"""The embedded default as the demo sees it: started without a model, which everything but ranking and training does not need."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final, Self

import httpx

from contracts.errors import UnavailableError
from contracts.settings import Settings
from streams.embedded.overview import overview
from streams.embedded.processes import EmbeddedDefault
from streams.embedded.supervision import Running

_READY = re.compile(r"^(?P<name>\S+): ready on port \d+ after (?P<seconds>[\d.]+) s$")
_START_S: Final = 120.0
_VERSION_S: Final = 300.0


class Stage:
    """Everything on this machine, for one demo.

    Args:
        settings: Of the demo.
        report: Told of progress, one line each.
    """

    def __init__(self, settings: Settings, report: Callable[[str], None]) -> None:
        self._report = report
        self.start_s: dict[str, float] = {}
        self._everything = EmbeddedDefault(settings, report=self._note)
        self.settings = self._everything.settings
        self.page = self._everything.page

    def __enter__(self) -> Self:
        try:
            self._everything.start()
            self._await_roles()
        except BaseException:  # also Ctrl-C: what was started must not stay
            self._everything.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._everything.stop()

    def alive(self) -> bool:
        """Whether the supervisor runs."""
        return self._everything.alive()

    def processes(self) -> list[dict[str, Any]]:
        """State, memory and port of every process (see `streams.embedded.overview`)."""
        running = Running.read(self.settings.home)
        return [] if running is None else overview(self.settings.home, running)

    def await_version(self, version: int) -> None:
        """Return when the ranker answers with this version.

        Raises:
            UnavailableError: It does not in five minutes.
        """
        deadline = time.monotonic() + _VERSION_S
        address = f"{self.page}v1/about"
        said = ""
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(address, timeout=5)
                said = answer.text
                model = answer.json().get("model") if answer.status_code == httpx.codes.OK else None
                if model and model["version"] >= version:
                    return
            except (httpx.HTTPError, ValueError) as error:
                said = str(error)
            time.sleep(0.25)
        raise UnavailableError(f"{address} says {said[:300]}", wanted=f"version {version} in force", todo="see logs/rank.log")

    def _note(self, line: str) -> None:
        if found := _READY.match(line):
            self.start_s[found["name"]] = float(found["seconds"])
        self._report(line)

    def _await_roles(self) -> None:
        begun = time.monotonic()
        waiting = {row["name"]: row["port"] for row in self.processes() if row["kind"] == "roles"}
        while waiting:
            for name, port in list(waiting.items()):
                if _is_up(name, port):
                    del waiting[name]
                    self.start_s[name] = round(time.monotonic() - begun, 1)
                    self._report(f"{name}: up on port {port} after {self.start_s[name]:.1f} s")
            if waiting and time.monotonic() - begun > _START_S:
                logs = self.settings.home / "logs"
                raise UnavailableError(f"no answer from {', '.join(waiting)}", wanted="all roles up", todo=f"see {logs}")
            time.sleep(0.1 if waiting else 0)


def _is_up(name: str, port: int) -> bool:
    """Whether a process answers: the ranker is up before it is ready, which needs a model version."""
    page = "healthz" if name == "rank" else "readyz"
    try:
        return httpx.get(f"http://127.0.0.1:{port}/{page}", timeout=2).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False
