"""What the steps of one process share: encoder, asker, pictures. Each is made when it is first needed, and once.

A rerun that finds every shard finished needs none of them, so it loads no model.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.images import ImageRecord, decode_rgb
from gme_data.structured import read_json
from gme_synthesis.corpus.atlas import is_atlas, open_atlas
from gme_synthesis.corpus.config import CHAMPION, SynthesisConfig
from gme_synthesis.corpus.store import Corpus, open_imported
from gme_synthesis.encoders import TextEncoder, load_encoder
from gme_synthesis.llm.client import LLMClient, Prices, Usage
from gme_synthesis.llm.endpoint import Endpoint
from gme_synthesis.llm.journal import RequestJournal
from gme_synthesis.llm.local import LocalModel
from gme_synthesis.llm.protocol import LanguageModel
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.steps.fetching import Fetcher
from gme_synthesis.steps.picture_score import PictureTextScorer, load_scorer, look_alikes
from gme_synthesis.steps.picture_search import PictureBank, PictureSearch
from gme_synthesis.steps.web_search import WebSearch

POOL, POOL_IDS, SPOOL, WAITING = "pool.npy", "pool.json", "spool.sqlite", "waiting"


@dataclass(frozen=True, slots=True)
class Places:
    """Folders of a run.

    Attributes:
        corpus: The imported corpus.
        scratch: Of this run: shards, and the encoded pool.
        answers: Of all runs: what language models and search services said.
        judge: The champion, where it scores pictures and there is one.
    """

    corpus: Path
    scratch: Path
    answers: Path
    judge: Path | None = None


class Tools:
    """See the module's docstring.

    Args:
        config: The choices.
        places: The folders.
        writer: Names this process among those that add to the journal of answers.
    """

    def __init__(self, config: SynthesisConfig, places: Places, writer: str = "0") -> None:
        self.config, self.places, self._writer = config, places, writer
        self._new: dict[str, ImageRecord] = {}
        self._open = ExitStack()

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus."""
        folder = self.places.corpus
        return open_atlas(folder) if is_atlas(folder) else open_imported(folder)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder."""
        return load_encoder(self.config.encoder, self.config.encoder_device)

    @cached_property
    def journal(self) -> RequestJournal:
        """Answers on record."""
        journal = RequestJournal(self.places.answers, self._writer)
        self._open.callback(journal.close)
        return journal

    @cached_property
    def asker(self) -> LLMClient:
        """The writer, with its journal."""
        config = self.config.writer
        attempts = config.attempts if config.kind == "endpoint" else 1
        prices = config.endpoint.prices if config.endpoint else Prices()
        journal = None if config.kind == "rules" else self.journal
        writer = self._make_writer()
        if isinstance(writer, Endpoint):
            self._open.callback(writer.close)
        return LLMClient(writer, journal, attempts, prices)

    @cached_property
    def pool(self) -> NDArray[np.float32]:
        """Vectors of all passages that may be asked about, memory-mapped, float32 [passages, d]."""
        vectors: NDArray[np.float32] = np.load(self.places.scratch / POOL, mmap_mode="r", allow_pickle=False)
        return vectors

    @cached_property
    def pool_rows(self) -> Mapping[str, int]:
        """Row in `pool` by passage."""
        path = self.places.scratch / POOL_IDS
        ids = read_json(path, list[str], max_bytes=2**40, hint=f"Delete {path}; the pool is encoded again.")
        return {id_: row for row, id_ in enumerate(ids)}

    @cached_property
    def searcher(self) -> PictureSearch:
        """Where pictures are searched for."""
        search = self.config.search
        if search.by == "web" and search.web is not None:
            # The service is the user's choice and may stand in a private network; what it points to may not.
            unbound = search.web.fetch.model_copy(update={"obey_robots_txt": False, "other_hosts": False})
            service = Fetcher(unbound, allowed=lambda _: True)
            fetcher = Fetcher(search.web.fetch)
            self._open.callback(service.close)
            self._open.callback(fetcher.close)
            return WebSearch(search.web, self.journal, fetcher, service, self.keep)
        captions = {id_: one.caption for id_, one in self.corpus.captions.items()}
        return PictureBank(captions, self.encoder.passages, search.min_similarity)

    @cached_property
    def scorer(self) -> PictureTextScorer | None:
        """Who judges pictures; None if nobody does."""
        config = self.config.picture_filter
        folder = self.places.judge if config.model == CHAMPION else Path(config.model) if config.model else None
        return load_scorer(folder, config.device) if folder else None

    @cached_property
    def look_alikes(self) -> frozenset[str]:
        """Pictures of entities that no picture can tell from others."""
        distance = self.config.picture_filter.look_alike_distance
        if not distance:
            return frozenset()
        owned = {(one.entity_group, image) for one in self.corpus.passages() for image in one.portraits.values()}
        return look_alikes(sorted(owned), self.load_picture, distance)

    def close(self) -> None:
        """Close connections and files."""
        self._open.close()

    def take_usage(self) -> Usage:
        """What the writer used since the last call; nothing if nobody asked it."""
        return self.asker.take_usage() if "asker" in self.__dict__ else Usage()

    def keep(self, record: ImageRecord) -> None:
        """Take a new picture, until `take_pictures`."""
        self._new[record.id] = record

    def take_pictures(self) -> list[ImageRecord]:
        """The new pictures since the last call, sorted by id."""
        taken = [self._new[id_] for id_ in sorted(self._new)]
        self._new = {}
        return taken

    def load_picture(self, id_: str) -> Image.Image:
        """A picture, new or of the corpus, as RGB. Raises `FoundryError` if it is nowhere or damaged."""
        return decode_rgb(self._new[id_].bytes, id_) if id_ in self._new else self.corpus.images.load(id_)

    def _make_writer(self) -> LanguageModel:
        writer = self.config.writer
        if writer.kind == "endpoint" and writer.endpoint is not None:
            return Endpoint(writer.endpoint)
        if writer.kind == "local":
            return LocalModel(writer.local)
        return RuleWriter(self.config.seed, self.corpus.wordings, self.config.references)
