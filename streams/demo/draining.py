"""Waiting until the roles have done what was sent: no group is behind, and stays so."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from contracts.errors import UnavailableError
from contracts.settings import Settings
from contracts.topics import ENCODINGS, IMPORTED, INTERACTIONS, ITEMS, KNOWLEDGE, REQUESTS, Topic
from streams.topics import lag

SLOW_PATH: Final[dict[str, tuple[Topic, ...]]] = {
    "plan": (ITEMS, INTERACTIONS),
    "extract": (REQUESTS, IMPORTED),
    "encode": (KNOWLEDGE,),
    "augment": (ENCODINGS,),
}
"""What each role of the slow path reads, in the order of the path."""

_STALLED_S: Final = 300.0
_AGAIN_S: Final = 1.5  # more than a commit interval: a batch under way is not yet committed, so it counts as behind


def behind(settings: Settings) -> dict[str, dict[str, int]]:
    """Records not yet done, by role and topic."""
    return {role: lag(settings, role, topics) for role, topics in SLOW_PATH.items()}


def total(lags: dict[str, dict[str, int]]) -> int:
    """All records not yet done."""
    return sum(n for topics in lags.values() for n in topics.values())


class Drain:
    """Waits for the slow path.

    Args:
        read: What is behind, by role and topic.
        clock: Seconds, monotonic.
        sleep: Waits seconds.
    """

    def __init__(
        self,
        read: Callable[[], dict[str, dict[str, int]]],
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._read = read
        self._clock = clock
        self._sleep = sleep

    def until(self, at_most: int = 0, report: Callable[[int], None] = lambda _: None) -> None:
        """Return when at most so many records are behind; for 0 twice in a row, in the path's order: nothing is under way then.

        Args:
            at_most: A bound above 0 is back-pressure: return as soon as it holds.
            report: Told how many records are behind.

        Raises:
            UnavailableError: Nothing moved for five minutes.
        """
        calm, last, moved_s = 0, -1, self._clock()
        while True:
            lags = self._read()
            left = total(lags)
            report(left)
            calm = calm + 1 if left <= at_most else 0
            if calm >= (1 if at_most else 2):
                return
            if left != last:
                last, moved_s = left, self._clock()
            elif left and self._clock() - moved_s > _STALLED_S:
                stuck = ", ".join(f"{role} {n} of {name}" for role, by in lags.items() for name, n in by.items() if n)
                raise UnavailableError(
                    f"no progress for {_STALLED_S:.0f} s ({stuck})", wanted="roles at work", todo="see their logs"
                )
            self._sleep(_AGAIN_S)
