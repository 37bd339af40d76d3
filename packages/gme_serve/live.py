"""The corpus that is searched, exchanged for its next version while requests are answered.

`gme embed --update` publishes a version by replacing one file, whose state is looked at every few seconds. The new
version is opened beside the old one, on a thread of its own, and checked as at the start of the server; then requests
that come are answered from it, and those that are at work end on the one that they began with, which is freed after
them. What can't be served is refused, and the old version goes on. Knows versions and their exchange; not what a
version is searched for.
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
from gme_serve.corpus import Corpus, require_model
from gme_serve.service import Service

_log = logging.getLogger(__name__)
_AGAIN_SECONDS = 60.0
"""After which a version that was refused is tried again, as its shards may have been completed or mended."""
_SHORT = 12


@dataclass(frozen=True, slots=True)
class CorpusPlace:
    """Where a corpus is.

    Attributes:
        folder: The vectors.
        model: Who must have made them.
        source: The tables they were made of, if hits are to have texts.
        images: Folder of images-*.parquet for the image ids of `source`.
    """

    folder: Path
    model: ModelIdentity
    source: Path | None = None
    images: Path | None = None

    def open(self) -> Corpus:
        """The version that is published now.

        Raises:
            FoundryError: It is damaged, not whole, of another model, or not of these tables.
        """
        require_model(self.folder, read_job(self.folder), self.model)
        opened = Corpus.open(self.folder, self.source, self.images)
        require_model(self.folder, opened.job, self.model)
        return opened

    def published(self) -> FileVersion | None:
        """State of the file that says which version is published; None while there is none."""
        try:
            return file_version(self.folder / JOB_FILE)
        except OSError:
            return None


class LiveCorpus:
    """The version of a corpus that is served. For one event loop.

    Args:
        place: Where it is.
        corpus: The first version.
        version: `CorpusPlace.published` before that was opened.
        seconds: Between two looks.

    Attributes:
        current: The version that requests which come now are answered from.
        loading: Whether a thread opens the next one, which nothing can end.
    """

    def __init__(self, place: CorpusPlace, corpus: Corpus, version: FileVersion | None, seconds: float) -> None:
        self.current = corpus
        self._place, self._served, self._seconds = place, version, seconds
        self._refused: FileVersion | None = None
        self._again = 0.0
        self._thread = ThreadPoolExecutor(1, "next-corpus")
        self.loading = False

    @classmethod
    def open(cls, place: CorpusPlace, embedder: Embedder, seconds: float) -> Self:
        """Open the version that is published now.

        Raises:
            FoundryError: As `CorpusPlace.open`; `embedder` does not give its first row the vector that it has.
        """
        version = place.published()
        corpus = place.open()
        corpus.check_made_by(embedder)
        return cls(place, corpus, version, seconds)

    async def watch(self, service: Service) -> None:
        """Serve each version that is published from now on, until cancelled. Call it on the event loop."""
        service.metrics.corpus_items.set_function(lambda: len(self.current.ids))
        loop = asyncio.get_running_loop()
        try:
            while True:
                await asyncio.sleep(self._seconds)
                version = await loop.run_in_executor(self._thread, self._place.published)
                if version in (None, self._served) or (version == self._refused and loop.time() < self._again):
                    continue
                await self._renew(version, service)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def _renew(self, version: FileVersion | None, service: Service) -> None:
        try:
            corpus = await self._opened(service)
        except Exception as error:  # whatever it is, the old version goes on
            known = isinstance(error, FoundryError)
            _log.error("%s: the new index is refused: %s", self._place.folder, error, exc_info=not known)
            service.metrics.corpus_updates.labels("refused").inc()
            self._refused, self._again = version, asyncio.get_running_loop().time() + _AGAIN_SECONDS
            return
        before, self.current = self.current.index, corpus
        self._served, self._refused = version, None
        service.metrics.corpus_updates.labels("served").inc()
        tell("serve", f"index {corpus.index[:_SHORT]} after {before[:_SHORT]}, {len(corpus.ids):,} items")

    async def _opened(self, service: Service) -> Corpus:
        corpus, item = await asyncio.get_running_loop().run_in_executor(self._thread, self._load)
        if item:
            corpus.check_first(await service.embed_alone(item, corpus.job.instruction))
        return corpus

    def _load(self) -> tuple[Corpus, dict[str, Any] | None]:
        self.loading = True
        try:
            corpus = self._place.open()
            return corpus, corpus.first_item()
        finally:
            self.loading = False
