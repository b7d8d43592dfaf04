"""The queue in front of a language model: the most urgent first, nothing lost while the server is away."""

import asyncio
import threading
import time

import pytest

from contracts.errors import RecordError, SettingsError, UnavailableError
from extractor.asking import MAX_RETURNS, Asking

DEADLINE_S = 20


class FakeBackend:
    """Answers with the subject's name. ``open`` lets requests through, ``errors`` holds what the next requests raise."""

    def __init__(self):
        self.open = threading.Event()
        self.errors = []
        self.asked = []
        self.hang = False
        self.closed = False
        self.kept = {}

    def known(self, request):
        if request.subject == "item:bad":
            raise RecordError("no text", wanted="text", todo="send some")
        return self.kept.get(request.subject)

    async def ready(self):
        while not self.open.is_set():  # noqa: ASYNC110 - it is set from another thread
            await asyncio.sleep(0.001)

    async def extract(self, request):
        self.known(request)
        self.asked.append(request.subject)
        if request.subject == "item:hangs":
            raise UnavailableError("no answer in time", wanted="one", todo="wait")
        if self.hang:
            await asyncio.sleep(3600)
        if self.errors:
            raise self.errors.pop(0)
        return request.subject

    async def aclose(self):
        self.closed = True


@pytest.fixture
def backend():
    return FakeBackend()


@pytest.fixture
def asking(backend):
    asking = Asking(backend)
    asking.start()
    yield asking
    asking.close()
    assert backend.closed


def until(condition):
    end = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def gather(asking, n):
    found = []

    def enough():
        found.extend(asking.answers())
        return len(found) >= n

    until(enough)
    return [(answer.request.subject, answer.result) for answer in found]


@pytest.fixture
def ask(asking, item_request):
    def ask(ident, priority=1.0, **fields):
        asking.ask(item_request(ident=ident, priority=priority, **fields))

    return ask


def test_the_most_urgent_request_is_asked_first_among_equals_the_oldest(asking, backend, ask):
    for ident, priority in (("low", 1), ("high", 9), ("middle", 5), ("middle2", 5)):
        ask(ident, priority)
    until(lambda: asking.n_waiting == 4)
    backend.open.set()
    gather(asking, 4)
    assert backend.asked == ["item:high", "item:middle", "item:middle2", "item:low"]
    assert asking.n_waiting == 0


def test_what_becomes_urgent_overtakes_what_waits_already(asking, backend, ask):
    ask("first")
    until(lambda: asking.n_waiting == 1)
    ask("urgent", 9)
    until(lambda: asking.n_waiting == 2)
    backend.open.set()
    gather(asking, 2)
    assert backend.asked == ["item:urgent", "item:first"]


def test_a_newer_request_replaces_the_one_that_waits(asking, backend, ask):
    ask("n1", 1, source_hash="old")
    ask("n1", 2, source_hash="new")
    ask("n2", 1.5)
    until(lambda: asking.n_waiting == 2)
    backend.open.set()
    gather(asking, 2)
    assert backend.asked == ["item:n1", "item:n2"]


def test_what_is_forgotten_is_not_asked(asking, backend, ask):
    ask("n1")
    ask("n2")
    until(lambda: asking.n_waiting == 2)
    asking.forget("item:n1")
    until(lambda: asking.n_waiting == 1)
    backend.open.set()
    gather(asking, 1)
    assert backend.asked == ["item:n2"]


@pytest.mark.parametrize("error", [UnavailableError, SettingsError])
def test_what_the_server_did_not_answer_is_asked_again_in_its_turn(asking, backend, ask, error):
    backend.errors = [error("no answer", wanted="one", todo="wait")] * 3
    ask("n1", 1)
    ask("n2", 2)
    until(lambda: asking.n_waiting == 2)
    backend.open.set()
    assert sorted(gather(asking, 2)) == [("item:n1", "item:n1"), ("item:n2", "item:n2")]
    assert len(backend.asked) == 5
    assert backend.asked[0] == "item:n2"


def test_what_is_known_already_waits_for_nobody(asking, backend, ask):
    backend.kept["item:n1"] = "kept"
    ask("n1")
    assert gather(asking, 1) == [("item:n1", "kept")]
    assert backend.asked == []


def test_a_request_that_cannot_be_looked_up_fails_when_it_is_asked(asking, backend, ask):
    backend.open.set()
    ask("bad")
    ((subject, result),) = gather(asking, 1)
    assert subject == "item:bad"
    assert isinstance(result, RecordError)


def test_the_queue_stays_short_however_often_somebody_is_asked_about_anew(asking, ask, backend):
    for number in range(5_000):
        ask("n1", number % 7)
    ask("n2")
    until(lambda: asking.n_waiting == 2)
    assert asking._queue.qsize() <= 1_100
    backend.open.set()
    assert sorted(subject for subject, _ in gather(asking, 2)) == ["item:n1", "item:n2"]


def test_a_request_that_never_gets_an_answer_while_others_do_is_given_up(asking, backend, ask, monkeypatch):
    monkeypatch.setattr("extractor.asking._MOST_REST_S", 0.01)
    backend.open.set()
    ask("hangs", 9)
    found = []
    n = 0
    while not any(answer.request.subject == "item:hangs" for answer in found):
        n += 1
        assert n < 1_000
        ask(f"n{n}")
        before = len(found)
        until(lambda before=before: found.extend(asking.answers()) or len(found) > before)
    (given_up,) = [answer.result for answer in found if answer.request.subject == "item:hangs"]
    assert isinstance(given_up, UnavailableError)
    assert backend.asked.count("item:hangs") == MAX_RETURNS + 1


def test_while_nobody_is_answered_nobody_is_given_up(asking, backend, ask, monkeypatch):
    monkeypatch.setattr("extractor.asking._MOST_REST_S", 0.001)
    backend.open.set()
    ask("hangs")
    until(lambda: backend.asked.count("item:hangs") > 3 * MAX_RETURNS)
    assert asking.answers() == []


def test_an_error_of_the_request_comes_back_as_its_answer(asking, backend, ask):
    backend.errors = [RecordError("no text", wanted="text", todo="send some")]
    backend.open.set()
    ask("n1")
    ((subject, result),) = gather(asking, 1)
    assert subject == "item:n1"
    assert isinstance(result, RecordError)


def test_closing_gives_up_what_is_under_way(backend, item_request):
    backend.hang = True
    backend.open.set()
    asking = Asking(backend)
    asking.start()
    asking.ask(item_request())
    until(lambda: asking.n_under_way == 1)
    asking.close()
    assert backend.closed
    assert asking.answers() == []


def test_closing_before_the_start_is_harmless(backend):
    Asking(backend).close()
