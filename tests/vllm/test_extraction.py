"""The openai backend on a real vLLM: good answers under load, and everything that a server does to its clients. A tiny model answers.

What it says is worth nothing; that it says it in the scenario's form, and what happens when it does not, is what is tested here.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
import socket
import threading
import time
from collections import Counter

import httpx
import msgspec
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route

from contracts.errors import UnavailableError
from extractor.answers import RejectedAnswerError
from extractor.scenario import load_scenario

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1_200)]
NEWS = load_scenario("news")
MOVIES = load_scenario("movies")
DEADLINE_S = 600


async def until_answered(backend, request):
    """Ask, and ask again while the server cannot be had: what the role does with what it keeps."""
    end = time.monotonic() + DEADLINE_S
    while True:
        try:
            return await backend.extract(request)
        except UnavailableError:
            assert time.monotonic() < end, f"{request.subject} has no answer after {DEADLINE_S} s"
            await asyncio.sleep(0.2)


def check(made, requests, scenario):
    assert [one.subject for one in made] == [request.subject for request in requests]
    for one, request in zip(made, requests, strict=True):
        assert one.factors.keys() <= scenario.factors.keys()
        assert len(one.factors) >= 3
        assert (one.tier, one.backend, one.model) == ("individual", "openai", "tiny")
        assert (one.as_of_ms, one.source_hash) == (request.as_of_ms, request.source_hash)
        assert one.tokens_in > 0
        assert one.tokens_out > 0


def test_200_items_at_concurrency_32_and_most_of_their_prompts_come_out_of_the_prefix_cache(
    vllm, ask, articles, requests_about, figures
):
    requests = requests_about(articles(200))
    before = vllm.counted()
    began = time.monotonic()
    made, backend = ask(vllm.address, NEWS, lambda backend: asyncio.gather(*map(backend.extract, requests)), concurrency=32)
    took_s = time.monotonic() - began
    check(made, requests, NEWS)
    counted = vllm.counted() - before
    hits, asked = counted["vllm:prefix_cache_hits_total"], counted["vllm:prefix_cache_queries_total"]
    assert asked >= backend.spent["tokens_in"] > 0
    assert hits / asked > 0.5
    figures.append(
        f"200 items at concurrency 32: {took_s:.1f} s, {200 / took_s:.1f} answers/s, {backend.spent['tokens_out'] / took_s:,.0f} tokens/s "
        f"out, {backend.spent['requests']} requests; {hits / asked:.1%} of {asked:,.0f} prompt tokens out of the prefix cache"
    )


def test_readers_with_full_histories_in_another_scenario(vllm, ask, readers):
    requests = readers(32)
    made, _ = ask(vllm.address, MOVIES, lambda backend: asyncio.gather(*map(backend.extract, requests)))
    check(made, requests, MOVIES)


def test_answers_that_are_cut_off_are_refused_after_a_second_try(vllm, ask, articles, requests_about):
    requests = requests_about(articles(8))
    refused, backend = ask(
        vllm.address,
        NEWS,
        lambda backend: asyncio.gather(*map(backend.extract, requests), return_exceptions=True),
        max_answer_tokens=12,
    )
    assert all(isinstance(one, RejectedAnswerError) and one.reason == "cut off" for one in refused)
    assert backend.spent["rejected: cut off"] == 16
    assert backend.spent["requests"] == 16


def test_a_prompt_that_is_too_long_for_the_model_concerns_its_subject_alone(vllm, ask, articles, requests_about, readers):
    [reader] = readers(1, n_history=60)
    # a tokenizer that never saw a script takes a token for every byte: more than the 4,096 of scripts/vllm-cpu
    strange = tuple(msgspec.structs.replace(entry, title="\u6e2f\u6e7e" * 60) for entry in reader.history)
    too_long = msgspec.structs.replace(reader, history=strange)
    [short] = requests_about(articles(1))
    [refused, made], backend = ask(
        vllm.address,
        NEWS,
        lambda backend: asyncio.gather(*map(backend.extract, (too_long, short)), return_exceptions=True),
    )
    assert isinstance(refused, RejectedAnswerError)
    assert refused.reason == "server refused"
    check([made], [short], NEWS)
    assert backend.spent["requests"] == 2


@contextlib.contextmanager
def limiting_proxy(target, every):
    """Hands requests on, but answers every so many with 429 and Retry-After, as providers do and vLLM does not."""
    numbers = itertools.count(1)
    refused = Counter()

    async def hand_on(request):
        if next(numbers) % every == 0:
            refused["429"] += 1
            return Response('{"error": {"message": "slow down"}}', 429, {"retry-after": "0.2"}, "application/json")
        async with httpx.AsyncClient(timeout=300, trust_env=False) as client:
            said = await client.post(
                target + request.url.path, content=await request.body(), headers={"content-type": "application/json"}
            )
        return Response(said.content, said.status_code, media_type="application/json")

    app = Starlette(routes=[Route("/v1/chat/completions", hand_on, methods=["POST"])])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", ws="none", lifespan="off", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", refused
    finally:
        server.should_exit = True
        thread.join(30)
        listener.close()


def test_429_with_retry_after_is_waited_for_and_every_request_is_answered(vllm, ask, articles, requests_about):
    requests = requests_about(articles(40))
    with limiting_proxy(vllm.address, every=3) as (address, refused):
        made, _ = ask(address, NEWS, lambda backend: asyncio.gather(*(until_answered(backend, one) for one in requests)))
    check(made, requests, NEWS)
    assert refused["429"] >= 19  # of 59 requests, if no other goes wrong: every third, 40 answers


def test_a_server_that_hangs_is_unavailable_and_is_used_again_once_it_goes_on(vllm, ask, articles, requests_about):
    [request] = requests_about(articles(1))

    async def hang_then_go_on(backend):
        vllm.signal(signal.SIGSTOP)
        try:
            with pytest.raises(UnavailableError) as caught:
                await backend.extract(request)
        finally:
            vllm.signal(signal.SIGCONT)
        return caught.value

    unavailable, _ = ask(vllm.address, NEWS, hang_then_go_on, timeout_s=1, retries=2)
    assert unavailable.retriable
    made, _ = ask(vllm.address, NEWS, lambda backend: until_answered(backend, request))
    check([made], [request], NEWS)


def test_a_server_that_is_killed_in_the_middle_and_restarted_answers_every_request(vllm, ask, articles, requests_about, figures):
    requests = requests_about(articles(100))
    answered = []

    async def kill_after_a_third(backend):
        async def one_answer(request):
            made = await until_answered(backend, request)
            answered.append(made)
            if len(answered) == len(requests) // 3:
                vllm.kill()
                killed_at.append(len(answered))
                restart.start()
            return made

        return await asyncio.gather(*map(one_answer, requests))

    killed_at = []
    restart = threading.Thread(target=lambda: (vllm.start(), vllm.until_healthy()))
    began = time.monotonic()
    made, backend = ask(vllm.address, NEWS, kill_after_a_third, concurrency=16, retries=2)
    restart.join(DEADLINE_S)
    check(made, requests, NEWS)
    assert killed_at == [33]
    assert backend.spent["requests"] > len(requests)
    figures.append(
        f"killed -9 after 33 of 100 answers and restarted: all answered after {time.monotonic() - began:.0f} s, "
        f"{backend.spent['requests']} requests"
    )
