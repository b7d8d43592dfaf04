"""A role's loop as a service of the process: it ends with the process, and the process ends with it."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Protocol

import mode

log = logging.getLogger(__name__)


class Loop(Protocol):
    """Something that runs until told to stop. An exception that leaves `run` ends the process; its supervisor starts it again."""

    name: str

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set."""
        ...

    def missing(self) -> str:
        """What is not there yet, in words; empty when ready."""
        ...


class LoopService(mode.Service):
    """Runs a `Loop` in a thread. A crash of the loop crashes the worker, so that the supervisor sees it."""

    logger = logging.getLogger("mode.loops")

    def __init__(self, loop_: Loop) -> None:
        super().__init__()
        self._role = loop_
        self._stop_loop = threading.Event()
        self._done = asyncio.Event()

    async def on_start(self) -> None:
        """Start the thread."""
        running = asyncio.get_running_loop()

        def work() -> None:
            error: BaseException | None = None
            try:
                self._role.run(self._stop_loop)
            except Exception as caught:  # noqa: BLE001 it is raised again in the worker's loop
                error = caught
            running.call_soon_threadsafe(self._finished, error)

        threading.Thread(target=work, name=self._role.name, daemon=True).start()

    def _finished(self, error: BaseException | None) -> None:
        self._done.set()
        if error is not None and not self._stop_loop.is_set():
            log.error("%s ended: %s", self._role.name, error, exc_info=error)
            self.add_future(self.crash(error))

    async def on_stop(self) -> None:
        """Tell the loop to stop and wait a little."""
        self._stop_loop.set()
        try:
            await asyncio.wait_for(self._done.wait(), timeout=8)
        except TimeoutError:
            log.warning("%s did not stop in time; what it had not committed is done again", self._role.name)
