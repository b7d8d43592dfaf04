"""The openai backend against a real HTTP server on loopback: good answers, and every way in which a server or a model misbehaves."""

import asyncio
import json
import socket
import threading
from email.utils import formatdate

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from contracts.errors import SettingsError, UnavailableError
from contracts.settings import Extract
from extractor.answers import RejectedAnswerError
from extractor.backends.openai import OpenAIBackend
from extractor.scenario import load_scenario

NEWS = load_scenario("news")
KEY = "sk-very-secret"


def _backend(base_url, **changed):
    settings = {"backend": "openai", "base_url": base_url, "model": "m", "api_key": SecretStr(KEY), "retries": 3, "timeout_s": 10}
    return OpenAIBackend(Extract(**settings | changed), NEWS, backoff_s=0.01)


def _ask(backend, *requests):
    async def all_of_them():
        try:
            return await asyncio.gather(*map(backend.extract, requests))
        finally:
            await backend.aclose()

    return asyncio.run(all_of_them())


def test_a_good_answer_becomes_knowledge_with_its_tokens(model_server, item_request):
    [made] = _ask(_backend(model_server.base_url), item_request())
    assert made.factors == {factor: f"about {factor}" for factor in NEWS.factors}
    assert (made.tier, made.backend, made.model, made.scenario) == ("individual", "openai", "fake-model", "news")
    assert (made.tokens_in, made.tokens_out) == (100, 20)
    assert (made.subject, made.as_of_ms, made.trigger_ms, made.source_hash) == ("item:n1", 1_000, 2_000, "abc")
    [body] = model_server.requests
    assert body["response_format"]["json_schema"]["strict"] is True
    assert body["max_completion_tokens"] == 400
    assert model_server.headers[0]["authorization"] == f"Bearer {KEY}"


def test_tokens_are_unknown_where_the_server_does_not_count(model_server, item_request):
    model_server.default = lambda body: model_server.completion(model_server.good_answer(body), usage=None)
    [made] = _ask(_backend(model_server.base_url), item_request())
    assert (made.tokens_in, made.tokens_out) == (None, None)


@pytest.mark.parametrize(
    "trouble",
    [
        Response(status_code=429, headers={"retry-after": "0"}),
        Response(status_code=429, headers={"retry-after": formatdate(0, usegmt=True)}),
        Response(status_code=503, headers={"retry-after": "soon"}),
        Response(status_code=500),
        Response(status_code=408),
    ],
)
def test_a_server_in_passing_trouble_is_asked_again(model_server, item_request, trouble):
    model_server.script.extend([trouble, trouble])
    backend = _backend(model_server.base_url)
    [made] = _ask(backend, item_request())
    assert made.backend == "openai"
    assert (backend.spent["requests"], backend.spent["retries"]) == (3, 2)


def test_retry_after_is_waited_for_and_bounded():
    from types import SimpleNamespace

    from extractor.backends.openai import MAX_PAUSE_S, _seconds, _TryAgainError

    backend = _backend("http://127.0.0.1:1/v1")
    for header, wanted in (("7", 7), ("100000", MAX_PAUSE_S), ("-3", 0)):
        error = _TryAgainError("HTTP 429", _seconds(header))
        assert backend._wait(SimpleNamespace(outcome=SimpleNamespace(exception=lambda error=error: error))) == wanted
    assert _seconds("nan-sense") is None


def test_a_hanging_server_is_unavailable_after_the_set_tries(model_server, item_request):
    model_server.default = "hang"
    backend = _backend(model_server.base_url, timeout_s=0.1, retries=2)
    with pytest.raises(UnavailableError, match=r"no answer within 0.1 s from http://127.0.0.1:\d+/v1, 2 times") as caught:
        _ask(backend, item_request())
    assert caught.value.retriable
    assert backend.spent["requests"] == 2


def test_nobody_listening_is_unavailable(item_request):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(UnavailableError, match="no connection"):
        _ask(_backend(f"http://127.0.0.1:{port}/v1"), item_request())


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (("not json",), "invalid JSON"),
        (('{"factors": {', "length"), "cut off"),
        (("I'm sorry, I can't help with that.",), "refusal"),
        (('{"factors": {}, "summary": "x"}',), "wrong shape"),
    ],
)
def test_a_bad_answer_is_asked_for_once_more_with_the_reason(model_server, item_request, bad, reason):
    model_server.script.append(model_server.completion(*bad))
    backend = _backend(model_server.base_url)
    [made] = _ask(backend, item_request())
    first, second = (body["messages"][1]["content"] for body in model_server.requests)
    assert second.startswith(first)
    assert "could not be used" in second.removeprefix(first)
    assert bad[0] not in second  # the model's words do not come back to it
    assert (made.tokens_in, made.tokens_out) == (200, 40)  # both answers were paid for
    assert backend.spent[f"rejected: {reason}"] == 1


