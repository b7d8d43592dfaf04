"""How many requests may be under way at once: found out from what the server does, never above the setting.

Additive increase, multiplicative decrease (Chiu and Jain 1989, as TCP does it in RFC 5681). A round is as many answers as the
limit: with every round that used the limit it doubles at first, and grows by one after the first trouble; it halves where the
server says that it has too much, and shrinks by a fifth where a round took more than twice as long as the best one of late.

Twice, because of Little's law: what is under way = throughput x latency. Where latency has doubled and the server is no faster,
at least half of what is under way only waits there, so fewer would be answered as fast. A server that batches (vLLM) answers
more per second as more comes in at nearly the same latency, until its batch is full: there latency starts to climb. TCP Vegas
(Brakmo and Peterson 1995) and Envoy's adaptive concurrency filter compare with the best latency in the same way. Means over a
whole round are compared, not single answers, since one answer may be many times as long as another.

The best latency is forgotten after `_ROUNDS` rounds, and at once where one request alone still takes long: then the server, or
what it is asked, has changed. A server that is overloaded all the time is thus slowly mistaken for a slow one, and the limit
creeps up to the setting, which is the bound in any case.
"""

from __future__ import annotations

from collections import deque
from typing import Final

START: Final = 8  # what any server holds; more where the setting is more than twice that
_HALVE: Final = 0.5
_SHRINK: Final = 0.8
_SLOW: Final = 2.0  # times the best mean latency; see above
_NOISE_S: Final = 0.1  # a difference below is no queue: it is this machine, the network, the length of an answer
_MIN_ROUND: Final = 8  # answers; fewer have no mean worth comparing
_ROUNDS: Final = 100


class AdaptiveLimit:
    """The limit, told of everything that is sent and comes back. Plain arithmetic: it neither waits nor reads a clock.

    Args:
        most: Upper bound; the lower one is 1.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(most, max(START, (most + 1) // 2)))
        self._doubling = True
        self._epoch = 0
        self._best: deque[float] = deque(maxlen=_ROUNDS)
        self._n_answers, self._sum_s, self._used = 0, 0.0, 0  # of this round

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    @property
    def epoch(self) -> int:
        """Goes up with every decrease: what was sent before says nothing about the limit after."""
        return self._epoch

    def sent(self, n_under_way: int) -> None:
        """One more is under way: ``n_under_way`` in all."""
        self._used = max(self._used, n_under_way)

    def answered(self, took_s: float, *, epoch: int, n_under_way: int) -> None:
        """A good answer to what was sent in ``epoch``. ``n_under_way`` counts it no longer."""
        if epoch != self._epoch:
            return
        self._n_answers += 1
        self._sum_s += took_s
        if self._n_answers < max(_MIN_ROUND, self.limit):
            return
        self._end_round(self._sum_s / self._n_answers)
        self._start_round(n_under_way)

    def refused(self, *, epoch: int) -> None:
        """The server has too much of what was sent in ``epoch``: once per epoch, however many it refuses at a time."""
        if epoch == self._epoch:
            self._decrease(_HALVE)
            self._start_round(0)

    def _end_round(self, mean_s: float) -> None:
        best_s = min(self._best, default=mean_s)
        slow = mean_s > _SLOW * best_s and mean_s - best_s > _NOISE_S
        if self._used * 2 <= self._limit:  # a limit that is not used up says nothing about a higher one, nor is it to blame
            self._best.append(mean_s)
        elif not slow:
            self._best.append(mean_s)
            self._limit = min(float(self.most), self._limit * 2 if self._doubling else self._limit + 1)
        elif self.limit > 1:
            self._decrease(_SHRINK)
        else:
            self._best.clear()
            self._doubling = True

    def _decrease(self, factor: float) -> None:
        self._limit = max(1.0, self._limit * factor)
        self._epoch += 1
        self._doubling = False

    def _start_round(self, n_under_way: int) -> None:
        self._n_answers, self._sum_s, self._used = 0, 0.0, n_under_way
