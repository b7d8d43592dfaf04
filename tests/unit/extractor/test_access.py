"""When a request may go out: the limit finds what a server can do, the breaker leaves a dead one alone, nothing leaks when cancelled."""

import asyncio
import selectors
import time
from contextlib import AsyncExitStack, suppress

import pytest

from contracts.errors import UnavailableError
from contracts.settings import Extract
from extractor.access import MAX_PAUSE_S, Access
from extractor.budget import TokenBudget
from extractor.concurrency import START, AdaptiveLimit
from extractor.on_disk import JsonOnDisk


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock jumps to the next timer instead of waiting for it."""

    def __init__(self):
        super().__init__(_JumpingSelector(self))
        self.now_s = 1_000.0

    def time(self):
        return self.now_s


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop):
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        assert timeout is not None, "everybody waits and nothing is due: a deadlock"
        events = super().select(0)
        if not events:
            self._loop.now_s += timeout
        return events


@pytest.fixture
def run(monkeypatch):
    """Run a coroutine in virtual time, which is also what `limits` reads."""

    def run_it(coroutine):
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            monkeypatch.setattr(time, "time", runner.get_loop().time)
            return runner.run(coroutine)

    return run_it


def _settings(**changed):
    return Extract(**{"concurrency": 4, "breaker_failures": 3, "breaker_s": 10, "max_answer_tokens": 100} | changed)


def _now():
    return asyncio.get_running_loop().time()


async def _once(access, outcome="answered", takes_s=1.0, n_tokens=100, spends=50):
    async with access.place() as place, place.sending(n_tokens) as one_try:
        await asyncio.sleep(takes_s)
        match outcome:
            case "answered":
                one_try.answered(spends)
            case "failed":
                one_try.failed()
            case "429":
                one_try.refused(None, failed=False)


def _idle(access):
    return (access.n_places, access.n_sent, access.budget._reserved) == (0, 0, 0)


def _rounds(limit, latency_s, n):
    """The limits over so many rounds in which it is used up, with a latency that may depend on how much is under way."""
    seen = []
    for _ in range(n):
        n_sent, epoch = limit.limit, limit.epoch
        limit.sent(n_sent)
        for left in range(n_sent - 1, -1, -1):
            limit.answered(latency_s(n_sent), epoch=epoch, n_under_way=left)
        seen.append(limit.limit)
    return seen


def test_a_fast_server_gets_the_whole_setting_after_one_round():
    assert AdaptiveLimit(3).limit == 3
    assert AdaptiveLimit(100).limit == 50
    assert AdaptiveLimit(12).limit == START
    assert _rounds(AdaptiveLimit(64), lambda _: 0.2, 1) == [64]


def test_a_server_that_queues_is_not_sent_much_more_than_it_works_on():
    limit = AdaptiveLimit(200)
    limit._limit = 8.0  # traffic was low at first, so the best latency is known
    seen = _rounds(limit, lambda n: 0.5 * max(1, n / 20), 60)
    assert max(seen) == 64  # of 200
    assert all(20 <= one <= 45 for one in seen[15:])  # busy all the time, and not much longer than twice the best


def test_many_refusals_of_one_round_halve_once_and_never_below_one():
    limit = AdaptiveLimit(32)
    epoch = limit.epoch
    for _ in range(10):
        limit.refused(epoch=epoch)
    assert limit.limit == 8
    for _ in range(10):
        limit.refused(epoch=limit.epoch)
    assert limit.limit == 1


def test_after_trouble_it_grows_by_one_a_round():
    limit = AdaptiveLimit(32)
    limit.refused(epoch=limit.epoch)
    assert _rounds(limit, lambda _: 0.2, 3) == [9, 10, 11]


def test_a_limit_that_is_not_used_does_not_grow():
    limit = AdaptiveLimit(32)
    for _ in range(100):
        limit.sent(2)
        limit.answered(0.2, epoch=limit.epoch, n_under_way=1)
    assert limit.limit == 16


def test_short_latencies_may_vary():
    assert _rounds(AdaptiveLimit(32), lambda n: 0.001 if n < 32 else 0.05, 20)[-1] == 32


def test_a_server_that_has_become_slow_for_good_is_measured_anew():
    limit = AdaptiveLimit(16)
    _rounds(limit, lambda _: 0.2, 10)
    seen = _rounds(limit, lambda _: 5.0, 300)
    assert min(seen) == 1
    assert seen[-1] == 16


def test_ready_waits_for_a_place_and_says_so(run):
    async def scene():
        access = Access(_settings(concurrency=2))
        under_way = [asyncio.create_task(_once(access, takes_s=5)) for _ in range(2)]
        await asyncio.sleep(1)
        ready = asyncio.create_task(access.ready())
        await asyncio.sleep(1)
        assert access.waits_for == "slot"
        await ready
        assert _now() == 1_005
        await asyncio.gather(*under_way)
        assert access.waits_for == "nothing"
        assert _idle(access)

    run(scene())


def test_whoever_waits_longest_for_a_place_gets_it(run):
    async def scene():
        access, order = Access(_settings(concurrency=1)), []

        async def one(name):
            async with access.place():
                order.append(name)
                await asyncio.sleep(1)

        await asyncio.gather(*map(one, range(20)))
        assert order == list(range(20))

    run(scene())


def test_failures_in_a_row_leave_the_server_alone_until_one_request_gets_through(run):
    async def scene():
        access = Access(_settings())
        for outcome in ("failed", "failed", "429", "failed", "failed"):  # an answer between, if only a 429: not in a row
            await _once(access, outcome)
        assert access.breaker == "closed"
        await _once(access, "failed")
        assert access.breaker == "open"
        with pytest.raises(UnavailableError, match="3 failures in a row"):
            await _once(access)
        opened_s = _now()
        await access.ready()
        assert _now() == opened_s + 10

        trial = asyncio.create_task(_once(access, "failed"))
        await asyncio.sleep(0)
        assert access.breaker == "half-open"
        with pytest.raises(UnavailableError):  # one at a time
            await _once(access)
        await access.ready()
        assert trial.done()
        assert _now() == opened_s + 10 + 1 + 10  # it failed, so once more

        await _once(access)
        assert access.breaker == "closed"
        assert _idle(access)

    run(scene())


def test_a_trial_that_is_cancelled_leaves_the_next_one_to_try(run):
    async def scene():
        access = Access(_settings(breaker_failures=1))
        await _once(access, "failed")
        await access.ready()
        trial = asyncio.create_task(_once(access))
        await asyncio.sleep(0)
        trial.cancel()
        await asyncio.gather(trial, return_exceptions=True)
        assert access.breaker == "half-open"
        await access.ready()
        await _once(access)
        assert access.breaker == "closed"

    run(scene())


def test_old_news_does_not_close_or_open_what_was_decided_since(run):
    async def scene():
        access = Access(_settings(breaker_failures=1, concurrency=8))
        slow = [asyncio.create_task(_once(access, outcome, takes_s=14)) for outcome in ("answered", "failed")]
        await asyncio.sleep(0)
        await _once(access, "failed")
        await access.ready()  # ten seconds later
        trial = asyncio.create_task(_once(access, takes_s=20))
        await asyncio.gather(*slow)
        assert access.breaker == "half-open"
        await trial
        assert access.breaker == "closed"

    run(scene())


def test_a_request_that_rests_between_two_tries_gives_up_when_the_breaker_opens(run):
    async def scene():
        access = Access(_settings(breaker_failures=2))

        async def rests():
            async with access.place() as place:
                await place.rest(500)

        resting = asyncio.create_task(rests())
        await _once(access, "failed")
        assert not resting.done()
        await _once(access, "failed")
        with pytest.raises(UnavailableError):
            await resting
        assert _now() < 1_010
        assert _idle(access)

    run(scene())


@pytest.mark.parametrize(("asked_s", "held_s"), [(7, 7), (10_000, MAX_PAUSE_S)])
def test_a_pause_that_one_request_is_told_holds_them_all(run, asked_s, held_s):
    async def scene():
        access = Access(_settings())
        async with access.place() as waiting:
            async with access.place() as place, place.sending(1) as one_try:
                one_try.refused(asked_s, failed=False)
            ready = asyncio.create_task(access.ready())
            await asyncio.sleep(0)
            assert access.waits_for == "pause"
            async with waiting.sending(1) as one_try:
                assert _now() == 1_000 + held_s
                one_try.answered(1)
            await ready
        assert _now() == 1_000 + held_s

    run(scene())


def test_after_a_decrease_what_has_a_place_already_waits_for_its_next_try(run):
    async def scene():
        access, most = Access(_settings(concurrency=8)), 0

        async def twice(n):
            nonlocal most
            async with access.place() as place:
                async with place.sending(1) as one_try:
                    await asyncio.sleep(1)
                    one_try.refused(None, failed=False)
                async with place.sending(1) as one_try:
                    most = max(most, access.n_sent)
                    await asyncio.sleep(1 + n / 100)
                    one_try.answered(1)

        await asyncio.gather(*map(twice, range(8)))
        assert most == 4
        assert _idle(access)

    run(scene())


@pytest.mark.parametrize("at_s", [0, 0.5, 1, 1.5, 3.5, 11.5, 20])
@pytest.mark.parametrize("outcome", ["answered", "failed", "429"])
def test_cancelled_anywhere_everything_is_given_back_once(run, outcome, at_s):
    async def scene():
        access = Access(_settings(concurrency=2, tokens_per_minute=500))
        tasks = [asyncio.create_task(_once(access, outcome, takes_s=1 + n / 7)) for n in range(9)]
        waits = asyncio.create_task(access.ready())
        await asyncio.sleep(at_s)
        for task in (*tasks, waits):
            task.cancel()
        await asyncio.gather(*tasks, waits, return_exceptions=True)
        assert _idle(access)
        await access.ready()
        await _once(access, n_tokens=10)
        assert access.breaker == "closed"
        async with AsyncExitStack() as places:
            for _ in range(access.concurrency.limit):  # every place is there, and not one more
                await places.enter_async_context(access.place())
            with suppress(TimeoutError):
                async with asyncio.timeout(100), access.place():
                    pytest.fail("one place too many")
        assert _idle(access)

    run(scene())


def test_a_minute_s_tokens_hold_what_comes_after_until_they_come_back(run):
    async def scene():
        access = Access(_settings(tokens_per_minute=1_000))
        await _once(access, n_tokens=400, spends=600)
        assert access.budget.left() == {"minute": 400}
        async with access.place() as place, place.sending(400) as one_try:
            assert access.budget.left() == {"minute": 0}  # reserved
            one_try.answered(100)
        assert access.budget.left() == {"minute": 300}  # settled
        spent_s = _now()
        ready = asyncio.create_task(access.ready())  # for another of at least 400
        await asyncio.sleep(1)
        assert access.waits_for == "budget"
        await ready
        assert 1 < _now() - spent_s <= 61
        assert access.budget.left()["minute"] >= 400

    run(scene())


def test_what_was_spent_beyond_the_minute_is_paid_before_the_next(run):
    async def scene():
        budget = TokenBudget(_settings(tokens_per_minute=1_000))
        budget.reserve(500)
        budget.settle(500, 2_500)
        assert not budget.allows(1)
        spent_in = []
        for second in range(1, 400):
            await asyncio.sleep(1)
            if budget.allows(1_000):
                spent_in.append(second)
                budget.reserve(1_000)
                budget.settle(1_000, 1_000)
        assert spent_in[0] > 120  # 2,500 tokens are more than two minutes' worth
        assert len(spent_in) <= 4

    run(scene())


def test_one_request_larger_than_the_whole_budget_goes_alone(run):
    async def scene():
        budget = TokenBudget(_settings(tokens_per_minute=100, tokens_per_day=100))
        assert budget.allows(5_000)
        budget.reserve(5_000)
        assert not budget.allows(5_000)

    run(scene())


def test_the_day_s_spending_survives_a_restart_and_ends_with_the_day(run, tmp_path):
    settings = _settings(tokens_per_day=1_000)

    async def scene():
        budget = TokenBudget(settings, JsonOnDisk(tmp_path, 1))
        budget.reserve(500)
        budget.settle(500, 700)
        budget.close()
        again = TokenBudget(settings, JsonOnDisk(tmp_path, 1))
        assert again.left() == {"day": 300}
        assert not again.allows(301)
        again.reserve(300)
        again.settle(300, 300)
        again.close()
        third = TokenBudget(settings, JsonOnDisk(tmp_path, 1))
        assert third.left() == {"day": 0}
        await asyncio.sleep(24 * 3600)
        assert third.left() == {"day": 1_000}
        third.close()

    run(scene())


def test_what_was_given_up_half_way_counts_as_estimated(run):
    async def scene():
        access = Access(_settings(tokens_per_minute=1_000))
        task = asyncio.create_task(_once(access, n_tokens=300))
        await asyncio.sleep(0.5)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert access.budget.left() == {"minute": 700}
        await _once(access, "failed", n_tokens=300)
        assert access.budget.left()["minute"] == 700  # no connection, no tokens

    run(scene())
