"""An embedded corpus that is searched: memory-mapped vectors, their ids, and the contents of their rows.

Not thread-safe. Knows folders that `gme embed` wrote; not how a query is encoded.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.images import ImageStore, decode_rgb, encode_png
from gme_embedder.corpus.job import EmbedJob, ModelIdentity, model_changes
from gme_embedder.corpus.vector_folder import Vectors, open_index, read_ids, read_skipped, shard_count, shards_folder
from gme_embedder.embedder import Embedder
from gme_embedder.vectors.exact import search_shards
from gme_serve.catalogue import Catalogue

_SNIPPET = 400
"""Characters of a text that a hit contains, at most."""
_THUMBNAIL = 384
"""Width and height of a thumbnail in pixels, at most."""
_MIN_COSINE = 0.98
"""Cosine that a row's stored vector must have to the one that the served model gives it. Half precision costs less than
0.01 of it."""


@dataclass(frozen=True, slots=True)
class SearchHit:
    """A row of the corpus and its cosine similarity to the query; `image` says whether it has a picture."""

    row: int
    id: str
    score: float
    title: str | None
    text: str | None
    image: bool


@dataclass(frozen=True, slots=True)
class SearchCorpus:
    """One version of an embedded corpus.

    Attributes:
        job: The settings of `gme embed` that the vectors were computed with.
        index: Digest of all vectors and their sources; it names the version.
        shards: The vectors.
        ids: Ids by row.
        catalogue: Contents of the rows; None without their tables.
    """

    job: EmbedJob
    index: str
    shards: list[Vectors]
    ids: list[str]
    catalogue: Catalogue | None

    @classmethod
    def open(cls, folder: Path, source: Path | None = None, images: Path | None = None) -> Self:
        """Open a folder that `gme embed` wrote; all vectors are read once.

        Args:
            folder: Folder of the vectors.
            source: Tables that were embedded; without them a hit has an id alone.
            images: Folder of images-*.parquet for the image ids of `source`.

        Raises:
            FoundryError: The vectors are missing, incomplete or damaged, or `source` is not what was embedded.
        """
        opened = open_index(folder)
        ids: list[str] = []
        for shard in opened.shards:
            # A NaN compares as no number does, so one damaged row would spoil the order of every search.
            shard.require_finite()
            ids += shard.ids
        catalogue = _open_catalogue(folder, opened.job, ids, source, images) if source else None
        return cls(opened.job, opened.digest, [shard.vectors for shard in opened.shards], ids, catalogue)

    def check_made_by(self, embedder: Embedder) -> None:
        """Check that `embedder` gives the first row the vector that the folder holds.

        Raises:
            FoundryError: It gives another vector.
        """
        item = self.first_item()
        if item:
            self.check_first(embedder.encode([item], self.job.instruction)[0])

    def first_item(self) -> dict[str, Any] | None:
        """Return the item of the first row for the embedder; None for an empty corpus, or without a catalogue.

        Raises:
            FoundryError: The picture of the row can't be read.
        """
        if self.catalogue is None or not self.ids:
            return None
        title, text = self.catalogue.text(0)
        row = {"title": title, "text": text, "image": self.catalogue.picture(0)}
        return {name: value for name, value in row.items() if value is not None}

    def check_first(self, vector: NDArray[np.float32]) -> None:
        """Check that `vector` [d], which the served model gives the first row, is that of the folder.

        Raises:
            FoundryError: Their cosine is too low.
        """
        # One row is enough: settings and digest of the model were compared before, by `require_model`.
        first = next(shard[0] for shard in self.shards if len(shard))
        cosine = float(vector @ first)
        if cosine < _MIN_COSINE:
            raise FoundryError(
                f"The model gives '{self.ids[0]}' another vector than the folder holds (cosine {cosine:.2f}): "
                "the vectors are damaged, or a picture beside the source was changed.",
                hint="Embed the corpus again with the model that is served.",
            )

    def search(self, query: NDArray[np.float32], k: int) -> list[SearchHit]:
        """Return the `k` nearest rows of one query [1, d], best first, ties by row."""
        scores, rows = search_shards(query, self.shards, k)
        hits = []
        for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True):
            if self.catalogue is None:
                hits.append(SearchHit(row, self.ids[row], score, None, None, image=False))
                continue
            title, text = self.catalogue.text(row)
            image = self.catalogue.has_picture(row)
            hits.append(SearchHit(row, self.ids[row], score, title, text and _snippet(text), image))
        return hits

    def thumbnail(self, row: int) -> bytes | None:
        """Return a row's picture as PNG, at most 384 pixels wide and high; None for a row without one.

        Raises:
            FoundryError: The picture is missing or damaged.
        """
        if self.catalogue is None or not 0 <= row < len(self.ids):
            return None
        data = self.catalogue.picture(row)
        if data is None:
            return None
        picture = decode_rgb(data, self.ids[row])
        # A page of hits shows many: full pictures would be megabytes each.
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        return encode_png(picture)


def _open_catalogue(folder: Path, job: EmbedJob, ids: list[str], source: Path, images: Path | None) -> Catalogue:
    shards, numbers = shards_folder(folder, job), range(shard_count(job))
    skipped = [row for number in numbers for row in read_skipped(shards, number)]
    pictures = [digest for number in numbers for digest in read_ids(shards, number, ["sha256"]).column(0).to_pylist()]
    catalogue = Catalogue(source, ids, skipped, ImageStore([images]) if images else None, pictures)
    _require_source(job, catalogue)
    return catalogue


def _snippet(text: str) -> str:
    words = " ".join(text[: 2 * _SNIPPET].split())
    return words if len(words) <= _SNIPPET else words[: _SNIPPET - 1].rstrip() + "…"


def require_model(folder: Path, job: EmbedJob, model: ModelIdentity) -> None:
    """Check that the vectors in `folder` were computed by `model`, with the same input settings.

    Raises:
        FoundryError: They were computed by another model; the message names the differences.
    """
    changes = model_changes(job.model, model)
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"The vectors in {folder} were made by another model than is served.", *lines]),
            hint="Serve the model that `gme embed` was given, or embed the corpus again.",
        )


def _require_source(job: EmbedJob, catalogue: Catalogue) -> None:
    """Check that the tables have the bytes that were embedded; their ids were compared before."""
    digests, path = catalogue.digests, catalogue.table.path
    changed = next((name for name in digests if digests[name] != job.corpus.files.get(name)), None)
    if changed is not None:
        raise FoundryError(
            f"--source {path if changed == '.' else path / changed} was changed since it was embedded: "
            "its texts or pictures are not those of the vectors.",
            hint="Give the tables as they were, or run `gme embed --update`.",
        )
