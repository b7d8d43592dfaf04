"""The openai backend against a real HTTP server on loopback: good answers, and every way in which a server or a model misbehaves."""

import asyncio
import itertools
import json
import socket
import threading
import time
from email.utils import formatdate
from typing import get_args

import pytest
from pydantic import SecretStr
from starlette.responses import JSONResponse, Response

from contracts.errors import RekiError, SettingsError, UnavailableError
from contracts.records import Knowledge, KnowledgeRequest, Member
from contracts.settings import Extract
from extractor.answers import RejectedAnswerError, Rejection
from extractor.backends.openai import _ADVICE, OpenAIBackend
from extractor.on_disk import JsonOnDisk
from extractor.scenario import load_scenario

NEWS = load_scenario("news")
KEY = "sk-very-secret"
DEADLINE_S = 20


def _backend(base_url, *, spending=None, **changed):
    settings = {"backend": "openai", "base_url": base_url, "model": "m", "api_key": SecretStr(KEY), "retries": 3, "timeout_s": 10}
    return OpenAIBackend(Extract(**settings | changed), NEWS, spending=spending, backoff_s=0.01)


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
        ((json.dumps({"factors": dict.fromkeys(NEWS.factors, "гавань открыта"), "summary": "гавань"}),), "another language"),
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


def test_every_reason_has_its_advice():
    assert set(_ADVICE) == set(get_args(Rejection))


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


@pytest.mark.parametrize(
    ("status", "advice"), [(401, "extract.api_key"), (402, "pay"), (403, "extract.api_key"), (404, "extract.model")]
)
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


def test_prompts_that_are_all_refused_are_not_the_prompts_fault(model_server, item_request):
    refusal = JSONResponse({"error": {"message": "unknown parameter"}}, status_code=400)
    model_server.script += [refusal] * 15
    model_server.script.append(lambda body: model_server.completion(model_server.good_answer(body)))
    model_server.default = refusal
    backend = _backend(model_server.base_url, breaker_failures=100)

    async def one_after_the_other():
        found = []
        for n in range(36):
            try:
                found.append(type(await backend.extract(item_request(f"n{n}"))))
            except RekiError as error:
                found.append(type(error))
        await backend.aclose()
        return found

    found = asyncio.run(one_after_the_other())
    assert found == [RejectedAnswerError] * 15 + [Knowledge] + [RejectedAnswerError] * 19 + [SettingsError]


def test_settings_that_cannot_work_are_refused_at_the_start():
    with pytest.raises(SettingsError, match=r"no extract.model and extract.base_url 'nowhere'"):
        _backend("nowhere", model="")


def test_concurrency_is_used_and_bounded(model_server, item_request):
    model_server.gate = 3
    made = _ask(_backend(model_server.base_url, concurrency=3), *(item_request(f"n{n}") for n in range(12)))
    assert [one.subject for one in made] == [f"item:n{n}" for n in range(12)]
    assert model_server.most_at_once == 3


def test_a_server_that_restarts_in_the_middle_loses_nothing(model_server, item_request):
    backend = _backend(model_server.base_url, retries=200, concurrency=2, breaker_failures=1_000)
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


async def _dispatch(backend, requests):
    """As the extract stage does: each request when it would be sent at once, and again where the server is not there."""
    waiting, made, under_way = list(requests), {}, set()

    async def one(request):
        try:
            made[request.subject] = await backend.extract(request)
        except (UnavailableError, SettingsError):
            waiting.append(request)

    try:
        while len(made) < len(requests):
            if not waiting:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
                continue
            await backend.ready()
            under_way.add(task := asyncio.create_task(one(waiting.pop(0))))
            task.add_done_callback(under_way.discard)
            await asyncio.sleep(0)
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        await backend.aclose()
    return made


async def _until(condition):
    async with asyncio.timeout(DEADLINE_S):
        for _ in itertools.takewhile(lambda _: not condition(), itertools.count()):
            await asyncio.sleep(0.01)


def test_one_429_with_retry_after_holds_everybody(model_server, item_request):
    model_server.gate = 2
    refused_s = []

    def refuse(_body):
        refused_s.append(time.monotonic())
        return Response(status_code=429, headers={"retry-after": "1"})

    model_server.script.append(refuse)
    backend = _backend(model_server.base_url, concurrency=2)
    made = asyncio.run(_dispatch(backend, [item_request(f"n{n}") for n in range(6)]))
    assert len(made) == 6
    assert all(came_s >= refused_s[0] + 1 for came_s in model_server.came_s[2:])
    assert backend.access.breaker == "closed"


def test_a_503_halves_what_is_under_way(model_server, item_request):
    model_server.gate = 8
    model_server.script.append(Response(status_code=503))
    backend = _backend(model_server.base_url, concurrency=8)
    made = asyncio.run(_dispatch(backend, [item_request(f"n{n}") for n in range(8)]))
    assert len(made) == 8
    assert model_server.most_at_once == 8
    assert backend.access.concurrency.limit == 4


