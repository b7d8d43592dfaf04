"""Asks the ranker over HTTP, as a site would, and measures what a site would see."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import httpx

from contracts.errors import UnavailableError
from streams.demo.plays import Answer, Ask

_GIVE_UP_S: Final = 120.0
_PAUSE_S: Final = 0.2


class Asking:
    """One client of one ranker. A request that fails is asked again under the same id, so it stays one ranking.

    Args:
        client: With the ranker's address as base and a time-out.
        before: Called before each request: what was sent so far must be acknowledged.
        clock: Seconds, monotonic.
        sleep: Waits seconds.
    """

    def __init__(
        self,
        client: httpx.Client,
        before: Callable[[], None],
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._client = client
        self._before = before
        self._clock = clock
        self._sleep = sleep
        self.took_ms: list[float] = []
        self.n_retried = 0

    def __call__(self, ask: Ask) -> Answer:
        """The ranking.

        Raises:
            UnavailableError: No answer in two minutes, or one that says the request is wrong.
        """
        self._before()
        name = f"demo-{len(self.took_ms)}-{ask.user}"[:256]
        request = {"request": name, "user": ask.user, "candidates": ask.candidates, "k": ask.k, "event_ms": ask.event_ms}
        give_up_s = self._clock() + _GIVE_UP_S
        while True:
            start_s = self._clock()
            said = ""
            try:
                answer = self._client.post("/v1/rank", json=request)
                if answer.status_code == httpx.codes.OK:
                    self.took_ms.append((self._clock() - start_s) * 1000)
                    ranking = answer.json()
                    return Answer(ranking=ranking["ranking"], items=tuple(item["item"] for item in ranking["items"]))
                said = f"HTTP {answer.status_code} {answer.text[:300]}"
                if answer.is_client_error:
                    raise UnavailableError(said, wanted="a ranking", todo="see logs/rank.log")
            except httpx.HTTPError as error:
                said = f"{type(error).__name__}: {error}"
            if self._clock() > give_up_s:
                raise UnavailableError(said, wanted="a ranking", todo="see logs/rank.log")
            self.n_retried += 1
            self._sleep(_PAUSE_S)
