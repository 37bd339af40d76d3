"""A client for any OpenAI-compatible endpoint (vLLM in production): many requests in flight, none of them unbounded.

Schema-constrained JSON, retries that heed ``Retry-After``, a budget in tokens and money. As many workers as may be in
flight take requests from one iterator, so memory does not depend on how many there are.
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

_MOVED = frozenset({301, 302, 303, 307, 308})
_SLOWED, _BROKEN = {429, 503}, 500
_FATAL = {401: "the key was refused", 403: "access was refused", 404: "there is no such address or model"}
_CHARS_PER_TOKEN = 4
Numbered = tuple[int, CompletionRequest]
Tokens = Annotated[int, Field(ge=0, lt=2**31)]


@dataclass(frozen=True, slots=True)
class _Message:
    content: str | None = None
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class _Choice:
    message: _Message


@dataclass(frozen=True, slots=True)
class _Usage:
    prompt_tokens: Tokens | None = None
    completion_tokens: Tokens | None = None


@dataclass(frozen=True, slots=True)
class _Completion:
    """What is read of a reply; other fields are passed over."""

    choices: Annotated[tuple[_Choice, ...], Field(min_length=1)]
    usage: _Usage | None = None


class EndpointConfig(Frozen):
    """Where the language model is and how it is asked."""

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
    """Of the sampling; the seed is the attempt."""
    guided: bool = True
    """Ask for JSON constrained by the schema of the answer (``response_format: json_schema``)."""
    timeout_seconds: float = Field(default=120, gt=0)
    """For one try."""
    retries: int = Field(default=4, ge=0)
    """Further tries of a request that got no answer."""
    backoff_seconds: float = Field(default=1.0, gt=0)
    """Wait before the first retry; doubled each time."""
    max_wait_seconds: float = Field(default=60, gt=0)
    """No wait is longer, whatever ``Retry-After`` says."""
    max_reply_bytes: int = Field(default=256 * 1024, ge=1024)
    """Larger replies are cut off and refused."""
    max_tokens: int | None = Field(default=None, ge=1)
    """Budget: tokens in and out, of requests sent by one process."""
    max_dollars: float | None = Field(default=None, gt=0)
    """Budget: money, by the prices below."""
    dollars_per_million_in: float = Field(default=0.0, ge=0)
    """Price of tokens sent."""
    dollars_per_million_out: float = Field(default=0.0, ge=0)
    """Price of tokens answered."""

    @property
    def prices(self) -> Prices:
        """For the account."""
        return Prices(self.dollars_per_million_in, self.dollars_per_million_out)


class Endpoint:
    """A language model behind HTTP; see `LanguageModel`. Close it when done."""

    def __init__(self, config: EndpointConfig) -> None:
        self._config = config
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._not_before = 0.0
        self._tokens, self._dollars = 0, 0.0

    @property
    def name(self) -> str:
        """Model and sampling settings; not the address, which may change."""
        return canonical_json([self._config.model, self._config.temperature, self._config.guided])

    @property
    def reads_hints(self) -> bool:
        """See `LanguageModel`."""
        return False

    def complete(self, requests: Iterable[CompletionRequest], answered: OnCompletion) -> None:
        """See `LanguageModel`."""
        self._loop.run_until_complete(self._complete(enumerate(requests), answered))

    def close(self) -> None:
        """Close all connections."""
        if self._session:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _complete(self, pending: Iterator[Numbered], answered: OnCompletion) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._config.concurrency):
                    group.create_task(self._work(pending, answered))
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None

    async def _work(self, pending: Iterator[Numbered], answered: OnCompletion) -> None:
        """Take one request after the other from what all workers share."""
        for number, request in pending:
            answered(number, await self._ask(request))

    async def _ask(self, request: CompletionRequest) -> Completion:
        body = self._body(request)
        problem = "no-answer"
        for retry in range(self._config.retries + 1):
            self._check_budget()
            await self._brake()
            try:
                async with asyncio.timeout(self._config.timeout_seconds):
                    reply, wait = await self._post(body)
            except TimeoutError:
                reply, wait = Completion("", problem="timeout"), None
            except (aiohttp.ClientError, OSError, ValueError):
                reply, wait = Completion("", problem="no-answer"), None
            if reply.problem not in _WORTH_A_RETRY:
                self._tokens += reply.tokens_in + reply.tokens_out
                self._dollars += self._config.prices.of(reply.tokens_in, reply.tokens_out)
                return reply
            problem = reply.problem
            if retry < self._config.retries:
                await self._wait(retry, wait)
        return Completion("", problem=problem)

    async def _post(self, body: bytes) -> tuple[Completion, float | None]:
        """The reply, and how long the endpoint asks to be left alone."""
        url = f"{self._config.url.rstrip('/')}/chat/completions"
        # A redirect with status 307 would carry the passage to whomever it names.
        async with self._connected().post(url, data=body, allow_redirects=False) as response:
            if response.status in _MOVED:
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
            if response.status in _SLOWED:
                return Completion("", problem="slowed-down"), _seconds(response.headers.get("Retry-After"))
            if response.status >= _BROKEN:
                return Completion("", problem="server-error"), None
            if response.status != 200:
                return Completion("", problem=f"status-{response.status}"), None
            data = await self._read(response)
        return (Completion("", problem="reply-too-large") if data is None else _reply(data, body)), None

    async def _read(self, response: aiohttp.ClientResponse) -> bytes | None:
        """The whole body; None if it is larger than allowed."""
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
            "messages": prompt.messages(request.given),
            "temperature": self._config.temperature,
            "max_tokens": prompt.max_tokens,
            "seed": request.attempt,
        }
        if self._config.guided:
            schema = {"name": prompt.name, "schema": prompt.schema_of_answer, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return json.dumps(body, ensure_ascii=False).encode()

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            key = _key(self._config.key_variable)
            # Nothing is unpacked, so what is counted is what arrives.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
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

    async def _brake(self) -> None:
        """When one request is told to wait, all do."""
        while (left := self._not_before - time.monotonic()) > 0:
            await asyncio.sleep(left)

    async def _wait(self, retry: int, told: float | None) -> None:
        wait = min(told or self._config.backoff_seconds * 2**retry, self._config.max_wait_seconds)
        if told is not None:
            self._not_before = max(self._not_before, time.monotonic() + wait)
        else:
            await asyncio.sleep(wait)


_WORTH_A_RETRY = frozenset(
    {"slowed-down", "server-error", "timeout", "no-answer", "reply-not-json", "reply-wrong-fields"}
)


def _reply(data: bytes, body: bytes) -> Completion:
    """What a body of status 200 says; tokens are estimated where it doesn't say."""
    try:
        parse_json(data, object, where="reply")
    except StructureError:
        return Completion("", problem="reply-not-json")
    try:
        value = parse_json(data, _Completion, where="reply")
    except StructureError:
        return Completion("", problem="reply-wrong-fields")
    message, usage = value.choices[0].message, value.usage or _Usage()
    text = message.content or message.refusal or ""
    tokens_in = usage.prompt_tokens or len(body) // _CHARS_PER_TOKEN
    tokens_out = usage.completion_tokens or len(text) // _CHARS_PER_TOKEN
    return Completion(text, tokens_in, tokens_out)


def _key(variable: str) -> str:
    """The key in an environment variable, without white space around it; empty if there is none.

    Raises:
        FoundryError: No header can hold it.
    """
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise FoundryError(f"The key in {variable} has characters that no key has.", hint="Copy it once more.")
    return key


def _seconds(header: str | None) -> float | None:
    """``Retry-After`` in seconds, from a number or a date."""
    if not header:
        return None
    try:
        return max(0.0, float(header))
    except ValueError:
        with suppress(ValueError, TypeError, OverflowError):
            return max(0.0, parsedate_to_datetime(header).timestamp() - time.time())
    return None