def test_two_bad_answers_are_an_answer_error(model_server, item_request):
    model_server.default = lambda body: model_server.completion("no")
    backend = _backend(model_server.base_url)
    with pytest.raises(RejectedAnswerError) as caught:
        _ask(backend, item_request())
    assert caught.value.reason == "invalid JSON"
    assert len(model_server.requests) == 2
    assert backend.spent["tokens_out"] == 40


@pytest.mark.parametrize(
    "odd",
    [
        JSONResponse({"choices": []}),
        JSONResponse(["x"]),
        Response("<html>proxy</html>", media_type="text/html"),
        Response("{", media_type="application/json"),
    ],
)
def test_a_reply_that_is_no_chat_completion_is_an_answer_error(model_server, item_request, odd):
    model_server.default = odd
    with pytest.raises(RejectedAnswerError) as caught:
        _ask(_backend(model_server.base_url), item_request())
    assert caught.value.reason == "wrong shape"


def test_a_refusal_in_its_own_field_is_an_answer_error(model_server, item_request):
    model_server.default = lambda body: model_server.completion(None, refusal="I won't")
    with pytest.raises(RejectedAnswerError, match="refusal"):
        _ask(_backend(model_server.base_url), item_request())


@pytest.mark.parametrize(("status", "advice"), [(401, "extract.api_key"), (403, "extract.api_key"), (404, "extract.model")])
def test_a_refused_key_or_model_says_what_to_do_without_the_key(model_server, item_request, status, advice):
    model_server.default = JSONResponse({"error": {"message": f"wrong key {KEY}"}}, status_code=status)
    with pytest.raises(SettingsError, match=advice) as caught:
        _ask(_backend(model_server.base_url), item_request())
    assert KEY not in str(caught.value)
    assert len(model_server.requests) == 1


def test_a_prompt_that_the_server_refuses_concerns_this_subject_only(model_server, item_request):
    model_server.script.append(JSONResponse({"error": {"message": f"prompt too long, key {KEY}"}}, status_code=400))
    with pytest.raises(RejectedAnswerError, match=r"HTTP 400.*prompt too long") as caught:
        _ask(_backend(model_server.base_url), item_request())
    assert caught.value.reason == "server refused"
    assert not caught.value.retriable
    assert KEY not in str(caught.value)
    assert len(model_server.requests) == 1


def test_settings_that_cannot_work_are_refused_at_the_start():
    with pytest.raises(SettingsError, match=r"no extract.model and extract.base_url 'nowhere'"):
        _backend("nowhere", model="")


def test_concurrency_is_used_and_bounded(model_server, item_request):
    model_server.gate = 3
    made = _ask(_backend(model_server.base_url, concurrency=3), *(item_request(f"n{n}") for n in range(12)))
    assert [one.subject for one in made] == [f"item:n{n}" for n in range(12)]
    assert model_server.most_at_once == 3


def test_a_server_that_restarts_in_the_middle_loses_nothing(model_server, item_request):
    backend = _backend(model_server.base_url, retries=200, concurrency=2)
    requests = [item_request(f"n{n}") for n in range(8)]

    def stop_after_three(body):
        if len(model_server.requests) == 3:
            restart.start()
        return model_server.completion(model_server.good_answer(body))

    def stop_and_start_once_missed():
        model_server.stop()
        assert missed.wait(20)
        model_server.start()

    missed = threading.Event()
    count_retry, backend._count_retry = backend._count_retry, lambda state: (count_retry(state), missed.set())
    restart = threading.Thread(target=stop_and_start_once_missed)
    model_server.default = stop_after_three
    made = _ask(backend, *requests)
    restart.join(20)
    assert [one.subject for one in made] == [request.subject for request in requests]
    assert backend.spent["retries"] > 0


def test_one_prefix_for_all_so_that_the_server_can_cache_it(model_server, item_request):
    _ask(_backend(model_server.base_url), item_request("a", title="One"), item_request("b", title="Two"))
    first, second = (body["messages"] for body in model_server.requests)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert json.dumps(model_server.requests[0]).count("One") + json.dumps(model_server.requests[1]).count("One") == 1
