"""Tokens per minute and per day: the only importer of `limits`.

A request's tokens are known only afterwards, and `limits` cannot give anything back. So before a request its estimate is only
*reserved* here, in memory, and what the server counted afterwards goes into `limits`. What is spent plus what is reserved stays
within the budget: it is exceeded only by as much as what is under way turns out longer than estimated, and the next requests
wait until that is paid. What cannot be known (no answer in time, given up half-way, a server that does not count) is spent as
estimated.

A minute is a sliding window (`limits`' counter of two windows, the older one by its share), a day the UTC day. The day's
spending is kept on disk and read again at the start; a kill loses nothing that was answered.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from limits import RateLimitItemPerDay, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter

if TYPE_CHECKING:
    from contracts.settings import Extract
    from extractor.on_disk import JsonOnDisk

CHARS_PER_TOKEN: Final = 4  # of English text, about; a prompt in other scripts is under-estimated, and settled afterwards


class TokenBudget:
    """What may still be spent. ``last_left`` is what `left` said last, for who watches from another thread.

    Args:
        settings: ``tokens_per_minute`` and ``tokens_per_day``; 0 is no bound.
        spending: Where the day's spending is kept.
    """

    def __init__(self, settings: Extract, spending: JsonOnDisk | None = None) -> None:
        storage = MemoryStorage()
        self._minute = RateLimitItemPerMinute(settings.tokens_per_minute) if settings.tokens_per_minute else None
        self._day = RateLimitItemPerDay(settings.tokens_per_day) if settings.tokens_per_day else None
        self._minutes = SlidingWindowCounterRateLimiter(storage)
        self._days = FixedWindowRateLimiter(storage)
        self._spending = spending
        self.last_left: dict[str, int] = {}
        self._reserved = 0
        self._owed = 0  # spent, but beyond the minute: paid into the window as room comes
        self._date = ""
        self._spent_today = 0

    def left(self) -> dict[str, int]:
        """Tokens that may be reserved now, by ``minute`` and ``day``; a window without a bound is absent."""
        left = {}
        if self._minute is not None:
            self._pay()
            left["minute"] = self._minutes.get_window_stats(self._minute).remaining - self._owed - self._reserved
        if self._day is not None:
            left["day"] = self._days.get_window_stats(self._day, self._today()).remaining - self._reserved
        self.last_left = left
        return left

    def allows(self, n_tokens: int) -> bool:
        """Whether so many may be reserved now. More than a whole budget is allowed where nothing of it is used."""
        bounds = {"minute": self._minute, "day": self._day}
        return all(
            left >= min(n_tokens, item.amount) for window, left in self.left().items() if (item := bounds[window]) is not None
        )

    def reserve(self, n_tokens: int) -> None:
        """A request with this estimate goes out."""
        self._reserved += n_tokens

    def settle(self, n_reserved: int, n_spent: int) -> None:
        """It is over: the estimate is free again, and this was spent."""
        self._reserved -= n_reserved
        if not n_spent:
            return
        if self._minute is not None:
            self._owed += n_spent
            self._pay()
        if self._day is not None:
            today = self._today()
            self._days.hit(self._day, today, cost=n_spent)
            self._spent_today += n_spent
            if self._spending is not None:
                self._spending.put(today, self._spent_today)

    def close(self) -> None:
        """Let go of the disk."""
        if self._spending is not None:
            self._spending.close()

    def _pay(self) -> None:
        if self._owed and self._minute is not None:
            cost = min(self._owed, self._minutes.get_window_stats(self._minute).remaining)
            if cost > 0 and self._minutes.hit(self._minute, cost=cost):
                self._owed -= cost

    def _today(self) -> str:
        """The UTC date; what was spent on it before this start is read when it is first met."""
        date = time.strftime("%Y-%m-%d", time.gmtime(time.time()))
        if date != self._date and self._day is not None:
            self._date = date
            before = self._spending.get(date) if self._spending is not None else None
            self._spent_today = before if isinstance(before, int) and before > 0 else 0
            if self._spent_today:
                self._days.hit(self._day, date, cost=self._spent_today)
        return date
