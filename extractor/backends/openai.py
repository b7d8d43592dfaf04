"""Knowledge from a language model behind any OpenAI-compatible server (vLLM is the reference): the only importer of `openai`.

`extractor.access` decides when a request may go out. What may get better by waiting (429, 5xx, time-outs, a refused connection)
is tried again with exponential back-off and jitter, or after what the server's Retry-After asks for, until the circuit breaker
opens; what the server says about one prompt (400, 413, 422) concerns that subject alone; a wrong key, address or model stops
with a message. An answer that cannot be used is asked for once more, with the reason.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import time
from collections import Counter
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

import tenacity

from contracts.errors import SettingsError, UnavailableError
from contracts.subjects import split_subject
from extractor.access import MAX_PAUSE_S, Access
from extractor.answers import RejectedAnswerError, Rejection
from extractor.budget import CHARS_PER_TOKEN
from extractor.chat import Asked, ChatReply, PromptDetails, Usage, knowledge_of, read_reply, request_body, tier_of
from extractor.prompts import Prompt, build_prompt

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

    from contracts.records import Knowledge, KnowledgeRequest, Tier
    from contracts.settings import Extract
    from contracts.subjects import Kind
    from extractor.access import Place, Try
    from extractor.on_disk import JsonOnDisk
    from extractor.scenario import Scenario

BACKOFF_S: Final = 0.5  # first pause; doubles, with as much jitter

_AGAIN_STATUS: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_OVERLOADED_STATUS: Final = frozenset(
    {HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT, HTTPStatus.REQUEST_TIMEOUT}
)
_SETTINGS_STATUS: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "set extract.api_key (REKI__EXTRACT__API_KEY) to a key that this server accepts",
    HTTPStatus.PAYMENT_REQUIRED: "pay for more, or set extract.base_url and extract.model to a server that answers",
    HTTPStatus.FORBIDDEN: "use a key (extract.api_key) that may use this model",
    HTTPStatus.NOT_FOUND: "check extract.base_url (most end in /v1) and extract.model against the server's /models",
    HTTPStatus.PROXY_AUTHENTICATION_REQUIRED: "put user and password of the proxy into HTTPS_PROXY, or the server into NO_PROXY",
}
_REFUSED_IN_A_ROW: Final = 20  # prompts without an answer to any in between: it is not the prompts
# fixed sentences: nothing that a model wrote is quoted back into a prompt
_ADVICE: Final[dict[Rejection, str]] = {
    "cut off": "it was too long and was cut off; use fewer words",
    "refusal": "it declined; describing is all that is asked, and leaving factors empty is fine",
    "invalid JSON": "it was not one valid JSON object",
    "wrong shape": 'it was not {"factors": {...}, "summary": "..."} with exactly the factors listed',
    "too few factors": "too many factors were empty",
    "too long": "a text in it was too long; use fewer words",
    "another language": "it was in another language; use the language in which the factors are described",
    "server refused": "",
}


class _TryAgainError(Exception):
    """One try failed in a way that waiting may mend. ``wait_s`` is what the server asked for, if it did."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


SpentOn = tuple[str, "Kind", "Tier"]
"""What was counted, for which kind of subject, for which tier: ``("tokens_in", "item", "individual")``."""


