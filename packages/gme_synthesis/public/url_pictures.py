"""Pictures that a set names by their address: fetched once, for the rows that a pipeline draws.

From public hosts alone, bounded, heeding robots.txt; see `gme_synthesis.steps.fetching`. What could not be had is noted
and not asked for again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path

from gme_data.cells import CellError, text_cell
from gme_data.digests import sha256_bytes, sha256_json
from gme_data.journal import atomic_write
from gme_data.progress import Progress
from gme_data.tables import Row
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.pictures import address_name
from gme_synthesis.public.store import URL_PICTURES, UrlPictures, home, url_pictures_path

_BATCH = 256
_FAILED = ".failed"
FetchAll = Callable[[list[str]], list[bytes | str]]
"""Bytes of each address, or the reason why not."""


def fetch_url_pictures(
    choice: SetChoice, data: Path, seed: int, fetch_all: FetchAll | None = None
) -> UrlPictures | None:
    """Fetch the pictures of the rows that are drawn, but those that are there or failed before; None for other sets.

    Args:
        choice: The set; its tables are there.
        data: Folder of fetched sets.
        seed: Of the corpus.
        fetch_all: How; the web by default.
    """
    from gme_synthesis.public.upstream import UpstreamRows

    upstream = choice.upstream
    if upstream.layout != "urls":
        return None
    folder = home(data, upstream.repository) / URL_PICTURES
    fetch = fetch_all or _from_the_web()
    failed: Counter[str] = Counter()
    digests: list[tuple[str, str]] = []
    rows = UpstreamRows(choice, data, seed)
    named = (_url(row, upstream.columns["positive_picture"]) for row in rows.rows() if isinstance(row, Row))
    urls = filter(None, named)
    with Progress("fetch pictures", rows.count(), "addresses") as progress:
        while batch := list(islice(urls, _BATCH)):
            _fetch_batch(batch, folder, fetch)
            for url in batch:
                path = folder / address_name(url)
                if path.is_file():
                    digests.append((path.name, sha256_bytes(path.read_bytes())))
                else:
                    failed[path.with_suffix(_FAILED).read_text(encoding="utf-8")] += 1
            progress.advance(len(batch))
    summary = UrlPictures(
        rows=choice.rows or 0,
        seed=seed,
        pictures=len(digests),
        failed=dict(sorted(failed.items())),
        digest=sha256_json(sorted(digests)),
    )
    atomic_write(url_pictures_path(data, upstream.repository), (json.dumps(asdict(summary), indent=1) + "\n").encode())
    return summary


def _fetch_batch(urls: list[str], folder: Path, fetch: FetchAll) -> None:
    paths = {url: folder / address_name(url) for url in urls}
    wanted = [url for url, path in paths.items() if not path.is_file() and not path.with_suffix(_FAILED).is_file()]
    for url, answer in zip(wanted, fetch(wanted) if wanted else [], strict=True):
        path = paths[url]
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(answer, bytes):
            atomic_write(path, answer)
        else:
            atomic_write(path.with_suffix(_FAILED), answer.encode())


def _url(row: Row, column: str) -> str:
    try:
        return text_cell(row.values.get(column))
    except CellError:
        return ""


def _from_the_web() -> FetchAll:
    from gme_synthesis.steps.fetching import FetchConfig, FetchedFile, Fetcher

    fetcher = Fetcher(FetchConfig(other_hosts=True))

    def fetch(urls: list[str]) -> list[bytes | str]:
        return [answer.data if isinstance(answer, FetchedFile) else answer for answer in fetcher.fetch(urls)]

    return fetch
