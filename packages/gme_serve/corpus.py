"""An embedded corpus to search in: memory-mapped vectors, their ids, and what to show of them.

For one thread at a time. Knows folders made by `gme embed`; not how a query came to be a vector.
"""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.images import ImageStore, decode_rgb
from gme_embedder.bulk import JOB, Vectors, open_vectors
from gme_embedder.embedder import Embedder
from gme_embedder.index import search_shards
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
    """Vectors by shard, ids by row, and the catalogue if there is one."""

    shards: list[Vectors]
    ids: list[str]
    catalogue: Catalogue | None

    @classmethod
    def open(cls, folder: Path, source: Path | None = None, images: Path | None = None) -> Self:
        """Open a folder made by `gme embed`.

        Args:
            folder: The vectors.
            source: The parquet they were made of; without it, hits are ids alone.
            images: Folder of images-*.parquet for the image ids of `source`.

        Raises:
            FoundryError: No or incomplete vectors, or a source that lacks a row of theirs.
        """
        ids: list[str] = []
        shards = []
        for names, vectors in open_vectors(folder):
            ids += names
            shards.append(vectors)
        catalogue = Catalogue(source, ImageStore([images]) if images else None) if source else None
        if catalogue:
            catalogue.require(ids)
        return cls(shards, ids, catalogue)

    def check_made_by(self, embedder: Embedder, instruction: str | None) -> None:
        """Check that `embedder` made the vectors: by their size, and by embedding the first row again.

        Raises:
            FoundryError: It did not.
        """
        hint = "Embed the corpus again with the model that is served."
        sizes = {shard.shape[1] for shard in self.shards}
        if sizes != {embedder.dimension}:
            found = ", ".join(map(str, sorted(sizes)))
            raise FoundryError(f"The vectors have size {found}, the model's {embedder.dimension}.", hint=hint)
        if self.catalogue is None or not self.ids:
            return
        title, text = self.catalogue.text(self.ids[0])
        row = {"title": title, "text": text, "image": self.catalogue.picture(self.ids[0])}
        item = {name: value for name, value in row.items() if value is not None}
        first = next(shard[0] for shard in self.shards if len(shard))
        cosine = float(embedder.encode([item], instruction)[0] @ first)
        if cosine < _SAME:
            what = f"The model gives '{self.ids[0]}' another vector than the folder holds (cosine {cosine:.2f})"
            raise FoundryError(f"{what}: another model made it, or --source is another corpus.", hint=hint)

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
        data = self.catalogue.picture(self.ids[row])
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
        title, text = self.catalogue.text(id_)
        return Hit(row, id_, score, title, text and _snippet(text), self.catalogue.has_picture(id_))


def _snippet(text: str) -> str:
    words = " ".join(text[: 2 * _SNIPPET].split())
    return words if len(words) <= _SNIPPET else words[: _SNIPPET - 1].rstrip() + "…"


@dataclass(frozen=True, slots=True)
class Origin:
    """What a folder of vectors says of itself: the model as `gme embed` was given it, and the instruction."""

    model: str
    instruction: str | None


def read_origin(folder: Path) -> Origin:
    """Read ``job.json``.

    Raises:
        FoundryError: `folder` holds no vectors, or the file is damaged.
    """
    path = folder / JOB
    if not path.is_file():
        raise FoundryError(f"{folder} holds no vectors.", hint="Make them with `gme embed`.")
    try:
        job = json.loads(path.read_text(encoding="utf-8"))
        model, _, _precision = str(job["model"]).rpartition(" ")
        return Origin(model, job["instruction"])
    except (ValueError, KeyError, TypeError) as error:
        raise FoundryError(f"{path} is damaged: {error}", hint="Embed the corpus again.") from error


def require_model(folder: Path, origin: Origin, model: str) -> None:
    """Check that the vectors in `folder` were made by `model`; a folder may be called by any of its paths.

    Raises:
        FoundryError: They were made by another.
    """
    same_folder = Path(model).is_dir() and Path(model).resolve() == Path(origin.model).resolve()
    if origin.model != model and not same_folder:
        raise FoundryError(
            f"The vectors in {folder} were made by another model: '{origin.model}'; served is '{model}'.",
            hint="Give the same --model as to `gme embed`, or embed the corpus again.",
        )
