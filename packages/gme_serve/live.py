"""Replaces the served corpus by its next version while requests are answered.

`gme embed --update` publishes a version by replacing one file, which is polled every few seconds. The new version is
opened beside the old one, on a thread of its own, and checked as at the start of the server. Then new requests are
answered from it, while requests in progress end on the version that they began with, which is freed after them. A
version that can't be served is refused, and the old one stays. Knows versions; not how they are searched.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from gme_data.errors import FoundryError
from gme_data.file_digests import FileVersion, file_version
from gme_data.progress import tell
from gme_embedder.corpus.job import JOB_FILE, ModelIdentity, read_job
from gme_embedder.embedder import Embedder
from gme_serve.corpus import SearchCorpus, require_model
from gme_serve.service import Service

_log = logging.getLogger(__name__)
_RETRY_SECONDS = 60.0
"""A version that was refused is tried again after this time, since its shards may have been repaired."""
_DIGEST_SHOWN = 12


@dataclass(frozen=True, slots=True)
class CorpusLocation:
    """The folders of a corpus, and its model.

    Attributes:
        folder: Folder of the vectors.
        model: Model that must have computed them.
        source: Tables that were embedded; without them a hit has an id alone.
        images: Folder of images-*.parquet for the image ids of `source`.
    """

    folder: Path
    model: ModelIdentity
    source: Path | None = None
    images: Path | None = None

    def open(self) -> SearchCorpus:
        """Open the version that is published now.

        Raises:
            FoundryError: The version is damaged, incomplete, of another model, or of other tables.
        """
        # Checked before the vectors are read, which takes long, and after, since another version may be published.
        require_model(self.folder, read_job(self.folder), self.model)
        opened = SearchCorpus.open(self.folder, self.source, self.images)
        require_model(self.folder, opened.job, self.model)
        return opened

    def published(self) -> FileVersion | None:
        """Return the state of the file that names the published version; None while there is none."""
        try:
            return file_version(self.folder / JOB_FILE)
        except OSError:
            return None


class LiveCorpus:
    """The served version of a corpus, on one event loop.

    Args:
        location: Folders of the corpus.
        corpus: The first version.
        version: `CorpusLocation.published` before that was opened.
        seconds: Seconds between two polls.

    Attributes:
        current: The version that answers new requests.
        loading: Whether a thread opens the next version, which can't be interrupted.
    """

    def __init__(
        self, location: CorpusLocation, corpus: SearchCorpus, version: FileVersion | None, seconds: float
    ) -> None:
        self.current = corpus
        self._location, self._served, self._seconds = location, version, seconds
        self._refused: FileVersion | None = None
        self._retry_at = 0.0
        self._thread = ThreadPoolExecutor(1, "next-corpus")
        self.loading = False

    @classmethod
    def open(cls, location: CorpusLocation, embedder: Embedder, seconds: float) -> Self:
        """Open the version that is published now.

        Raises:
            FoundryError: As `CorpusLocation.open`; or `embedder` gives the first row another vector.
        """
        version = location.published()
        corpus = location.open()
        corpus.check_made_by(embedder)
        return cls(location, corpus, version, seconds)

    async def watch(self, service: Service) -> None:
        """Serve each version that is published from now on, until cancelled; must run on the event loop."""
        service.metrics.corpus_items.set_function(lambda: len(self.current.ids))
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(self._seconds)
                version = await loop.run_in_executor(self._thread, self._location.published)
                # None while no version is there; a refused version is tried again only from time to time.
                if version in (None, self._served) or (version == self._refused and loop.time() < self._retry_at):
                    continue
                await self._replace(version, service)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _replace(self, version: FileVersion | None, service: Service) -> None:
        try:
            corpus = await self._open_next(service)
        except Exception as error:  # no error of a new version may end the service of the old one
            expected = isinstance(error, FoundryError)
            _log.error("%s: the new index is refused: %s", self._location.folder, error, exc_info=not expected)
            service.metrics.corpus_updates.labels("refused").inc()
            self._refused, self._retry_at = version, asyncio.get_running_loop().time() + _RETRY_SECONDS
            return
        previous, self.current = self.current.index, corpus
        self._served, self._refused = version, None
        service.metrics.corpus_updates.labels("served").inc()
        tell(
            "serve", f"index {corpus.index[:_DIGEST_SHOWN]} after {previous[:_DIGEST_SHOWN]}, {len(corpus.ids):,} items"
        )

    async def _open_next(self, service: Service) -> SearchCorpus:
        corpus, item = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        if item:
            # The check computes on the model's thread, between the batches of clients.
            corpus.check_first(await service.embed_alone(item, corpus.job.instruction))
        return corpus

    def _load(self) -> tuple[SearchCorpus, dict[str, Any] | None]:
        self.loading = True
        try:
            corpus = self._location.open()
            return corpus, corpus.first_item()
        finally:
            self.loading = False
