"""A client for any OpenAI-compatible endpoint (vLLM in production): many requests in flight, none of them unbounded.

It asks for schema-constrained JSON, honours ``Retry-After`` when it retries, and keeps a budget in tokens and money. As
many workers as may be in flight take requests from one iterator, so memory does not grow with the number of requests.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, ClassVar
from urllib.parse import urljoin, urlsplit

import aiohttp
from pydantic import Field

from gme_data.digests import canonical_json
from gme_data.errors import FoundryError
from gme_data.settings import Address, Frozen
from gme_data.structured import StructureError, parse_json
from gme_synthesis.llm.client import Prices
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_THROTTLED, _FIRST_SERVER_ERROR = frozenset({429, 503}), 500
_FATAL = {401: "the key was refused", 403: "access was refused", 404: "there is no such address or model"}
_CHARS_PER_TOKEN = 4
"""The usual estimate for English, for replies that state no usage."""
_RETRYABLE = frozenset({"slowed-down", "server-error", "timeout", "no-answer", "reply-not-json", "reply-wrong-fields"})
"""Problems that may pass; a request with any other problem gets no second try."""
Tokens = Annotated[int, Field(ge=0, lt=2**31)]


# What is read of a response of the chat completions API; its other fields are ignored.
@dataclass(frozen=True, slots=True)
class _ChatCompletionMessage:
    content: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class _ChatCompletionChoice:
    message: _ChatCompletionMessage


@dataclass(frozen=True, slots=True)
class _CompletionUsage:
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class _ChatCompletion:
    choices: Annotated[tuple[_ChatCompletionChoice, ...], Field(min_length=1)]
    usage: _CompletionUsage | None = None


class EndpointConfig(Frozen):
    """Where the language model is and how requests are sent to it."""

    RENAMED: ClassVar[Mapping[str, str]] = {"longest_wait_seconds": "max_wait_seconds"}

    url: Address
    """Base address, such as ``http://localhost:8000/v1``."""
    model: str = "Qwen/Qwen2.5-72B-Instruct"
    """Name of the model at the endpoint."""
    key_variable: str = "GME_LLM_KEY"
    """Environment variable with the key; unset means none."""
    concurrency: int = Field(default=64, ge=1)
    """Requests in flight."""
    temperature: float = Field(default=0.7, ge=0)
    """Temperature of the sampling; its seed is the attempt."""
    guided: bool = True
    """Ask for JSON constrained by the schema of the answer (``response_format: json_schema``)."""
    timeout_seconds: float = Field(default=120, gt=0)
    """Most seconds that one try may take."""
    retries: int = Field(default=4, ge=0)
    """Further tries of a request that got no answer."""
    backoff_seconds: float = Field(default=1.0, gt=0)
    """Wait before the first retry; it is doubled each time."""
    max_wait_seconds: float = Field(default=60, gt=0)
    """No wait is longer, whatever ``Retry-After`` says."""
    max_reply_bytes: int = Field(default=256 * 1024, ge=1024)
    """Larger replies are not read to the end, and refused."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Budget in tokens in and out, of the requests that one process sends."""
    max_dollars: float | None = Field(default=None, gt=0)
    """Budget in dollars, by the prices below."""
    dollars_per_million_in: float = Field(default=0.0, ge=0)
    """Price of a million tokens sent."""
    dollars_per_million_out: float = Field(default=0.0, ge=0)
    """Price of a million tokens answered."""

    @property
    def prices(self) -> Prices:
        """The two prices."""
        return Prices(self.dollars_per_million_in, self.dollars_per_million_out)


