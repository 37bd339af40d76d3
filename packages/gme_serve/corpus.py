"""An embedded corpus to search in: memory-mapped vectors, their ids, and what to show of them.

For one thread at a time. Knows folders made by `gme embed`; not how a query came to be a vector.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.images import ImageStore, decode_rgb
from gme_data.tables import Table
from gme_embedder.corpus_rows import digest_files
from gme_embedder.embedder import Embedder
from gme_embedder.folder import Vectors, open_shards, read_skipped, shard_count
from gme_embedder.index import search_shards
from gme_embedder.job import Job, ModelIdentity, model_changes, read_job
from gme_serve.catalogue import Catalogue

_SNIPPET = 400
_THUMBNAIL = 384
_SAME = 0.98
"""Cosine of a row's vector and the one made anew; halves of precision cost less than 0.01."""


@dataclass(frozen=True, slots=True)
class Hit:
    """A row of the corpus and its cosine similarity to the query; `image` says whether it has a picture."""

    row: int
    id: str
    score: float
    title: str | None
    text: str | None
    image: bool


@dataclass(frozen=True, slots=True)
class Corpus:
    """Vectors by shard, ids by row, what they were made of, and the catalogue if there is one."""

    job: Job
    shards: list[Vectors]
    ids: list[str]
    catalogue: Catalogue | None

    @classmethod
    def open(cls, folder: Path, source: Path | None = None, images: Path | None = None) -> Self:
        """Open a folder made by `gme embed`; all vectors are read once.

        Args:
            folder: The vectors.
            source: The tables they were made of; without it, hits are ids alone.
            images: Folder of images-*.parquet for the image ids of `source`.

        Raises:
            FoundryError: No, incomplete or damaged vectors, or a source that is not what they were made of.
        """
        job = read_job(folder)
        ids: list[str] = []
        shards = []
        for shard in open_shards(folder):
            shard.require_finite()
            ids += shard.ids
            shards.append(shard.vectors)
        if source is None:
            return cls(job, shards, ids, None)
        skipped = [row for number in range(shard_count(job)) for row in read_skipped(folder, number)]
        catalogue = Catalogue(source, ids, skipped, ImageStore([images]) if images else None)
        _require_source(job, catalogue.table)
        return cls(job, shards, ids, catalogue)

    def check_made_by(self, embedder: Embedder) -> None:
        """Check that `embedder` gives what the folder holds: by embedding the first row of the catalogue again.

        Raises:
            FoundryError: It does not.
        """
        if self.catalogue is None or not self.ids:
            return
        title, text = self.catalogue.text(0)
        row = {"title": title, "text": text, "image": self.catalogue.picture(0)}
        item = {name: value for name, value in row.items() if value is not None}
        first = next(shard[0] for shard in self.shards if len(shard))
        cosine = float(embedder.encode([item], self.job.instruction)[0] @ first)
        if cosine < _SAME:
            raise FoundryError(
                f"The model gives '{self.ids[0]}' another vector than the folder holds (cosine {cosine:.2f}): "
                "the vectors are damaged, or a picture beside the source was changed.",
                hint="Embed the corpus again with the model that is served.",
            )

    def search(self, query: NDArray[np.float32], k: int) -> list[Hit]:
        """The `k` nearest rows of one query [1, d], best first, ties by row."""
        scores, rows = search_shards(query, self.shards, k)
        return [self._hit(row, score) for row, score in zip(rows[0].tolist(), scores[0].tolist(), strict=True)]

    def thumbnail(self, row: int) -> bytes | None:
        """A row's picture as PNG, at most 384 pixels wide and high; None where there is none.

        Raises:
            FoundryError: The picture is missing or damaged.
        """
        if self.catalogue is None or not 0 <= row < len(self.ids):
            return None
        data = self.catalogue.picture(row)
        if data is None:
            return None
        picture = decode_rgb(data, self.ids[row])
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        return buffer.getvalue()

    def _hit(self, row: int, score: float) -> Hit:
        id_ = self.ids[row]
        if self.catalogue is None:
            return Hit(row, id_, score, None, None, False)
        title, text = self.catalogue.text(row)
        return Hit(row, id_, score, title, text and _snippet(text), self.catalogue.has_picture(row))


def _snippet(text: str) -> str:
    words = " ".join(text[: 2 * _SNIPPET].split())
    return words if len(words) <= _SNIPPET else words[: _SNIPPET - 1].rstrip() + "…"


def require_model(folder: Path, job: Job, model: ModelIdentity) -> None:
    """Check that the vectors in `folder` were made by `model`, with the same input settings.

    Raises:
        FoundryError: They were made by another; names what differs.
    """
    changes = model_changes(job.model, model)
    if changes:
        lines = [f"  {name}: {change}" for name, change in changes.items()]
        raise FoundryError(
            "\n".join([f"The vectors in {folder} were made by another model than is served.", *lines]),
            hint="Serve the model that `gme embed` was given, or embed the corpus again.",
        )


def _require_source(job: Job, table: Table) -> None:
    """Check that the tables hold what was embedded; their ids were compared before."""
    files = digest_files(table)
    changed = next((name for name in files if files[name] != job.corpus.files.get(name)), None)
    if changed is not None:
        raise FoundryError(
            f"--source {table.path if changed == '.' else table.path / changed} was changed since it was embedded: "
            "its texts or pictures are not those of the vectors.",
            hint="Give the tables as they were, or embed the corpus again.",
        )
