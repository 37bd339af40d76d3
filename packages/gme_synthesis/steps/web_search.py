"""Pictures by a search service over HTTP, whichever: where its answer has what is said in the config.

Answers are journaled like those of a language model, since they are paid for; the pictures they point to are fetched
from public hosts only. What the service says of licence and robots stays with the picture.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar
from urllib.parse import urlencode

from pydantic import ConfigDict, Field, field_validator
from pydantic_core import PydanticCustomError

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb
from gme_data.settings import UNSHOWN_INPUT, Address, Frozen
from gme_data.structured import StructureError, parse_json
from gme_synthesis.candidates import Sight
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.steps.cleaning import plain_label
from gme_synthesis.steps.fetching import FetchConfig, Fetched, Fetcher
from gme_synthesis.steps.picture_search import Keep

_LONGEST = 4096
"""Characters of an address or a licence."""
_SECRET = re.compile(r"(?:^|api|[\W_])key$|token|secret|passw|credential|signature|^auth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Result:
    """What a search found: the picture's address, its licence, and what its page says to robots."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    picture: str
    licence: str
    robots: str


class WebSearchConfig(Frozen):
    """A search service."""

    url: Address
    """Address of the search, without its parameters."""
    query_parameter: str = "q"
    """Parameter with what is searched for."""
    parameters: dict[str, str] = Field(default={})
    """Further parameters, such as the number of results or a safe-search level; no secrets, they are on record."""
    key_parameter: str = "key"
    """Parameter with the key."""
    key_variable: str = "GME_SEARCH_KEY"
    """Environment variable with the key; unset means none."""
    results: str = "items"
    """Where the list of results is, names separated by dots."""
    picture: str = "link"
    """In a result: the address of the picture."""
    licence: str = "licence"
    """In a result: its licence."""
    robots: str = "robots"
    """In a result: what its page says to robots; ``noindex`` and ``noimageindex`` are heeded."""
    allow: tuple[str, ...] = ()
    """Licences that are taken, as the service names them; empty is all, and unknown ones are called ``unknown``."""
    fetch: FetchConfig = FetchConfig()
    """Bounds for fetching pictures and answers."""

    @field_validator("parameters")
    @classmethod
    def _hold_no_secret(cls, parameters: dict[str, str]) -> dict[str, str]:
        for name in parameters:
            if _SECRET.search(name):
                said = "{name} looks like a secret; it belongs in the environment variable of `key_variable`"
                raise PydanticCustomError(UNSHOWN_INPUT, said, {"name": name})
        return parameters


class WebSearch:
    """See `PictureSearch`.

    Args:
        config: The service.
        journal: Its answers by the digest of the request.
        fetcher: Fetches what strangers point to.
        service: Fetches the answers of the service itself, which may stand in a private network.
        keep: Takes the pictures.

    Attributes:
        problems: How often a picture was not taken, by reason.
    """

    def __init__(
        self, config: WebSearchConfig, journal: RequestJournal, fetcher: Fetcher, service: Fetcher, keep: Keep
    ) -> None:
        self._config, self._journal, self._fetcher, self._service, self._keep = config, journal, fetcher, service, keep
        self.problems: dict[str, int] = {}

    def find(self, names: Sequence[str], count: int) -> list[list[Sight]]:
        """See `PictureSearch`."""
        distinct = sorted(set(names))
        wanted = [(name, result) for name in distinct for result in self._results(distinct)[name][:count]]
        fetched = self._fetcher.fetch([result.picture for _, result in wanted])
        found: dict[str, list[Sight]] = {name: [] for name in distinct}
        for (name, result), file in zip(wanted, fetched, strict=True):
            record = self._record(result, file)
            if record:
                self._keep(record)
                found[name].append(Sight(record.id, "search", record.source))
        return [found[name] for name in names]

    def _results(self, names: Sequence[str]) -> dict[str, list[Result]]:
        """What may be fetched, by name; asks the service for what is not on record."""
        keys = {name: sha256_json([self._config.model_dump(mode="json", exclude={"fetch"}), name]) for name in names}
        known = self._journal.get(list(keys.values()), list[Result])
        missing = [name for name in names if keys[name] not in known]
        for name, answer in zip(missing, self._service.fetch([self._address(name) for name in missing]), strict=True):
            value = self._parsed(answer)
            if value is not None:
                known[keys[name]] = value
                self._journal.put(keys[name], [asdict(one) for one in value])
        return {name: [one for one in known.get(keys[name], []) if self._may(one)] for name in names}

    def _address(self, name: str) -> str:
        key = os.environ.get(self._config.key_variable, "")
        secret = {self._config.key_parameter: key} if key else {}
        return (
            f"{self._config.url}?{urlencode({**self._config.parameters, self._config.query_parameter: name, **secret})}"
        )

    def _parsed(self, answer: Fetched | str) -> list[Result] | None:
        if isinstance(answer, str):
            if answer in ("status-401", "status-403"):
                raise FoundryError(
                    f"{self._config.url}: the search service refused the key ({answer}).",
                    hint=f"Put a valid key into {self._config.key_variable}.",
                )
            self._count(f"search-{answer}")
            return None
        try:
            found = parse_json(answer.data, object, where=self._config.url)
        except StructureError:
            self._count("search-not-json")
            return None
        rows = _at(found, self._config.results)
        if not isinstance(rows, list):
            self._count("search-wrong-fields")
            return None
        results = [self._result(row) for row in rows]
        return [one for one in results if one.picture]

    def _result(self, row: object) -> Result:
        picture, licence, robots = (
            _text_at(row, path) for path in (self._config.picture, self._config.licence, self._config.robots)
        )
        return Result(picture if picture.isprintable() else "", plain_label(licence), robots)

    def _may(self, result: Result) -> bool:
        if "noindex" in result.robots or "noimageindex" in result.robots:
            self._count("robots")
            return False
        if self._config.allow and result.licence not in self._config.allow:
            self._count("licence")
            return False
        return True

    def _record(self, result: Result, file: Fetched | str) -> ImageRecord | None:
        if isinstance(file, str):
            self._count(file)
            return None
        try:
            decode_rgb(file.data, file.url)
            return ImageRecord.from_bytes(file.data, source=file.url, licence=result.licence or "unknown")
        except FoundryError:
            self._count("not-a-picture")
            return None

    def _count(self, problem: str) -> None:
        self.problems[problem] = self.problems.get(problem, 0) + 1


def _text_at(value: object, path: str) -> str:
    """The text at a dotted path; empty if there is none, or one as long as no address and licence is."""
    text = _at(value, path)
    return text if isinstance(text, str) and len(text) <= _LONGEST else ""


def _at(value: Any, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """What stands at a dotted path; None if nothing does."""
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value
