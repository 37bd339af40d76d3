"""Fetches pictures that pairs name by URL, before the import, which uses no network.

A picture lies in the folder of pictures under the digest of its URL. A URL that gave none is recorded in a journal in
that folder, and requested again only on demand. So a fetch that was killed continues, and a second one does nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeGuard

from gme_data.batching import batched
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb
from gme_data.journal import atomic_write
from gme_data.progress import Progress
from gme_data.structured import read_json_lines
from gme_synthesis.pairs.layouts import Pair, PairSide
from gme_synthesis.steps.fetching import FetchedFile

FAILURES = ".fetch-failures.jsonl"
_URLS_PER_BATCH = 64
_MAX_URL_CHARS = 4096
_STEM_CHARS = 32


class PictureFetcher(Protocol):
    """The part of `gme_synthesis.steps.fetching.Fetcher` that is used here."""

    def fetch(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        """Returns for each URL its file, or the reason why there is none."""


@dataclass(frozen=True, slots=True)
class _FetchFailure:
    """A line of the journal."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class FetchSummary:
    """The counts of a fetch.

    Attributes:
        addresses: Number of different URLs that the pairs name.
        fetched: Number of pictures that this fetch added.
        failed: Number of URLs without a picture, by reason; those of earlier fetches included.
    """

    addresses: int
    fetched: int
    failed: Mapping[str, int]


def is_url(picture: object) -> TypeGuard[str]:
    """Says whether a picture is named by a URL."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def url_stem(url: str) -> str:
    """Returns the name of a URL's file, without suffix."""
    # Half of the digest is enough for a name, and URLs themselves are too long and hold characters that names can't.
    return hashlib.sha256(url.encode()).hexdigest()[:_STEM_CHARS]


def read_failures(pictures: Path | None) -> dict[str, str]:
    """Returns the URLs that gave no picture, each with its reason; skips a line that a kill truncated."""
    path = pictures / FAILURES if pictures else None
    if path is None or not path.is_file():
        return {}
    return {failure.url: failure.reason for failure in read_json_lines(path, _FetchFailure, [])}


def fetch_pictures(
    pairs: Iterable[Pair], folder: Path, fetcher: PictureFetcher, *, retry_failed: bool = False
) -> FetchSummary:
    """Fetches every picture that pairs name by URL and that is missing in the folder.

    Args:
        pairs: The pairs, which are read once.
        folder: The folder of the pictures; it is created if it does not exist.
        fetcher: Requests the URLs, within its bounds.
        retry_failed: Whether URLs that failed before are requested again.

    Raises:
        FoundryError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FoundryError(f"{folder}: is no folder.", hint="Pictures that are fetched need a folder: corpus.pictures.")
    folder.mkdir(parents=True, exist_ok=True)
    if retry_failed:
        (folder / FAILURES).unlink(missing_ok=True)
    failures, present_stems = read_failures(folder), {file.stem for file in folder.iterdir()}
    named_stems: set[str] = set()
    fetched = 0
    urls_to_fetch = _urls_to_fetch(pairs, named_stems, present_stems, failures)
    with (folder / FAILURES).open("a", encoding="utf-8") as journal, Progress("fetch", None, "pictures") as progress:
        journal.write("\n")  # ends a line that a kill truncated, so that the next one is not part of it
        for urls in batched(urls_to_fetch, _URLS_PER_BATCH):
            for url, result in zip(urls, fetcher.fetch(urls), strict=True):
                reason = result if isinstance(result, str) else _store(folder, url, result.data)
                fetched += not reason
                if reason:
                    failures[url] = reason
                    journal.write(json.dumps({"url": url, "reason": reason}) + "\n")
            journal.flush()  # a kill loses the failures of one batch, which are then requested again
            progress.advance(len(urls))
    # The folder may serve several files of pairs; only failures of URLs that these pairs name are reported.
    reasons = Counter(reason for url, reason in failures.items() if url_stem(url) in named_stems)
    return FetchSummary(len(named_stems), fetched, dict(reasons.most_common()))


def _urls_to_fetch(
    pairs: Iterable[Pair], named_stems: set[str], present_stems: set[str], failures: Mapping[str, str]
) -> Iterator[str]:
    """Yields URLs that have neither a file nor a failure, each once; adds the stems of all URLs to `named_stems`."""
    for pair in pairs:
        sides: tuple[PairSide, ...] = (pair.query, *pair.positives, *pair.negatives)
        for side in sides:
            if not is_url(side.picture) or len(side.picture) > _MAX_URL_CHARS:
                continue
            stem = url_stem(side.picture)
            if stem not in named_stems:
                named_stems.add(stem)
                if stem not in present_stems and side.picture not in failures:
                    yield side.picture


def _store(folder: Path, url: str, data: bytes) -> str:
    """Writes a picture into the folder; returns the reason if it is none, else an empty text."""
    try:
        decode_rgb(data, url)
        record = ImageRecord.from_bytes(data, source=url, licence="")
    except FoundryError:
        return "not-a-picture"
    atomic_write(folder / f"{url_stem(url)}.{record.format.lower()}", data)
    return ""
