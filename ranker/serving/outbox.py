"""Rankings on their way to the log: off the path of the answer, bounded, counted where they do not get through."""

from __future__ import annotations

import logging
import queue
import threading
from typing import TYPE_CHECKING

from contracts.errors import UnavailableError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from contracts.records import Ranking

_log = logging.getLogger(__name__)
MAX_WAITING = 10_000  # rankings; about 100 MB at 200 items each
_AT_ONCE = 500
_AGAIN_S = 1.0


class Outbox:
    """Hands rankings to ``publish`` in a thread of its own, in order, as many at once as wait.

    Args:
        publish: Returns when the rankings are safe; may raise `UnavailableError`, whereupon they are tried again.
        max_waiting: Rankings that may wait; beyond it new ones are dropped and counted: an answer never waits for the log.
    """

    def __init__(self, publish: Callable[[Sequence[Ranking]], None], max_waiting: int = MAX_WAITING) -> None:
        self.dropped = 0
        self._publish = publish
        self._waiting: queue.Queue[Ranking | None] = queue.Queue(max_waiting)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rankings-outbox", daemon=True)

    def start(self) -> None:
        """Begin to publish."""
        self._thread.start()

    def offer(self, ranking: Ranking) -> None:
        """Leave a ranking; returns at once. Any thread."""
        try:
            self._waiting.put_nowait(ranking)
        except queue.Full:
            self.dropped += 1

    def close(self, timeout_s: float = 5.0) -> None:
        """Publish what waits, for at most ``timeout_s``, then stop."""
        if self._thread.is_alive():
            try:
                self._waiting.put(None, timeout=timeout_s)
            except queue.Full:
                self._stop.set()
            self._thread.join(timeout_s)
        self._stop.set()

    def _run(self) -> None:
        ended = False
        while not ended and not self._stop.is_set():
            batch = [self._waiting.get()]
            while len(batch) < _AT_ONCE and not self._waiting.empty():
                batch.append(self._waiting.get_nowait())
            rankings = [one for one in batch if one is not None]
            ended = len(rankings) < len(batch)  # None: `close` was called
            if rankings:
                self._deliver(rankings)

    def _deliver(self, rankings: list[Ranking]) -> None:
        """Return when these rankings are done with, or the outbox is."""
        while not self._stop.is_set():
            try:
                self._publish(rankings)
            except UnavailableError as error:
                _log.warning("%d rankings cannot be published yet: %s", len(rankings), error)
                self._stop.wait(_AGAIN_S)
            except Exception:  # noqa: BLE001 - last resort of a thread: find the one, which is lost and counted; the others pass
                if len(rankings) == 1:
                    self.dropped += 1
                    _log.exception("ranking %s could not be published", rankings[0].ranking)
                    return
                for one in rankings:
                    self._deliver([one])
                return
            else:
                return
