import json

import httpx
import pytest

from contracts.errors import UnavailableError
from streams.demo.asking import Asking
from streams.demo.plays import Ask

ASK = Ask(user="u", candidates=("a", "b"), event_ms=5, k=2)


def asking(answers, flushed=None):
    seen, answers = [], iter(answers)
    clock = iter(range(0, 10_000, 10))

    def answer(request):
        seen.append(json.loads(request.content))
        one = next(answers)
        if isinstance(one, Exception):
            raise one
        return one

    client = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://ranker")
    return Asking(
        client, lambda: (flushed if flushed is not None else []).append(len(seen)), lambda: next(clock), lambda _: None
    ), seen


def ok(name="r"):
    return httpx.Response(200, json={"ranking": name, "items": [{"item": "b"}, {"item": "a"}]})


def test_everything_sent_before_is_flushed_first():
    flushed = []
    ask, seen = asking([ok()], flushed)
    answer = ask(ASK)
    assert (answer.ranking, answer.items) == ("r", ("b", "a"))
    assert flushed == [0]
    assert seen[0] == {"request": "demo-0-u", "user": "u", "candidates": ["a", "b"], "k": 2, "event_ms": 5}


def test_a_ranker_that_restarts_is_asked_again_under_the_same_id():
    ask, seen = asking([httpx.ConnectError("gone"), httpx.Response(503), ok()])
    ask(ASK)
    assert (ask.n_retried, len(ask.took_ms), {request["request"] for request in seen}) == (2, 1, {"demo-0-u"})


def test_a_request_that_is_wrong_is_not_asked_again():
    ask, seen = asking([httpx.Response(422, text="no candidates")])
    with pytest.raises(UnavailableError, match="no candidates"):
        ask(ASK)
    assert len(seen) == 1


def test_a_ranker_that_stays_away_is_given_up():
    ask, _ = asking([httpx.Response(503)] * 100)
    with pytest.raises(UnavailableError, match="503"):
        ask(ASK)
