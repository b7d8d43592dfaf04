"""Asks a backend, the most urgent request first: an event loop in a thread of its own.

Requests wait in one queue by priority; of several about one subject only the last one waits. Each is taken out at the moment at
which the backend can send it (`KnowledgeBackend.ready`), so a backlog drains in the order of what is urgent then, not of what was
first. What could not be answered because the server is away goes back with its priority; a request that comes back again and
again while others are answered is given up, lest it takes a place for ever. Nothing here outlives the process: who asks keeps the
requests until they are answered.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import queue
import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from contracts.errors import RekiError, SettingsError

if TYPE_CHECKING:
    from concurrent.futures import Future

    from contracts.ports import KnowledgeBackend
    from contracts.records import Knowledge, KnowledgeRequest

log = logging.getLogger(__name__)

_END_S: Final = 5.0
_REST_S: Final = 0.05  # of a request that came back, doubled with each return
_MOST_REST_S: Final = 30.0
_MOST_PASSED_OVER: Final = 1_000  # entries of the queue that are nobody's newest, beside as many as are
MAX_RETURNS: Final = 10  # of one request to the queue, each with another one answered since the last


class Answer(NamedTuple):
    """What became of a request: knowledge, or why there is none."""

    request: KnowledgeRequest
    result: Knowledge | Exception


class _Waiting(NamedTuple):
    """An entry of the queue; one whose number is not its subject's newest is passed over."""

    minus_priority: float
    number: int
    subject: str


class Asking:
    """Asks a backend in the background. All methods may be called from any thread.

    Args:
        backend: Who is asked.
    """

    def __init__(self, backend: KnowledgeBackend) -> None:
        self._backend = backend
        self._running: asyncio.AbstractEventLoop | None = None
        self._queue: asyncio.PriorityQueue[_Waiting] = asyncio.PriorityQueue()
        self._newest: dict[str, tuple[int, KnowledgeRequest]] = {}  # what waits, by subject
        self._numbers = itertools.count()
        self._tasks: set[asyncio.Task[None]] = set()
        self._n_answered = 0
        self._returns: dict[str, tuple[int, int]] = {}  # by subject: how often it came back, and what was answered until then
        self._answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._dispatcher: Future[None] | None = None

    @property
    def n_waiting(self) -> int:
        """Requests not yet sent to the backend."""
        return len(self._newest)

    @property
    def n_under_way(self) -> int:
        """Requests that the backend works on."""
        return len(self._tasks)

    def start(self) -> None:
        """Begin to ask."""
        self._running = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._running.run_forever, name="asking", daemon=True)
        self._thread.start()
        self._dispatcher = asyncio.run_coroutine_threadsafe(self._dispatch(), self._loop)

    def ask(self, request: KnowledgeRequest) -> None:
        """Ask when its turn comes; replaces what waits for the same subject."""
        self._loop.call_soon_threadsafe(self._arrive, request)

    def forget(self, subject: str) -> None:
        """Ask no more about a subject; what is under way comes back all the same."""
        self._loop.call_soon_threadsafe(self._drop, subject)

    def answers(self) -> list[Answer]:
        """What came back since the last call, in the order in which it came.

        Raises:
            RuntimeError: The dispatcher died of something that nobody foresaw.
        """
        dispatcher = self._dispatcher
        if dispatcher is not None and dispatcher.done() and not dispatcher.cancelled():
            raise RuntimeError("nobody asks any more") from dispatcher.exception()
        found: list[Answer] = []
        while True:
            try:
                found.append(self._answers.get_nowait())
            except queue.Empty:
                return found

    def close(self) -> None:
        """Give up what is under way, and end the thread; harmless before the start."""
        if self._thread is None:
            return
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(timeout=_END_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=_END_S)
        self._loop.close()

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        if self._running is None:
            raise RuntimeError("start it first")
        return self._running

    def _arrive(self, request: KnowledgeRequest) -> None:
        try:
            kept = self._backend.known(request)
        except Exception:  # noqa: BLE001 - of a callback nobody would hear: `_ask` meets it again, and tells whoever asked
            kept = None
        if kept is not None:
            self._newest.pop(request.subject, None)
            self._answers.put(Answer(request, kept))
        else:
            self._put(request)

    def _drop(self, subject: str) -> None:
        self._newest.pop(subject, None)
        self._returns.pop(subject, None)

    def _put(self, request: KnowledgeRequest, after_s: float = 0.0) -> None:
        number = next(self._numbers)
        self._newest[request.subject] = number, request
        entry = _Waiting(-request.priority, number, request.subject)
        if after_s:
            self._loop.call_later(after_s, self._queue.put_nowait, entry)
        else:
            self._queue.put_nowait(entry)
        if self._queue.qsize() > _MOST_PASSED_OVER + 2 * len(self._newest):
            self._sweep()

    def _sweep(self) -> None:
        """Take out what will be passed over: with a server that is away nothing else would."""
        entries = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        for entry in entries:
            if self._is_newest(entry):
                self._queue.put_nowait(entry)

    def _is_newest(self, entry: _Waiting) -> bool:
        number, _ = self._newest.get(entry.subject, (-1, None))
        return number == entry.number

    async def _dispatch(self) -> None:
        while True:
            first = await self._queue.get()  # there is something to ask ...
            self._queue.put_nowait(first)
            await self._backend.ready()
            request = self._next()  # ... and what is most urgent by now is asked
            if request is None:
                continue
            task = asyncio.create_task(self._ask(request))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0)  # it takes its slot, so that `ready` knows

    def _next(self) -> KnowledgeRequest | None:
        while not self._queue.empty():
            entry = self._queue.get_nowait()
            if self._is_newest(entry):
                return self._newest.pop(entry.subject)[1]
        return None

    async def _ask(self, request: KnowledgeRequest) -> None:
        try:
            result: Knowledge | Exception = await self._backend.extract(request)
        except Exception as error:  # noqa: BLE001 it is told to whoever asked
            if self._comes_back(request, error):
                return
            result = error
        self._n_answered += 1
        self._returns.pop(request.subject, None)
        self._answers.put(Answer(request, result))

    def _comes_back(self, request: KnowledgeRequest, error: Exception) -> bool:
        """Whether a request waits again: the error is not its own."""
        if not (isinstance(error, SettingsError) or (isinstance(error, RekiError) and error.retriable)):
            return False
        n_returns, n_answered = self._returns.get(request.subject, (0, -1))
        if self._n_answered > n_answered:  # the server answers others
            n_returns, n_answered = n_returns + 1, self._n_answered
        if n_returns > MAX_RETURNS:
            return False
        self._returns[request.subject] = n_returns, n_answered
        log.warning("%s waits: %s", request.subject, error)
        if request.subject not in self._newest:  # else a newer one waits already
            self._put(request, min(_MOST_REST_S, _REST_S * 2**n_returns))  # else it would be the most urgent at once again
        return True

    async def _end(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._backend.aclose()
