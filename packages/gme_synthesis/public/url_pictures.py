"""Pictures that a set names by URL: fetched once, for the rows that a pipeline samples.

They are fetched from public hosts alone, with bounds, obeying robots.txt; see `gme_synthesis.steps.fetching`. A failure
is recorded beside the pictures, and its URL is not requested again.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from gme_data.batching import batched
from gme_data.cells import CellError, text_cell
from gme_data.digests import sha256_bytes, sha256_json
from gme_data.journal import atomic_write
from gme_data.progress import Progress
from gme_data.tables import Row
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.pictures import url_picture_name
from gme_synthesis.public.store import URL_PICTURES, UrlPictures, repository_folder, url_pictures_path

_URLS_PER_BATCH = 256
_FAILED = ".failed"
"""Suffix of the file that holds the reason why a URL gave no picture."""
FetchAll = Callable[[list[str]], list[bytes | str]]
"""Returns for each URL its bytes, or the reason why there are none."""


def fetch_url_pictures(
    choice: SetChoice, data: Path, seed: int, fetch_all: FetchAll | None = None
) -> UrlPictures | None:
    """Fetches the pictures of the sampled rows, unless they arrived or failed before; None for sets without URLs.

    Args:
        choice: The set; its tables are fetched.
        data: Folder of fetched sets.
        seed: Seed of the corpus.
        fetch_all: Fetches URLs; the default requests them from the web.
    """
    from gme_synthesis.public.upstream import UpstreamRows

    upstream = choice.upstream
    if upstream.layout != "urls":
        return None
    folder = repository_folder(data, upstream.repository) / URL_PICTURES
    fetch = fetch_all or _web_fetcher()
    failed: Counter[str] = Counter()
    digests: list[tuple[str, str]] = []
    rows = UpstreamRows(choice, data, seed)
    column = upstream.columns["positive_picture"]
    urls = filter(None, (_url(row, column) for row in rows.rows() if isinstance(row, Row)))
    with Progress("fetch pictures", rows.count(), "addresses") as progress:
        for batch in batched(urls, _URLS_PER_BATCH):
            # The files of a batch are written before the next one is requested, so a kill loses one batch at most.
            _fetch_batch(batch, folder, fetch)
            for url in batch:
                path = folder / url_picture_name(url)
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
    # Last: without it the set counts as not fetched, and the next fetch finds what is left to do by the files.
    atomic_write(url_pictures_path(data, upstream.repository), (json.dumps(asdict(summary), indent=1) + "\n").encode())
    return summary


def _fetch_batch(urls: list[str], folder: Path, fetch: FetchAll) -> None:
    paths = {url: folder / url_picture_name(url) for url in urls}
    missing = [url for url, path in paths.items() if not path.is_file() and not path.with_suffix(_FAILED).is_file()]
    for url, result in zip(missing, fetch(missing) if missing else [], strict=True):
        path = paths[url]
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(result, bytes):
            atomic_write(path, result)
        else:
            atomic_write(path.with_suffix(_FAILED), result.encode())


def _url(row: Row, column: str) -> str:
    try:
        return text_cell(row.values.get(column))
    except CellError:
        return ""


def _web_fetcher() -> FetchAll:
    from gme_synthesis.steps.fetching import FetchConfig, FetchedFile, Fetcher

    fetcher = Fetcher(FetchConfig(other_hosts=True))

    def fetch(urls: list[str]) -> list[bytes | str]:
        return [result.data if isinstance(result, FetchedFile) else result for result in fetcher.fetch(urls)]

    return fetch
