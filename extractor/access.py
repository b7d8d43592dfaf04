"""When a request may go out to the model server: a place within the limit, a server that answers, no pause, tokens left.

One `Access` stands in front of one server, in one event loop. A request holds a *place* from its first try to its last, also
while it rests between two, so that what waits for better times stays in the caller's queue, in the caller's order. Each try in
it goes through `Place.sending` and says there how it went:

    async with access.place() as place:                 # raises at once where the server is left alone
        async with place.sending(n_tokens) as one_try:
            ... one HTTP request ...
            one_try.answered(n_tokens_spent)             # or refused(), failed(); said nothing: given up half-way
        await place.rest(seconds)                        # before the next try

`extractor.concurrency` finds the limit, `extractor.budget` counts the tokens, `pybreaker` counts the failures in a row.
Pybreaker knows nothing of asyncio, so outcomes are told to it when they are there, and one trial at a time is seen to here.
"""

# ruff: noqa: SLF001 - `Access`, `Place` and `Try` are one thing: what they share is nobody else's business

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Final, Literal

import pybreaker

from contracts.errors import UnavailableError
from extractor.budget import TokenBudget
from extractor.concurrency import AdaptiveLimit

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from contracts.settings import Extract
    from extractor.on_disk import JsonOnDisk

MAX_PAUSE_S: Final = 60.0  # of Retry-After: beyond it the caller's own retry takes over
BUDGET_LOOK_S: Final = 0.5  # how often a used-up budget is looked at: tokens come back little by little
_TYPICAL_PROMPT_TOKENS: Final = 600  # of a request before the first was sent, for `ready`

WaitsFor = Literal["nothing", "breaker", "pause", "slot", "budget"]
Waits = tuple[WaitsFor, float]
_GO: Final[Waits] = ("nothing", 0.0)


class _FailedError(Exception):
    """What pybreaker is told of a failure."""


class Access:
    """Concurrency, circuit breaker, pauses and budgets of one model server.

    ``waits_for`` is what `ready` waits for now; ``n_places`` and ``n_sent`` count requests and tries under way.

    Args:
        settings: All bounds.
        spending: Where the day's tokens are kept over a restart.
    """

    def __init__(self, settings: Extract, spending: JsonOnDisk | None = None) -> None:
        self.settings = settings
        self.concurrency = AdaptiveLimit(settings.concurrency)
        self.budget = TokenBudget(settings, spending)
        self.waits_for: WaitsFor = "nothing"
        self.n_places = 0
        self.n_sent = 0
        self._typical_tokens = _TYPICAL_PROMPT_TOKENS + settings.max_answer_tokens
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=settings.breaker_failures, reset_timeout=settings.breaker_s, throw_new_error_on_trip=False
        )
        self._open_until_s = 0.0
        self._trial: Place | None = None
        self._paused_until_s = 0.0
        self._changed = asyncio.Event()
        self._places = asyncio.Lock()  # whoever came first stands first, for a place
        self._tries = asyncio.Lock()  # and for a try

    @property
    def breaker(self) -> str:
        """``closed``, ``open`` (the server is left alone) or ``half-open`` (one request tries it)."""
        return self._breaker.current_state

    async def ready(self) -> None:
        """Return when a request would be sent at once. Nothing is reserved: ask for a place before anybody else can."""

        def waits() -> Waits:
            found = self._waits(self._typical_tokens)
            self.waits_for = found[0]
            return found

        try:
            await self._until(waits)
        finally:
            self.waits_for = "nothing"

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place among the requests under way, when there is one.

        Raises:
            UnavailableError: The server is left alone, also while waiting.
        """
        place = Place(self)
        async with self._places:
            await self._until(lambda: ("slot", math.inf) if self.n_places >= self.concurrency.limit else _GO, self._refuse)
            self.n_places += 1
            if self.breaker != pybreaker.STATE_CLOSED:  # and `_refuse` let it pass: this one tries
                self._breaker.half_open()
                self._trial = place
        try:
            yield place
        finally:
            self.n_places -= 1
            if self._trial is place:
                self._trial = None
            self._pulse()

    def _waits(self, n_tokens: int) -> Waits:
        """What keeps a new request from being sent, and for how long at most: look again then, or when something changed."""
        if (wait_s := self._alone_s()) > 0:
            return "breaker", wait_s
        found = self._try_waits(n_tokens)
        return ("slot", math.inf) if found is _GO and self.n_places >= self.concurrency.limit else found

    def _try_waits(self, n_tokens: int) -> Waits:
        if (wait_s := self._paused_until_s - _now_s()) > 0:
            return "pause", wait_s
        if not self.budget.allows(n_tokens):
            return "budget", BUDGET_LOOK_S
        return ("slot", math.inf) if self.n_sent >= self.concurrency.limit else _GO

    def _alone_s(self) -> float:
        """How long the server is still left alone, for a request that comes now; infinite while another one tries."""
        if self.breaker == pybreaker.STATE_CLOSED:
            return 0.0
        return math.inf if self._trial is not None else self._open_until_s - _now_s()

    def _refuse(self, place: Place | None = None) -> None:
        if (place is None or self._trial is not place) and self._alone_s() > 0:
            raise UnavailableError(
                f"{self.settings.breaker_failures} failures in a row from {self.settings.base_url}",
                wanted="an answer of the model server",
                todo=f"start it or check extract.base_url; it is tried again every {self.settings.breaker_s:g} s, none is lost",
            )

    async def _until(self, waits: Callable[[], Waits], refuse: Callable[[], None] = lambda: None) -> None:
        while True:
            refuse()
            found = waits()
            if found is _GO:
                return
            await self._change(found[1])

    async def _change(self, at_most_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(at_most_s if at_most_s < math.inf else None):
                await self._changed.wait()

    def _pulse(self) -> None:
        """Wake everybody who waits for a change."""
        self._changed.set()
        self._changed.clear()

    def _tell(self, place: Place, *, failed: bool) -> None:
        """An outcome. What a request says that was sent before the breaker opened is no news while it is open."""
        if self.breaker != pybreaker.STATE_CLOSED and self._trial is not place:
            return
        if not failed:
            self._breaker.call(lambda: None)
        else:
            with contextlib.suppress(_FailedError):
                self._breaker.call(_fail)
        if self.breaker == pybreaker.STATE_OPEN:
            self._open_until_s = _now_s() + self.settings.breaker_s
        if self._trial is place:
            self._trial = None

    def _pause(self, wait_s: float) -> None:
        self._paused_until_s = max(self._paused_until_s, _now_s() + min(MAX_PAUSE_S, wait_s))


class Place:
    """One request's place among those under way. Made by `Access.place`."""

    def __init__(self, access: Access) -> None:
        self._access = access

    @contextlib.asynccontextmanager
    async def sending(self, n_tokens: int) -> AsyncIterator[Try]:
        """One try, when it may go out. What is not said about it in the end counts as given up half-way.

        Args:
            n_tokens: Estimate of what it takes, prompt and answer.

        Raises:
            UnavailableError: The server is left alone by now.
        """
        access = self._access
        async with access._tries:
            await access._until(lambda: access._try_waits(n_tokens), lambda: access._refuse(self))
            one_try = Try(access, self, n_tokens)
        try:
            yield one_try
        finally:
            one_try.end()

    async def rest(self, seconds: float) -> None:
        """Sleep, unless the server is left alone meanwhile.

        Raises:
            UnavailableError: It is.
        """
        access, until_s = self._access, _now_s() + seconds
        access._refuse(self)
        while (left_s := until_s - _now_s()) > 0:
            await access._change(left_s)
            access._refuse(self)