class Endpoint:
    """A `LanguageModel` behind HTTP. Close it when done."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._not_before = 0.0  # on the monotonic clock; no request is sent earlier
        self._tokens, self._dollars = 0, 0.0

    @property
    def name(self) -> str:
        """Model and sampling settings; not the address, which may change."""
        return canonical_json([self._config.model, self._config.temperature, self._config.guided])

    @property
    def reads_hints(self) -> bool:
        """See `LanguageModel`."""
        return False

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        """See `LanguageModel`."""
        self._loop.run_until_complete(self._complete(enumerate(requests), on_completion))

    def close(self) -> None:
        """Closes all connections."""
        if self._session:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _complete(self, pending: Iterator[tuple[int, CompletionRequest]], on_completion: OnCompletion) -> None:
        async def work() -> None:
            # One iterator feeds all workers, and there is no queue: a request is read when a worker is free for it.
            for index, request in pending:
                on_completion(index, await self._send(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.concurrency):
                    group.create_task(work())
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _send(self, request: CompletionRequest) -> Completion:
        """Sends one request, with up to `retries` retries; returns its completion, or the last problem."""
        body = self._body(request)
        problem = "no-answer"
        for retry in range(self._config.retries + 1):
            self._check_budget()
            await self._wait_until_allowed()
            try:
                async with asyncio.timeout(self._config.timeout_seconds):
                    completion, retry_after = await self._post(body)
            except TimeoutError:
                completion, retry_after = Completion("", problem="timeout"), None
            except (aiohttp.ClientError, OSError, ValueError):
                completion, retry_after = Completion("", problem="no-answer"), None
            if completion.problem not in _RETRYABLE:
                self._tokens += completion.tokens_in + completion.tokens_out
                self._dollars += self._config.prices.of(completion.tokens_in, completion.tokens_out)
                return completion
            problem = completion.problem
            if retry < self._config.retries:
                await self._back_off(retry, retry_after)
        return Completion("", problem=problem)

    async def _post(self, body: bytes) -> tuple[Completion, float | None]:
        """Returns the completion, and for how many seconds the endpoint asks to be left alone, if it does."""
        url = f"{self._config.url.rstrip('/')}/chat/completions"
        # A redirect with status 307 would carry the passage to whomever it names.
        async with self._open_session().post(url, data=body, allow_redirects=False) as response:
            if response.status in _REDIRECTS:
                to = urlsplit(urljoin(url, response.headers.get("Location", "")))
                raise FoundryError(
                    f"{self._config.url} redirects to {to.scheme}://{to.hostname or ''} (status {response.status}); "
                    "passages are sent to the address in the config and to no other.",
                    hint="Set `url` to the address that answers, if you trust it.",
                )
            if response.status in _FATAL:
                raise FoundryError(
                    f"{self._config.url}: {_FATAL[response.status]} (status {response.status}).",
                    hint=f"Check `url` and `model`, and the key in {self._config.key_variable}.",
                )
            if response.status in _THROTTLED:
                return Completion("", problem="slowed-down"), _parse_retry_after(response.headers.get("Retry-After"))
            if response.status >= _FIRST_SERVER_ERROR:
                return Completion("", problem="server-error"), None
            if response.status != 200:
                return Completion("", problem=f"status-{response.status}"), None
            data = await self._read(response)
        return (Completion("", problem="reply-too-large") if data is None else _parse_completion(data, body)), None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """Returns the body of a response; None if it is larger than allowed."""
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > self._config.max_reply_bytes:
                response.close()
                return None
        return bytes(data)

    def _body(self, request: CompletionRequest) -> bytes:
        prompt = request.prompt
        body: dict[str, Any] = {
            "model": self._config.model,
            "messages": prompt.messages(request.inputs),
            "temperature": self._config.temperature,
            "max_tokens": prompt.max_tokens,
            "seed": request.attempt,
        }
        if self._config.guided:
            schema = {"name": prompt.name, "schema": prompt.schema_of_answer, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body, ensure_ascii=False).encode()

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = _read_key(self._config.key_variable)
            # No compression: `max_reply_bytes` counts what arrives, and a small body could unpack to gigabytes.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            # No proxies of the environment and no cookies: passages go to the configured address alone.
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=self._config.concurrency, loop=self._loop),
                headers={**headers, **({"Authorization": f"Bearer {key}"} if key else {})},
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(loop=self._loop),
                trust_env=False,
            )
        return self._session

    def _check_budget(self) -> None:
        tokens, dollars = self._config.max_tokens, self._config.max_dollars
        if (tokens and self._tokens >= tokens) or (dollars and self._dollars >= dollars):
            raise FoundryError(
                f"The budget of the language model is used up: {self._tokens:,} tokens, {self._dollars:.2f} dollars.",
                hint="Every answer is kept. Raise max_tokens or max_dollars and run the same command again.",
            )

    async def _wait_until_allowed(self) -> None:
        # In a loop, since another worker may be told to wait longer while this one sleeps.
        while (remaining := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(remaining)

    async def _back_off(self, retry: int, retry_after: float | None) -> None:
        wait = min(retry_after or self._config.backoff_seconds * 2**retry, self._config.max_wait_seconds)
        # An endpoint that asks for time is overloaded by all workers together, so all of them wait.
        if retry_after is not None:
            self._not_before = max(self._not_before, time.monotonic() + wait)
        else:
            await asyncio.sleep(wait)


def _parse_completion(data: bytes, body: bytes) -> Completion:
    """Returns the completion in the `data` of a response to `body`; tokens that it doesn't state are estimated."""
    try:
        parse_json(data, object, where="reply")
    except StructureError:
        return Completion("", problem="reply-not-json")
    try:
        value = parse_json(data, _ChatCompletion, where="reply")
    except StructureError:
        return Completion("", problem="reply-wrong-fields")
    message, usage = value.choices[0].message, value.usage or _CompletionUsage()
    text = message.content or message.refusal or ""
    tokens_in = usage.prompt_tokens or len(body) // _CHARS_PER_TOKEN
    tokens_out = usage.completion_tokens or len(text) // _CHARS_PER_TOKEN
    return Completion(text, tokens_in, tokens_out)


def _read_key(variable: str) -> str:
    """Returns the key in an environment variable, without white space around it; empty if the variable is not set.

    Raises:
        FoundryError: The key has characters that a header can't hold.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise FoundryError(f"The key in {variable} has characters that no key has.", hint="Copy it once more.")
    return key


def _parse_retry_after(header: str | None) -> float | None:
    """Returns the seconds of a ``Retry-After`` header, which is a number of seconds or a date (RFC 9110, 10.2.3)."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None
