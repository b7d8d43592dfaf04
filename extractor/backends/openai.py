"""Knowledge from a language model behind any OpenAI-compatible server (vLLM is the reference): the only importer of `openai`.

What may get better by waiting (429, 5xx, time-outs, a refused connection) is tried again with exponential back-off and jitter, or
after what the server's Retry-After asks for; what the server says about one prompt (400, 413, 422) concerns that subject alone; a
wrong key, address or model stops with a message. An answer that cannot be used is asked for once more, with the reason.
"""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import time
from collections import Counter
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

import tenacity

from contracts.errors import SettingsError, UnavailableError
from extractor.answers import RejectedAnswerError, Rejection
from extractor.chat import Asked, ChatReply, Usage, knowledge_of, read_reply, request_body
from extractor.prompts import Prompt, build_prompt

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from contracts.records import Knowledge, KnowledgeRequest
    from contracts.settings import Extract
    from extractor.scenario import Scenario

BACKOFF_S: Final = 0.5  # first pause; doubles, with as much jitter
MAX_PAUSE_S: Final = 60.0  # also of Retry-After: beyond it the caller's own retry takes over

_AGAIN_STATUS: Final = frozenset(
    {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}
)
_SETTINGS_STATUS: Final[dict[int, str]] = {
    HTTPStatus.UNAUTHORIZED: "set extract.api_key (REKI__EXTRACT__API_KEY) to a key that this server accepts",
    HTTPStatus.FORBIDDEN: "use a key (extract.api_key) that may use this model",
    HTTPStatus.NOT_FOUND: "check extract.base_url (most end in /v1) and extract.model against the server's /models",
}
# fixed sentences: nothing that a model wrote is quoted back into a prompt
_ADVICE: Final[dict[Rejection, str]] = {
    "cut off": "it was too long and was cut off; use fewer words",
    "refusal": "it declined; describing is all that is asked, and leaving factors empty is fine",
    "invalid JSON": "it was not one valid JSON object",
    "wrong shape": 'it was not {"factors": {...}, "summary": "..."} with exactly the factors listed',
    "too few factors": "too many factors were empty",
    "too long": "a text in it was too long; use fewer words",
    "server refused": "",
}


class _TryAgainError(Exception):
    """One try failed in a way that waiting may mend. ``wait_s`` is what the server asked for, if it did."""

    def __init__(self, what: str, wait_s: float | None = None) -> None:
        super().__init__(what)
        self.wait_s = wait_s


class OpenAIBackend:
    """A `KnowledgeBackend` over HTTP. One client, used from one event loop.

    ``spent`` counts requests, retries, rejected answers (by reason) and tokens, also those of answers that were thrown away.

    Args:
        settings: Address, model, key and bounds.
        scenario: What is asked.
        backoff_s: First pause between two tries.

    Raises:
        SettingsError: No model is named, or the address is none.
    """

    tier: Final = "individual"

    def __init__(self, settings: Extract, scenario: Scenario, *, backoff_s: float = BACKOFF_S) -> None:
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
        self.spent: Counter[str] = Counter()
        self._slots = asyncio.Semaphore(settings.concurrency)
        self._client: AsyncOpenAI | None = None
        self._pause = tenacity.wait_exponential(multiplier=backoff_s, max=MAX_PAUSE_S / 2) + tenacity.wait_random(0, backoff_s)

    async def extract(self, request: KnowledgeRequest) -> Knowledge:
        """Knowledge of tier ``individual`` for one subject; at most ``settings.concurrency`` are under way at once.

        Raises:
            RecordError: There is nothing in the request to ask about.
            RejectedAnswerError: The answer cannot be used, also the second one; or the server refuses this very prompt.
            UnavailableError: The server does not answer, after ``settings.retries`` tries.
            SettingsError: The server refuses the key, the model or the address.
        """
        prompt = build_prompt(self.scenario, request)
        async with self._slots:
            first = await self._ask(prompt)
            try:
                return self._knowledge(first, request)
            except RejectedAnswerError as rejected:
                advice = f"\n\nA first answer could not be used: {_ADVICE[rejected.reason]}."
                second = await self._ask(replace(prompt, user=prompt.user + advice))
            second.usage = _sum(first.usage, second.usage)
            return self._knowledge(second, request)

    async def aclose(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _knowledge(self, reply: ChatReply, request: KnowledgeRequest) -> Knowledge:
        try:
            return knowledge_of(reply, self.scenario, Asked.of(request), backend="openai")
        except RejectedAnswerError as rejected:
            self.spent[f"rejected: {rejected.reason}"] += 1
            raise

    async def _ask(self, prompt: Prompt) -> ChatReply:
        """One reply, however many tries it takes within the bound."""
        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(_TryAgainError),
            stop=tenacity.stop_after_attempt(self.settings.retries),
            wait=self._wait,
            before_sleep=self._count_retry,
            reraise=True,
        )
        try:
            raw: bytes = await retrying(self._try_once, prompt)
        except _TryAgainError as last:
            raise UnavailableError(
                f"{last} from {self.settings.base_url}, {self.settings.retries} times",
                wanted="an answer of the model server",
                todo="start it or check extract.base_url; the request is kept and tried again",
            ) from last
        reply = read_reply(raw)
        if reply.usage is not None:
            self.spent["tokens_in"] += reply.usage.prompt_tokens or 0
            self.spent["tokens_out"] += reply.usage.completion_tokens or 0
        return reply

    async def _try_once(self, prompt: Prompt) -> bytes:
        import openai

        client = self._connect()
        body = request_body(prompt, model=self.settings.model, max_tokens=self.settings.max_answer_tokens)
        self.spent["requests"] += 1
        try:
            # the client's own time-out is per read; this one bounds the whole, so that a server that drips cannot hold a slot
            async with asyncio.timeout(self.settings.timeout_s):
                response = await client.chat.completions.with_raw_response.create(**body)
                content: bytes = response.http_response.content
        except (TimeoutError, openai.APITimeoutError) as error:
            raise _TryAgainError(f"no answer within {self.settings.timeout_s:g} s") from error
        except openai.APIConnectionError as error:
            raise _TryAgainError(f"no connection ({error.__cause__ or error})") from error
        except openai.APIStatusError as error:
            self._raise_for(error.status_code, error.response.headers.get("retry-after"), error.message)
        return content

    def _raise_for(self, status: int, retry_after: str | None, message: str) -> NoReturn:
        if status in _AGAIN_STATUS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            raise _TryAgainError(f"HTTP {status}", _seconds(retry_after))
        where = f"HTTP {status} from {self.settings.base_url} for model {self.settings.model!r}"
        if status in _SETTINGS_STATUS:  # without the server's words: some servers repeat the key in them
            raise SettingsError(where, wanted="a model server that answers", todo=_SETTINGS_STATUS[status])
        secret = self.settings.api_key.get_secret_value()
        said = message.replace(secret, "******") if secret else message
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
    pairs = (first.prompt_tokens, second.prompt_tokens), (first.completion_tokens, second.completion_tokens)
    n_in, n_out = (None if a is None or b is None else a + b for a, b in pairs)
    return Usage(prompt_tokens=n_in, completion_tokens=n_out)
