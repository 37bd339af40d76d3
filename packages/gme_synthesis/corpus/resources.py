"""What the steps of one process share: corpus, encoder, writer, picture scorer. Each is loaded on first use, and once.

A rerun whose shards are all finished uses none of them, so it loads no model.
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

POOL, POOL_IDS, BUFFER, WAITING = "pool.npy", "pool.json", "examples.sqlite", "waiting"


@dataclass(frozen=True, slots=True)
class RunFolders:
    """Folders that a run reads and writes.

    Attributes:
        corpus: The imported corpus.
        scratch: Shards and the encoded pool of this run; deleted when the step is published.
        answers: Answers of language models and search services, kept over all runs.
        picture_scorer: The champion, where it scores pictures and there is one.
    """

    corpus: Path
    scratch: Path
    answers: Path
    picture_scorer: Path | None = None


class Resources:
    """See the module's docstring. Close it when done.

    Args:
        config: The configuration of the run.
        folders: The folders of the run.
        process: Names this process among those that append to the journal of answers.
    """

    def __init__(self, config: SynthesisConfig, folders: RunFolders, process: str = "0") -> None:
        self.config, self.folders, self._process = config, folders, process
        self._new_pictures: dict[str, ImageRecord] = {}
        self._exit_stack = ExitStack()

    @cached_property
    def corpus(self) -> Corpus:
        """The opened corpus; of Atlas, its train split."""
        folder = self.folders.corpus
        return open_atlas(folder) if is_atlas(folder) else open_imported(folder)

    @cached_property
    def encoder(self) -> TextEncoder:
        """The text encoder of the filters."""
        return load_encoder(self.config.encoder, self.config.encoder_device)

    @cached_property
    def journal(self) -> RequestJournal:
        """The journal of answers."""
        journal = RequestJournal(self.folders.answers, self._process)
        self._exit_stack.callback(journal.close)
        return journal

    @cached_property
    def llm_client(self) -> LLMClient:
        """The writer with its journal; rules have none, as their answers cost nothing."""
        config = self.config.writer
        # Rules and a local model answer the same request in the same way again.
        attempts = config.attempts if config.kind == "endpoint" else 1
        prices = config.endpoint.prices if config.endpoint else Prices()
        journal = None if config.kind == "rules" else self.journal
        return LLMClient(self._load_writer(), journal, attempts, prices)

    @cached_property
    def pool(self) -> NDArray[np.float32]:
        """Vectors of all passages that a question may retrieve, memory-mapped, float32 [passages, d]."""
        vectors: NDArray[np.float32] = np.load(self.folders.scratch / POOL, mmap_mode="r", allow_pickle=False)
        return vectors

    @cached_property
    def pool_rows(self) -> Mapping[str, int]:
        """The row in `pool` of each passage, by its id."""
        path = self.folders.scratch / POOL_IDS
        # The file is our own, so its size is bounded by the corpus alone.
        ids = read_json(path, list[str], max_bytes=2**40, hint=f"Delete {path}; the pool is encoded again.")
        return {id_: row for row, id_ in enumerate(ids)}

    @cached_property
    def searcher(self) -> PictureSearch:
        """The search for pictures by the name of an entity."""
        search = self.config.search
        if search.by == "web" and search.web is not None:
            # The service is the user's choice and may stand in a private network; what it points to may not.
            service_config = search.web.fetch.model_copy(update={"obey_robots_txt": False, "other_hosts": False})
            service = Fetcher(service_config, allowed=lambda _: True)
            fetcher = Fetcher(search.web.fetch)
            self._exit_stack.callback(service.close)
            self._exit_stack.callback(fetcher.close)
            return WebSearch(search.web, self.journal, fetcher, service, self.add_picture)
        captions = {id_: caption.caption for id_, caption in self.corpus.captions.items()}
        return PictureBank(captions, self.encoder.passages, search.min_similarity)

    @cached_property
    def scorer(self) -> PictureTextScorer | None:
        """The picture scorer; None if pictures are not scored."""
        config = self.config.picture_filter
        champion = self.folders.picture_scorer
        folder = champion if config.model == CHAMPION else Path(config.model) if config.model else None
        return load_scorer(folder, config.device) if folder else None

    @cached_property
    def look_alikes(self) -> frozenset[str]:
        """Portraits of the entities that look like another entity, by image id."""
        distance = self.config.picture_filter.look_alike_distance
        if not distance:
            return frozenset()
        # A set, since all passages about an entity have the same portraits.
        portraits = {
            (passage.entity_group, image) for passage in self.corpus.passages() for image in passage.portraits.values()
        }
        return look_alikes(sorted(portraits), self.load_picture, distance)

    def close(self) -> None:
        """Closes connections and files."""
        self._exit_stack.close()

    def take_usage(self) -> Usage:
        """Returns what the writer used since the last call."""
        # Looked up in __dict__, since `self.llm_client` would load a model for a step that asks none.
        return self.llm_client.take_usage() if "llm_client" in self.__dict__ else Usage()

    def add_picture(self, record: ImageRecord) -> None:
        """Keeps a new picture until `take_pictures`."""
        self._new_pictures[record.id] = record

    def take_pictures(self) -> list[ImageRecord]:
        """Returns the new pictures since the last call, sorted by id, and forgets them."""
        records = [self._new_pictures[id_] for id_ in sorted(self._new_pictures)]
        self._new_pictures = {}
        return records

    def load_picture(self, id_: str) -> Image.Image:
        """Returns a picture, new or of the corpus, decoded to RGB.

        Raises:
            FoundryError: There is no such picture, or it is damaged.
        """
        new = self._new_pictures.get(id_)
        return decode_rgb(new.bytes, id_) if new else self.corpus.images.load(id_)

    def _load_writer(self) -> LanguageModel:
        config = self.config.writer
        if config.kind == "endpoint" and config.endpoint is not None:
            endpoint = Endpoint(config.endpoint)
            self._exit_stack.callback(endpoint.close)
            return endpoint
        if config.kind == "local":
            return LocalModel(config.local)
        return RuleWriter(self.config.seed, self.corpus.wordings, self.config.references)