class OpenAIBackend:
    """A `KnowledgeBackend` over HTTP. One client, used from one event loop.

    ``spent`` counts requests, retries, rejected answers (by reason) and tokens, also those of answers that were thrown away;
    ``spent_on`` the same requests and tokens by kind of subject and tier, and the ``answers`` they led to.

    Args:
        settings: Address, model, key, bounds and prices.
        scenario: What is asked.
        spending: Where the day's tokens are kept over a restart, if they are bounded.
        backoff_s: First pause between two tries.

    Raises:
        SettingsError: No model is named, or the address is none.
    """

    tier: Final = "individual"

    def __init__(
        self, settings: Extract, scenario: Scenario, *, spending: JsonOnDisk | None = None, backoff_s: float = BACKOFF_S
    ) -> None:
        mistakes = []
        if not settings.model:
            mistakes.append("no extract.model")
        if urlsplit(settings.base_url).scheme not in {"http", "https"}:
            mistakes.append(f"extract.base_url {settings.base_url!r}")
        if mistakes:
            raise SettingsError(
                " and ".join(mistakes),
                wanted="a model name as the server's /models lists it, at http://HOST:PORT/v1",
                todo="set them in reki.toml, or choose extract.backend = 'attributes'",
            )
        self.settings = settings
        self.scenario = scenario
        self.access = Access(settings, spending)
        self.spent: Counter[str] = Counter()
        self.spent_on: Counter[SpentOn] = Counter()
        self._client: AsyncOpenAI | None = None
        self._refused = 0  # in a row
        self._pause = tenacity.wait_exponential(multiplier=backoff_s, max=MAX_PAUSE_S / 2) + tenacity.wait_random(0, backoff_s)

    def known(self, request: KnowledgeRequest) -> Knowledge | None:  # noqa: ARG002 - the port's argument
        """Nothing is kept here: `extractor.answer_cache.CachedBackend` does that."""
        return None

    async def ready(self) -> None:
        """Return when a request would be sent at once, as `Access.ready` says."""
        await self.access.ready()

    async def extract(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge for one subject: of tier ``collective`` for a cluster, else ``individual``.

        Waits for a place where there is none; cancelled, it gives the place back and nothing is lost but the answer.

        Raises:
            RecordError: There is nothing in the request to ask about.
            RejectedAnswerError: The answer cannot be used, also the second one; or the server refuses this very prompt.
            UnavailableError: The server does not answer, after ``settings.retries`` tries or with the circuit breaker open.
            SettingsError: The server refuses the key, the model or the address.
        """
        prompt = build_prompt(self.scenario, request)
        ask = partial(self._ask, subject=request.subject)
        async with self.access.place() as place:
            first = await ask(place, prompt)
            try:
                made = self._knowledge(first, request)
            except RejectedAnswerError as rejected:
                advice = f"\n\nA first answer could not be used: {_ADVICE[rejected.reason]}."
                second = await ask(place, replace(prompt, user=prompt.user + advice))
                second.usage = _sum(first.usage, second.usage)
                made = self._knowledge(second, request)
        self._count("answers", request.subject)
        return made

    def cost(self) -> dict[tuple[str, ...], float]:
        """What was spent so far at the prices set, by kind of subject and tier. Cached prompt tokens cost as others do."""
        cost: dict[tuple[str, ...], float] = {}
        for (what, kind, tier), n in dict(self.spent_on).items():
            price = {"tokens_in": self.settings.price_in, "tokens_out": self.settings.price_out}.get(what, 0.0)
            cost[kind, tier] = cost.get((kind, tier), 0.0) + n * price / 1e6
        return cost

    async def aclose(self) -> None:
        """Close the connections."""
        self.access.budget.close()
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _count(self, what: str, subject: str, n: int = 1) -> None:
        self.spent[what] += n
        self.spent_on[what, split_subject(subject)[0], tier_of(subject)] += n

    def _knowledge(self, reply: ChatReply, request: KnowledgeRequest) -> Knowledge:
        try:
            return knowledge_of(reply, self.scenario, Asked.of(request), backend="openai")
        except RejectedAnswerError as rejected:
            self.spent[f"rejected: {rejected.reason}"] += 1
            raise

    async def _ask(self, place: Place, prompt: Prompt, *, subject: str) -> ChatReply:
        """One reply, however many tries it takes within the bound."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            stop=tenacity.stop_after_attempt(self.settings.retries),
            wait=self._wait,
            before_sleep=self._count_retry,
            sleep=place.rest,
            reraise=True,
        )
        try:
            reply: ChatReply = await retrying(self._try_once, place, prompt, subject)
        except _TryAgainError as last:
            raise UnavailableError(
                f"{last} from {self.settings.base_url}, {self.settings.retries} times",
                wanted="an answer of the model server",
                todo="start it or check extract.base_url; the request is kept and tried again",
            ) from last
        return reply

    async def _try_once(self, place: Place, prompt: Prompt, subject: str) -> ChatReply:
        import openai

        client = self._connect()
        body = request_body(prompt, model=self.settings.model, max_tokens=self.settings.max_answer_tokens)
        n_chars = len(prompt.system) + len(prompt.user)
        async with place.sending(n_chars // CHARS_PER_TOKEN + self.settings.max_answer_tokens) as one_try:
            self._count("requests", subject)
            try:
                # the client's own time-out is per read; this one bounds the whole, so that a server that drips cannot hold a slot
                async with asyncio.timeout(self.settings.timeout_s):
                    # not `chat.completions.create`: it walks through the body by type hints, a quarter of the client's work
                    content = await client.post("/chat/completions", cast_to=str, body=body)
            except (TimeoutError, openai.APITimeoutError) as error:
                one_try.timed_out()
                raise _TryAgainError(f"no answer within {self.settings.timeout_s:g} s") from error
            except openai.APIConnectionError as error:
                one_try.failed()
                raise _TryAgainError(f"no connection ({error.__cause__ or error})") from error
            except openai.APIStatusError as error:
                self._raise_for(one_try, error)
            return self._reply(one_try, content, subject)

    def _reply(self, one_try: Try, content: str, subject: str) -> ChatReply:
        try:
            reply = read_reply(content)
        except RejectedAnswerError:
            one_try.alive()
            self.spent["rejected: wrong shape"] += 1
            raise
        usage = reply.usage or Usage()
        tokens_in, tokens_out = usage.prompt_tokens, usage.completion_tokens
        self._refused = 0
        one_try.answered(None if tokens_in is None and tokens_out is None else (tokens_in or 0) + (tokens_out or 0))
        for what, n in (("tokens_in", tokens_in), ("tokens_out", tokens_out), ("tokens_cached", usage.cached_tokens)):
            self._count(what, subject, n or 0)
        return reply

    def _raise_for(self, one_try: Try, error: APIStatusError) -> NoReturn:
        status, server_failed = error.status_code, error.status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
        if status in _AGAIN_STATUS or server_failed:
            wait_s = _seconds(error.response.headers.get("retry-after"))
            if status in _OVERLOADED_STATUS:
                one_try.refused(wait_s, failed=status != HTTPStatus.TOO_MANY_REQUESTS)
            elif server_failed:
                one_try.failed(wait_s)
            else:
                one_try.alive()
            raise _TryAgainError(f"HTTP {status}", wait_s)
        where = f"HTTP {status} from {self.settings.base_url} for model {self.settings.model!r}"
        if status in _SETTINGS_STATUS:  # without the server's words: some servers repeat the key in them
            one_try.failed()
            raise SettingsError(where, wanted="a model server that answers", todo=_SETTINGS_STATUS[status])
        self._refused += 1
        if self._refused >= _REFUSED_IN_A_ROW:
            one_try.failed()
            raise SettingsError(
                f"{where}, {self._refused} prompts in a row",
                wanted="an answer to any of them",
                todo="see what the server logs about them",
            )
        one_try.alive()
        secret = self.settings.api_key.get_secret_value()
        said = error.message.replace(secret, "******") if secret else error.message
        self.spent["rejected: server refused"] += 1
        raise RejectedAnswerError("server refused", f"{where}: {said}")

    def _connect(self) -> AsyncOpenAI:
        if self._client is None:
            from openai import AsyncOpenAI, DefaultAsyncHttpxClient

            self._client = AsyncOpenAI(
                base_url=self.settings.base_url,
                api_key=self.settings.api_key.get_secret_value() or "none",
                timeout=self.settings.timeout_s,
                max_retries=0,  # tenacity's, so that one place decides
                # a server on this machine is never reached through a proxy
                http_client=DefaultAsyncHttpxClient(trust_env=not _is_loopback(self.settings.base_url)),
            )
        return self._client

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = error.wait_s if isinstance(error, _TryAgainError) else None
        return min(MAX_PAUSE_S, asked) if asked is not None else self._pause(state)

    def _count_retry(self, _state: tenacity.RetryCallState) -> None:
        self.spent["retries"] += 1


def _seconds(retry_after: str | None) -> float | None:
    """Retry-After in seconds: a number or an HTTP date; None where there is none, or it is neither."""
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except ValueError:
        return None


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _sum(first: Usage | None, second: Usage | None) -> Usage | None:
    """Tokens of both replies; None where the server did not count both."""
    if first is None or second is None:
        return None
    pairs = (
        (first.prompt_tokens, second.prompt_tokens),
        (first.completion_tokens, second.completion_tokens),
        (first.cached_tokens, second.cached_tokens),
    )
    n_in, n_out, n_cached = (None if a is None or b is None else a + b for a, b in pairs)
    return Usage(prompt_tokens=n_in, completion_tokens=n_out, prompt_tokens_details=PromptDetails(cached_tokens=n_cached))