class Try:
    """One HTTP request under way. Made by `Place.sending`."""

    def __init__(self, access: Access, place: Place, n_tokens: int) -> None:
        self._access, self._place, self._n_tokens = access, place, n_tokens
        self._epoch, self._sent_s = access.concurrency.epoch, _now_s()
        self._n_spent = n_tokens
        access.n_sent += 1
        access.concurrency.sent(access.n_sent)
        access.budget.reserve(n_tokens)
        # of the largest of late, so that what `ready` lets through need not wait for tokens with a place in its hands
        access._typical_tokens = max(n_tokens, access._typical_tokens * 9 // 10)

    def answered(self, n_spent: int | None) -> None:
        """The server did what was asked. ``n_spent``: prompt and answer as it counted them; None where it did not."""
        self._n_spent = self._n_tokens if n_spent is None else n_spent
        self._access.concurrency.answered(_now_s() - self._sent_s, epoch=self._epoch, n_under_way=self._access.n_sent - 1)
        self._access._tell(self._place, failed=False)

    def alive(self) -> None:
        """The server answered, with something about this very request: it says nothing of its speed, and cost nothing."""
        self._n_spent = 0
        self._access._tell(self._place, failed=False)

    def refused(self, retry_after_s: float | None, *, failed: bool) -> None:
        """The server has too much to do (429, 503, 504). ``retry_after_s`` holds everybody; ``failed``: the breaker counts it."""
        self._n_spent = 0
        self._access.concurrency.refused(epoch=self._epoch)
        if retry_after_s is not None:
            self._access._pause(retry_after_s)
        self._access._tell(self._place, failed=failed)

    def failed(self, retry_after_s: float | None = None) -> None:
        """No connection, another 5xx, a refused key or model."""
        self._n_spent = 0
        if retry_after_s is not None:
            self._access._pause(retry_after_s)
        self._access._tell(self._place, failed=True)

    def timed_out(self) -> None:
        """No answer in time; whether its tokens were spent is not known, so they are."""
        self._access.concurrency.refused(epoch=self._epoch)
        self._access._tell(self._place, failed=True)

    def end(self) -> None:
        """It is over, however it went."""
        self._access.n_sent -= 1
        self._access.budget.settle(self._n_tokens, self._n_spent)
        self._access._pulse()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _fail() -> None:
    raise _FailedError
