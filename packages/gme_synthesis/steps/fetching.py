"""Fetches pictures from addresses that strangers wrote: only from public hosts, bounded in bytes, time and redirects.

A host is judged by the address of the very socket that is opened, after every spelling of it was resolved: a name that
resolves anew in between gains nothing, and every redirect is judged again.
Knows HTTP; decoding is for `gme_data.images`.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import aiohttp
from pydantic import Field

from gme_data.settings import Frozen
from gme_synthesis.steps.addresses import Address, is_public

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_ROBOTS_BYTES = 512 * 1024
_HOSTS_REMEMBERED = 1000
"""Whose robots.txt is kept; the oldest goes first."""


class FetchConfig(Frozen):
    """Bounds of a fetch."""

    max_bytes: int = Field(default=16 * 2**20, ge=1)
    """Larger files are not read to the end."""
    timeout_seconds: float = Field(default=20, gt=0)
    """For one file, redirects included."""
    max_redirects: int = Field(default=5, ge=0)
    """Followed at most."""
    other_hosts: bool = False
    """Follow redirects to other hosts and ports as well: to public ones, each judged anew. Otherwise only within the
    origin that was named, and from http to https of the same host."""
    concurrency: int = Field(default=16, ge=1)
    """Files fetched at a time."""
    obey_robots_txt: bool = True
    """Leave alone what a host's robots.txt forbids."""
    agent: str = "gme-foundry"
    """What we call ourselves."""


class FetchError(Exception):
    """A file that was not fetched; the message is the reason, a word or two with dashes."""


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """Bytes, and the address that they came from in the end."""

    data: bytes
    url: str


class Fetcher:
    """Fetches files within `config`. Close it when done.

    Args:
        config: Bounds.
        allowed: Which addresses may be connected to.
    """

    def __init__(self, config: FetchConfig, allowed: Callable[[Address], bool] = is_public) -> None:
        self._config, self._allowed = config, allowed
        self._loop = asyncio.new_event_loop()
        self._session: aiohttp.ClientSession | None = None
        self._robots: dict[str, RobotFileParser] = {}

    def fetch(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        """Each file, or the reason why not."""
        return self._loop.run_until_complete(self._fetch_all(urls))

    def close(self) -> None:
        """Close all connections."""
        if self._session:
            self._loop.run_until_complete(self._session.close())
        self._loop.close()

    async def _fetch_all(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        room = asyncio.Semaphore(self._config.concurrency)

        async def one(url: str) -> FetchedFile | str:
            async with room:
                return await self._fetch(url)

        return await asyncio.gather(*map(one, urls))

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

    async def _follow(self, url: str, most: int, *, obey_robots_txt: bool) -> FetchedFile:
        for _ in range(self._config.max_redirects + 1):
            self._check(url)
            if obey_robots_txt and not await self._welcome(url):
                raise FetchError("robots")
            async with self._connected().get(url, allow_redirects=False) as response:
                if response.status in _REDIRECTS and "Location" in response.headers:
                    url = self._redirected(url, response.headers["Location"])
                    continue
                if response.status != 200:
                    raise FetchError(f"status-{response.status}")
                return FetchedFile(await _read(response, most), url)
        raise FetchError("too-many-redirects")

    def _check(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
            raise FetchError("bad-address")

    def _redirected(self, url: str, location: str) -> str:
        to = urljoin(url, location)
        before, after = _origin(url), _origin(to)
        if before[0] == "https" and after[0] == "http":
            raise FetchError("redirect-to-plain-http")
        is_upgrade = before == ("http", after[1], 80) and after[0] == "https" and after[2] == 443
        if not self._config.other_hosts and before != after and not is_upgrade:
            raise FetchError("redirect-elsewhere")
        return to

    async def _welcome(self, url: str) -> bool:
        """What the host's robots.txt says; a host without one welcomes everybody."""
        home = "{0.scheme}://{0.netloc}".format(urlsplit(url))
        if home not in self._robots:
            rules = RobotFileParser()
            try:
                text = (await self._follow(f"{home}/robots.txt", _ROBOTS_BYTES, obey_robots_txt=False)).data.decode(
                    "utf-8", "replace"
                )
            except FetchError as error:
                if not str(error).startswith("status-4"):
                    raise
                text = ""
            rules.parse(text.splitlines())
            if len(self._robots) >= _HOSTS_REMEMBERED:
                del self._robots[next(iter(self._robots))]
            self._robots[home] = rules
            return rules.can_fetch(self._config.agent, url)
        return self._robots[home].can_fetch(self._config.agent, url)

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for an address that is allowed: the last word before anything is sent."""
        family, kind, protocol, _, (host, *_) = address
        if not self._allowed(ipaddress.ip_address(str(host).partition("%")[0])):
            raise FetchError("private-address")
        return socket.socket(family, kind, protocol)

    def _connected(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(socket_factory=self._socket, loop=self._loop)
            # Nothing is unpacked, so what is counted is what arrives: pictures are compressed anyhow.
            headers = {"User-Agent": self._config.agent, "Accept-Encoding": "identity"}
            # No proxies (the default) and no cookies: nothing of this machine's goes along.
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


async def _read(response: aiohttp.ClientResponse, most: int) -> bytes:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) > most:
            response.close()
            raise FetchError("too-large")
    return bytes(data)
