"""Fetches pictures from untrusted URLs: only from public hosts, bounded in bytes, time and redirects.

A host is checked by the address of the very socket that is opened, after its name was resolved: a name that resolves
differently a moment later (DNS rebinding) gains nothing, and every redirect is checked again.
Knows HTTP; decoding is for `gme_data.images`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp
from pydantic import Field

from gme_data.settings import Frozen
from gme_synthesis.steps.addresses import Address, is_public

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ROBOTS_BYTES = 512 * 1024
_CACHED_ROBOTS = 1000
"""Number of hosts whose robots.txt is cached; the oldest is dropped first."""


class FetchConfig(Frozen):
    """Bounds of a fetch."""

    RENAMED: ClassVar[Mapping[str, str]] = {"heed_robots": "obey_robots_txt", "agent": "user_agent"}

    max_bytes: int = Field(default=16 * 2**20, ge=1)
    """Larger files are refused, and not read to the end."""
    timeout_seconds: float = Field(default=20, gt=0)
    """Most seconds for one file, redirects included."""
    max_redirects: int = Field(default=5, ge=0)
    """Most redirects that are followed."""
    other_hosts: bool = False
    """Whether redirects to other hosts and ports are followed: to public ones, each checked anew. Otherwise only those
    within the origin of the URL are, and those from http to https of the same host."""
    concurrency: int = Field(default=16, ge=1)
    """Number of files fetched at a time."""
    obey_robots_txt: bool = True
    """Whether files that a host's robots.txt forbids are left alone."""
    user_agent: str = "gme-foundry"
    """User agent of the requests, also in robots.txt."""


class FetchError(Exception):
    """A file that was not fetched; the message is the reason, a word or two with dashes."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """The bytes of a file, and the URL that they came from after redirects."""

    data: bytes
    url: str


class Fetcher:
    """Fetches files within `config`. Close it when done.

    Args:
        config: Bounds of the fetch.
        allowed: Says whether an address may be connected to.
    """

    def __init__(self, config: FetchConfig, allowed: Callable[[Address], bool] = is_public) -> None:
        self._config, self._allowed = config, allowed
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._robots: dict[str, RobotFileParser] = {}

    def fetch(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        """Returns for each URL its file, or the reason why there is none."""
        return self._loop.run_until_complete(self._fetch_all(urls))

    def close(self) -> None:
        """Closes all connections."""
        if self._session:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _fetch_all(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        semaphore = asyncio.Semaphore(self._config.concurrency)

        async def fetch(url: str) -> FetchedFile | str:
            async with semaphore:
                return await self._fetch(url)

        return await asyncio.gather(*map(fetch, urls))

    async def _fetch(self, url: str) -> FetchedFile | str:
        try:
            async with asyncio.timeout(self._config.timeout_seconds):
                return await self._follow(url, self._config.max_bytes, obey_robots_txt=self._config.obey_robots_txt)
        except FetchError as error:
            return str(error)
        except TimeoutError:
            return "timeout"
        except aiohttp.InvalidURL:
            return "bad-address"
        except (aiohttp.ClientError, OSError, ValueError):
            return "no-answer"

    async def _follow(self, url: str, max_bytes: int, *, obey_robots_txt: bool) -> FetchedFile:
        """Returns the file of a URL after redirects. Raises `FetchError` for a response that is none."""
        for _ in range(self._config.max_redirects + 1):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
                raise FetchError("bad-address")
            if obey_robots_txt and not await self._is_allowed_by_robots(url):
                raise FetchError("robots")
            async with self._open_session().get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = self._redirected(url, response.headers["Location"])
                    continue
                if response.status != 200:
                    raise FetchError(f"status-{response.status}")
                return FetchedFile(await _read(response, max_bytes), url)
        raise FetchError("too-many-redirects")

    def _redirected(self, url: str, location: str) -> str:
        to = urljoin(url, location)
        before, after = _origin(url), _origin(to)
        if before[0] == "https" and after[0] == "http":
            raise FetchError("redirect-to-plain-http")
        is_upgrade = before == ("http", after[1], 80) and after[0] == "https" and after[2] == 443
        if not self._config.other_hosts and before != after and not is_upgrade:
            raise FetchError("redirect-elsewhere")
        return to

    async def _is_allowed_by_robots(self, url: str) -> bool:
        """Says whether the host's robots.txt allows a URL; a host without one allows all (RFC 9309, 2.3.1.3)."""
        site = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        rules = self._robots.get(site)
        if rules is None:
            rules = RobotFileParser()
            try:
                file = await self._follow(f"{site}/robots.txt", _ROBOTS_BYTES, obey_robots_txt=False)
                text = file.data.decode("utf-8", "replace")
            except FetchError as error:
                # Only "not found" and the like mean that there are no rules; a server's error says nothing of them.
                if not str(error).startswith("status-4"):
                    raise
                text = ""
            rules.parse(text.splitlines())
            if len(self._robots) >= _CACHED_ROBOTS:
                del self._robots[next(iter(self._robots))]
            self._robots[site] = rules
        return rules.can_fetch(self._config.user_agent, url)

    def _open_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Returns a socket for an allowed address. It is the last check before anything is sent."""
        family, kind, protocol, _, (host, *_) = address
        if not self._allowed(ipaddress.ip_address(str(host).partition("%")[0])):
            raise FetchError("private-address")
        return socket.socket(family, kind, protocol)

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(socket_factory=self._open_socket, loop=self._loop)
            # No compression: `max_bytes` counts what arrives, and pictures are compressed anyhow.
            headers = {"User-Agent": self._config.user_agent, "Accept-Encoding": "identity"}
            # No proxies and no cookies: a request carries nothing of this machine but its address.
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers=headers,
                auto_decompress=False,
                cookie_jar=aiohttp.DummyCookieJar(loop=self._loop),
                trust_env=False,
            )
        return self._session


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"http": 80, "https": 443}.get(parts.scheme)


async def _read(response: aiohttp.ClientResponse, max_bytes: int) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > max_bytes:
            response.close()
            raise FetchError("too-large")
    return bytes(data)
