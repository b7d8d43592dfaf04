import pytest

from contracts.errors import UnavailableError
from streams.demo.draining import Drain


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds


def drain(readings):
    clock, left = Clock(), iter(readings)
    return Drain(lambda: {"plan": {"items": next(left)}}, clock, clock.sleep), left


def test_zero_must_be_seen_twice_in_a_row():
    waiting, left = drain([5, 0, 3, 0, 0, 99])
    reported = []
    waiting.until(0, reported.append)
    assert reported == [5, 0, 3, 0, 0]
    assert next(left) == 99


def test_back_pressure_ends_as_soon_as_the_bound_holds():
    waiting, left = drain([500, 401, 400, 99])
    waiting.until(400)
    assert next(left) == 99


def test_a_role_that_stands_still_is_named():
    waiting, _ = drain([7] * 1000)
    with pytest.raises(UnavailableError, match="plan 7 of items"):
        waiting.until(0)
