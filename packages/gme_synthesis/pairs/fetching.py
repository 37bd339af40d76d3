"""Pictures that pairs name by address are fetched before the import, which asks no network.

A picture lies in the folder of pictures under the digest of its address; an address that gave none stands in a journal
beside them and is asked again only on demand. So a fetch that was killed goes on, and a second one does nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol, TypeGuard

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb
from gme_data.journal import atomic_write
from gme_data.progress import Progress
from gme_data.structured import read_json_lines
from gme_synthesis.pairs.layouts import Pair, PairSide
from gme_synthesis.steps.fetching import FetchedFile

FAILURES = ".fetch-failures.jsonl"
_AT_ONCE = 64
_LONGEST = 4096
"""Characters of an address."""
_STEM = 32


class PictureFetcher(Protocol):
    """`gme_synthesis.steps.fetching.Fetcher`."""

    def fetch(self, urls: Sequence[str]) -> list[FetchedFile | str]:
        """Each file, or the reason why not."""


@dataclass(frozen=True, slots=True)
class _Failure:
    """A line of the journal."""

    url: str
    reason: str


@dataclass(frozen=True, slots=True)
class FetchSummary:
    """What a fetch did.

    Attributes:
        addresses: Different addresses that the pairs name.
        fetched: Pictures that this fetch brought.
        failed: Addresses without a picture, by reason; those of earlier fetches included.
    """

    addresses: int
    fetched: int
    failed: Mapping[str, int]


def is_address(picture: object) -> TypeGuard[str]:
    """Whether a picture is named by an address of the web."""
    return isinstance(picture, str) and picture.lower().startswith(("http://", "https://"))


def stem_of(address: str) -> str:
    """What the file of an address is called, but for its suffix."""
    return hashlib.sha256(address.encode()).hexdigest()[:_STEM]


def read_failures(pictures: Path | None) -> dict[str, str]:
    """Reason by address of what a fetch into the folder did not bring; a line that a kill cut short is left out."""
    path = pictures / FAILURES if pictures else None
    if path is None or not path.is_file():
        return {}
    return {failure.url: failure.reason for failure in read_json_lines(path, _Failure, [])}


def fetch_pictures(
    pairs: Iterable[Pair], folder: Path, fetcher: PictureFetcher, *, again: bool = False
) -> FetchSummary:
    """Fetch every picture that pairs name by address and that is not there yet.

    Args:
        pairs: Read once.
        folder: Of the pictures; made if it is not there.
        fetcher: Bounds of a fetch are its own.
        again: Also ask for what failed before.

    Raises:
        FoundryError: `folder` is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise FoundryError(f"{folder}: is no folder.", hint="Pictures that are fetched need a folder: corpus.pictures.")
    folder.mkdir(parents=True, exist_ok=True)
    if again:
        (folder / FAILURES).unlink(missing_ok=True)
    failures, there = read_failures(folder), {file.stem for file in folder.iterdir()}
    seen: set[str] = set()
    fetched = 0
    wanted = _wanted(pairs, seen, there, failures)
    with (folder / FAILURES).open("a", encoding="utf-8") as journal, Progress("fetch", None, "pictures") as progress:
        journal.write("\n")  # ends a line that a kill cut short
        while urls := list(islice(wanted, _AT_ONCE)):
            for url, result in zip(urls, fetcher.fetch(urls), strict=True):
                reason = result if isinstance(result, str) else _keep(folder, url, result.data)
                fetched += not reason
                if reason:
                    failures[url] = reason
                    journal.write(json.dumps({"url": url, "reason": reason}) + "\n")
            journal.flush()
            progress.advance(len(urls))
    named = (reason for url, reason in failures.items() if stem_of(url) in seen)
    return FetchSummary(len(seen), fetched, dict(Counter(named).most_common()))


def _wanted(pairs: Iterable[Pair], seen: set[str], there: set[str], failures: Mapping[str, str]) -> Iterator[str]:
    """Addresses that are neither there nor known to fail, each once; all of them enter `seen`, by stem."""
    for pair in pairs:
        parts: tuple[PairSide, ...] = (pair.query, *pair.positives, *pair.negatives)
        for part in parts:
            if not is_address(part.picture) or len(part.picture) > _LONGEST:
                continue
            stem = stem_of(part.picture)
            if stem not in seen:
                seen.add(stem)
                if stem not in there and part.picture not in failures:
                    yield part.picture


def _keep(folder: Path, url: str, data: bytes) -> str:
    """Put a picture into the folder; why not, if it is none."""
    try:
        decode_rgb(data, url)
        record = ImageRecord.from_bytes(data, source=url, licence="")
    except FoundryError:
        return "not-a-picture"
    atomic_write(folder / f"{stem_of(url)}.{record.format.lower()}", data)
    return ""
