"""Pictures by any search service over HTTP that answers in JSON; the config has the paths of the fields.

Answers are journaled like those of a language model, since they are paid for; the pictures that they point to are
fetched from public hosts only. The licence that the service states stays with the picture.
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
from gme_synthesis.candidates import EntityImage
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.steps.cleaning import plain_label
from gme_synthesis.steps.fetching import FetchConfig, FetchedFile, Fetcher
from gme_synthesis.steps.picture_search import StorePicture

_MAX_FIELD_CHARS = 4096
"""Longer texts are no URL and no licence, and count as missing."""
_SECRET = re.compile(r"(?:^|api|[\W_])key$|token|secret|passw|credential|signature|^auth", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A result of a search: the picture's URL, its licence, and the robots directives of its page."""

    # Results lie in journals under these names.
    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    picture: str
    licence: str
    robots: str


class WebSearchConfig(Frozen):
    """A search service."""

    url: Address
    """URL of the search, without parameters."""
    query_parameter: str = "q"
    """Parameter with the query."""
    parameters: dict[str, str] = Field(default={})
    """Further parameters, such as the number of results or a safe-search level; no secrets, since they are recorded."""
    key_parameter: str = "key"
    """Parameter with the key."""
    key_variable: str = "GME_SEARCH_KEY"
    """Environment variable with the key; unset means none."""
    results: str = "items"
    """Path of the list of results, names separated by dots."""
    picture: str = "link"
    """Path of the picture's URL in a result."""
    licence: str = "licence"
    """Path of the licence in a result."""
    robots: str = "robots"
    """Path of the page's robots directives in a result; ``noindex`` and ``noimageindex`` are obeyed."""
    allow: tuple[str, ...] = ()
    """Accepted licences, by their names at the service; empty accepts all. A missing licence is called ``unknown``."""
    fetch: FetchConfig = FetchConfig()
    """Bounds for fetching pictures and answers."""

    @field_validator("parameters")
    @classmethod
    def _reject_secrets(cls, parameters: dict[str, str]) -> dict[str, str]:
        for name in parameters:
            if _SECRET.search(name):
                message = "{name} looks like a secret; it belongs in the environment variable of `key_variable`"
                raise PydanticCustomError(UNSHOWN_INPUT, message, {"name": name})
        return parameters


class WebSearch:
    """A `PictureSearch` by a search service.

    Args:
        config: The service.
        journal: Recorded answers of the service, by the digest of the request.
        fetcher: Fetches the pictures, from untrusted URLs.
        service: Fetches the answers of the service itself, which may be in a private network.
        store_picture: Stores a picture.

    Attributes:
        problems: Number of results without a picture, by reason.
    """

    def __init__(
        self,
        config: WebSearchConfig,
        journal: RequestJournal,
        fetcher: Fetcher,
        service: Fetcher,
        store_picture: StorePicture,
    ) -> None:
        self._config, self._journal, self._fetcher, self._service = config, journal, fetcher, service
        self._store_picture = store_picture
        self.problems: dict[str, int] = {}

    def find(self, names: Sequence[str], count: int) -> list[list[EntityImage]]:
        """See `PictureSearch`."""
        distinct = sorted(set(names))
        results = [(name, result) for name in distinct for result in self._results(distinct)[name][:count]]
        files = self._fetcher.fetch([result.picture for _, result in results])
        images: dict[str, list[EntityImage]] = {name: [] for name in distinct}
        for (name, result), file in zip(results, files, strict=True):
            record = self._record(result, file)
            if record:
                self._store_picture(record)
                images[name].append(EntityImage(record.id, "search", record.source))
        return [images[name] for name in names]

    def _results(self, names: Sequence[str]) -> dict[str, list[SearchResult]]:
        """Returns the allowed results, by name; requests those that are not in the journal from the service."""
        # Without the bounds of fetches, which change no answer of the service.
        keys = {name: sha256_json([self._config.model_dump(mode="json", exclude={"fetch"}), name]) for name in names}
        results_of = self._journal.get(list(keys.values()), list[SearchResult])
        missing = [name for name in names if keys[name] not in results_of]
        for name, answer in zip(missing, self._service.fetch([self._query_url(name) for name in missing]), strict=True):
            results = self._parse_answer(answer)
            if results is not None:
                results_of[keys[name]] = results
                self._journal.put(keys[name], [asdict(result) for result in results])
        # What is allowed is decided after the journal: it holds all results, so the config may change.
        return {
            name: [result for result in results_of.get(keys[name], []) if self._is_allowed(result)] for name in names
        }

    def _query_url(self, name: str) -> str:
        key = os.environ.get(self._config.key_variable, "")
        secret = {self._config.key_parameter: key} if key else {}
        return (
            f"{self._config.url}?{urlencode({**self._config.parameters, self._config.query_parameter: name, **secret})}"
        )

    def _parse_answer(self, answer: FetchedFile | str) -> list[SearchResult] | None:
        """Returns the results in an answer of the service; None, and counts the reason, if it is none.

        Raises:
            FoundryError: The service refused the key.
        """
        if isinstance(answer, str):
            if answer in ("status-401", "status-403"):
                raise FoundryError(
                    f"{self._config.url}: the search service refused the key ({answer}).",
                    hint=f"Put a valid key into {self._config.key_variable}.",
                )
            self._count(f"search-{answer}")
            return None
        try:
            value = parse_json(answer.data, object, where=self._config.url)
        except StructureError:
            self._count("search-not-json")
            return None
        rows = _value_at(value, self._config.results)
        if not isinstance(rows, list):
            self._count("search-wrong-fields")
            return None
        results = []
        for row in rows:
            paths = (self._config.picture, self._config.licence, self._config.robots)
            picture, licence, robots = (_text_at(row, path) for path in paths)
            if picture and picture.isprintable():
                results.append(SearchResult(picture, plain_label(licence), robots))
        return results

    def _is_allowed(self, result: SearchResult) -> bool:
        if "noindex" in result.robots or "noimageindex" in result.robots:
            self._count("robots")
            return False
        if self._config.allow and result.licence not in self._config.allow:
            self._count("licence")
            return False
        return True

    def _record(self, result: SearchResult, file: FetchedFile | str) -> ImageRecord | None:
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
    """Returns the text at a dotted path; empty if there is none, or if it is too long for a URL or a licence."""
    text = _value_at(value, path)
    return text if isinstance(text, str) and len(text) <= _MAX_FIELD_CHARS else ""


def _value_at(value: Any, path: str) -> Any:  # noqa: ANN401 - any JSON value
    """Returns the value at a dotted path; None if there is none."""
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value