@pytest.mark.parametrize("trouble", [Response(status_code=500), Response(status_code=401), "hang"])
def test_the_breaker_leaves_a_sick_server_alone_and_finds_out_when_it_is_well(model_server, item_request, trouble):
    model_server.default = trouble
    backend = _backend(model_server.base_url, concurrency=4, breaker_failures=3, breaker_s=0.5, timeout_s=0.2)
    at_opening = []

    async def scene():
        asking = asyncio.create_task(_dispatch(backend, [item_request(f"n{n}") for n in range(20)]))
        await _until(lambda: backend.access.breaker == "open")
        at_opening.append(len(model_server.requests))
        await _until(lambda: backend.spent["requests"] >= at_opening[0] + 2)  # two trials
        assert backend.access.n_places <= 1
        backend.settings = backend.settings.model_copy(update={"timeout_s": 10})  # the machine may be slow, the server no longer
        model_server.default = lambda body: model_server.completion(model_server.good_answer(body))
        return await asking

    made = asyncio.run(scene())
    assert len(made) == 20
    assert at_opening[0] <= 4 + 3
    assert backend.access.breaker == "closed"
    assert backend.access.n_places == backend.access.n_sent == 0


def test_while_the_breaker_is_open_nothing_is_sent(model_server, item_request):
    model_server.default = Response(status_code=500)
    backend = _backend(model_server.base_url, retries=10, breaker_failures=3, breaker_s=1_000)
    with pytest.raises(UnavailableError, match="3 failures in a row"):  # in place, without the seven tries that were left
        _ask(backend, item_request())
    assert len(model_server.requests) == 3
    with pytest.raises(UnavailableError):
        _ask(backend, item_request())
    assert len(model_server.requests) == 3


def test_tokens_of_a_minute_bound_what_is_sent(model_server, item_request):
    """1,000 tokens an answer and 5,000 a minute: five answers, whatever waits."""
    model_server.default = lambda body: model_server.completion(model_server.good_answer(body), usage=(700, 300))
    backend = _backend(model_server.base_url, tokens_per_minute=5_000)

    async def scene():
        asking = asyncio.create_task(_dispatch(backend, [item_request(f"n{n}") for n in range(20)]))
        await _until(lambda: backend.access.waits_for == "budget" and backend.access.n_places == 0)
        left = backend.access.budget.left()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        return left

    left = asyncio.run(scene())
    n_answers = len(model_server.requests)
    assert 4 <= n_answers <= 6  # the minute may turn meanwhile: a share of it is back
    assert left["minute"] < 1_000


def test_tokens_of_a_day_are_remembered(model_server, item_request, tmp_path):
    for left in (9_880, 9_760):
        backend = _backend(model_server.base_url, tokens_per_day=10_000, spending=JsonOnDisk(tmp_path, 1))
        _ask(backend, item_request())
        assert backend.access.budget.left() in ({"day": left}, {"day": 9_880})  # unless midnight (UTC) came between
        backend.access.budget.close()


def test_cancelled_at_shutdown_nothing_is_held(model_server, item_request):
    model_server.default = "hang"
    backend = _backend(model_server.base_url, concurrency=3, tokens_per_minute=100_000)

    async def scene():
        asking = asyncio.create_task(_dispatch(backend, [item_request(f"n{n}") for n in range(9)]))
        await _until(lambda: len(model_server.requests) == 3)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        assert (backend.access.n_places, backend.access.n_sent) == (0, 0)
        async with asyncio.timeout(DEADLINE_S):
            await backend.ready()

    asyncio.run(scene())
    assert len(model_server.requests) == 3


def test_cached_tokens_and_cost_are_kept_by_kind_and_tier(model_server, item_request):
    model_server.default = lambda body: model_server.completion(model_server.good_answer(body), cached=64)
    backend = _backend(model_server.base_url, price_in=2, price_out=10)
    cluster = KnowledgeRequest(
        subject="cluster:item-1", mode="collective", reason="new_cluster", priority=1.0, as_of_ms=1, trigger_ms=1, source_hash="c",
        members=(Member(subject="item:a", text="about ships"),), cluster_size=5,
    )  # fmt: skip
    item, second, collective = _ask(backend, item_request(), item_request("n2"), cluster)
    assert (item.tier, second.tier, collective.tier) == ("individual", "individual", "collective")
    assert (item.tokens_in, item.tokens_cached) == (100, 64)
    assert backend.spent["tokens_cached"] == 192
    assert backend.spent_on["requests", "item", "individual"] == backend.spent_on["answers", "item", "individual"] == 2
    assert backend.spent_on["tokens_in", "cluster", "collective"] == 100
    assert backend.cost() == {
        ("item", "individual"): pytest.approx(2 * (100 * 2 + 20 * 10) / 1e6),
        ("cluster", "collective"): pytest.approx((100 * 2 + 20 * 10) / 1e6),
    }
