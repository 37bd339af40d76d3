"""The vectors that a folder has already, looked up by id and content: what an update need not encode.

In memory are 40 bytes for each row, and what is noted of picture files; the vectors stay on disk. Knows rows by their
digests; not where they come from.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_embedder.corpus.job import Job
from gme_embedder.corpus.picture_files import PictureFile
from gme_embedder.corpus.vector_folder import (
    IDS_SCHEMA,
    Shard,
    Vectors,
    open_shard,
    read_ids,
    shard_count,
    shards_folder,
)

_log = logging.getLogger(__name__)
_SHORT = np.dtype("S16")
Digests = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class Changes:
    """How the vectors of a folder differ from those that it had.

    Attributes:
        kept: Rows whose id and content were there: their vectors are the old ones, bit for bit.
        new: Rows whose id was not there.
        changed: Rows whose id was there with another content.
        removed: Ids that were there and have no vector any more.
    """

    kept: int
    new: int
    changed: int
    removed: int


class EarlierVectors:
    """Vectors by id and content.

    Args:
        vectors: By shard, [m_i, d].
        ids: Digests of the ids, by shard.
        keys: Digests of ids with contents, by shard.
        pictures: The picture files that they were made of.
    """

    def __init__(
        self,
        vectors: Sequence[Vectors] = (),
        ids: Sequence[Digests] = (),
        keys: Sequence[Digests] = (),
        pictures: Mapping[Path, PictureFile] = MappingProxyType({}),
    ) -> None:
        self.pictures, self._vectors = pictures, vectors
        self._starts = np.array(list(accumulate(map(len, vectors), initial=0)), np.int64)
        self._ids = np.sort(np.concatenate([*ids, _digests(())]))
        unordered = np.concatenate([*keys, _digests(())])
        self._order = unordered.argsort(kind="stable")
        self._keys = unordered[self._order]

    def __len__(self) -> int:
        return len(self._ids)

    @classmethod
    def open(cls, folder: Path, job: Job) -> Self:
        """What a folder of vectors holds; a shard that is missing or damaged is told, and its rows are not known.

        Raises:
            FoundryError: The folder is of an earlier version, which did not note what its rows held.
        """
        vectors, ids, keys = list[Vectors](), list[Digests](), list[Digests]()
        pictures: dict[Path, PictureFile] = {}
        for number in range(shard_count(job)):
            try:
                shard = open_shard(folder, job, number)
                noted = read_pictures(shards_folder(folder, job), number)
            except (FoundryError, OSError) as error:
                _log.warning("embedding the rows of a shard again: %s", error)
                continue
            if shard.contents is None:
                raise FoundryError(
                    f"{folder} can't be updated: it was made by an earlier version, which did not note what its rows "
                    "held.",
                    hint="Embed the whole corpus once more, without --update, into another folder.",
                )
            vectors.append(shard.vectors)
            ids.append(_digests(shard.ids))
            keys.append(_digests(shard.ids, shard.contents))
            pictures.update({path: file for path, (file, _) in noted.items()})
        return cls(vectors, ids, keys, pictures)

    def find(self, ids: Sequence[str], contents: Sequence[bytes]) -> NDArray[np.int64]:
        """For each row with this id and content the number of its vector, -1 where there is none, [m]."""
        wanted = _digests(ids, contents)
        places, there = _search(self._keys, wanted)
        return np.where(there, self._order[places] if len(self._order) else -1, -1)

    def vectors(self, numbers: NDArray[np.int64], dtype: np.dtype[Any]) -> Vectors:
        """The vectors of these numbers, [m, d], m at least 1; `dtype` can hold what the folder stores exactly."""
        sources = np.searchsorted(self._starts, numbers, side="right") - 1
        found = np.empty((len(numbers), self._vectors[int(sources[0])].shape[1]), dtype)
        for source in np.unique(sources).tolist():
            mine = sources == source
            found[mine] = self._vectors[source][numbers[mine] - self._starts[source]]
        return found

    def compare(self, shards: Iterable[Shard]) -> Changes:
        """How other shards, whose ids are all different, differ from these."""
        kept = known = rows = 0
        for shard in shards:
            rows += len(shard.ids)
            kept += int((self.find(shard.ids, shard.contents or ()) >= 0).sum())
            known += int(_search(self._ids, _digests(shard.ids))[1].sum())
        return Changes(kept, rows - known, known - kept, len(self._ids) - known)


def read_pictures(place: Path, number: int) -> dict[Path, tuple[PictureFile, str]]:
    """The picture files that a shard in the folder `place` was made of, each with the id of a row that has it.

    Raises:
        FoundryError: The file that notes them is missing or damaged.
    """
    table = read_ids(place, number, [name for name in IDS_SCHEMA.names if name != "content"])
    return {
        Path(noted["picture"]): (PictureFile(noted["sha256"], noted["bytes"], noted["ctime_ns"]), noted["id"])
        for noted in table.filter(table.column("picture").is_valid()).to_pylist()
    }


def _digests(ids: Sequence[str], contents: Sequence[bytes] | None = None) -> Digests:
    """Of each id, or of each id with its content."""
    rows = [id_.encode() for id_ in ids]
    if contents is not None:
        rows = [content + id_ for id_, content in zip(rows, contents, strict=True)]  # a content has 32 bytes
    return np.array([hashlib.blake2b(row, digest_size=16, usedforsecurity=False).digest() for row in rows], _SHORT)


def _search(ordered: Digests, wanted: Digests) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Places in `ordered`, and whether what stands there is what is wanted."""
    if not len(ordered):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    places = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
    return places, ordered[places] == wanted
