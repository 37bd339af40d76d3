"""The vectors that a folder has already, looked up by id and content, so that an update does not encode them again.

In memory are 40 bytes for each row and the recorded versions of picture files; the vectors stay on disk. Knows rows by
their digests; not where they come from.
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
from gme_embedder.corpus.job import EmbedJob
from gme_embedder.corpus.picture_files import PictureVersion
from gme_embedder.corpus.vector_folder import (
    IDS_SCHEMA,
    Vectors,
    VectorShard,
    open_shard,
    read_ids,
    shard_count,
    shards_folder,
)

_log = logging.getLogger(__name__)
_DIGEST = np.dtype("S16")
Digests = NDArray[np.bytes_]


@dataclass(frozen=True, slots=True)
class Changes:
    """Counts of how the vectors of a folder differ from those that it had.

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


class ReusableVectors:
    """Vectors by id and content.

    Args:
        vectors: The vectors of each shard, [m_i, d].
        ids: Digests of the ids of each shard.
        keys: Digests of ids with contents of each shard.
        pictures: The picture files that were embedded.
    """

    def __init__(
        self,
        vectors: Sequence[Vectors] = (),
        ids: Sequence[Digests] = (),
        keys: Sequence[Digests] = (),
        pictures: Mapping[Path, PictureVersion] = MappingProxyType({}),
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
    def open(cls, folder: Path, job: EmbedJob) -> Self:
        """Opens the vectors of a folder; a shard that is missing or damaged is logged, and its rows are left out.

        Raises:
            FoundryError: The folder is of an earlier version, which did not note what its rows held.
        """
        vectors, ids, keys = list[Vectors](), list[Digests](), list[Digests]()
        pictures: dict[Path, PictureVersion] = {}
        for number in range(shard_count(job)):
            try:
                shard = open_shard(folder, job, number)
                shard_pictures = read_shard_pictures(shards_folder(folder, job), number)
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
            pictures.update({path: file for path, (file, _) in shard_pictures.items()})
        return cls(vectors, ids, keys, pictures)

    def find(self, ids: Sequence[str], contents: Sequence[bytes]) -> NDArray[np.int64]:
        """Returns the number of the vector of each row by id and content, -1 where there is none, [m]."""
        indices, exists = _search(self._keys, _digests(ids, contents))
        return np.where(exists, self._order[indices] if len(self._order) else -1, -1)

    def vectors(self, numbers: NDArray[np.int64], dtype: np.dtype[Any]) -> Vectors:
        """Reads the vectors of these numbers, [m, d], m at least 1; `dtype` can hold what the folder stores exactly."""
        shards = np.searchsorted(self._starts, numbers, side="right") - 1
        vectors = np.empty((len(numbers), self._vectors[int(shards[0])].shape[1]), dtype)
        for shard in np.unique(shards).tolist():
            in_shard = shards == shard
            vectors[in_shard] = self._vectors[shard][numbers[in_shard] - self._starts[shard]]
        return vectors

    def compare(self, shards: Iterable[VectorShard]) -> Changes:
        """Counts how other shards, whose ids are all different, differ from these."""
        kept = same_id = rows = 0
        for shard in shards:
            rows += len(shard.ids)
            kept += int((self.find(shard.ids, shard.contents or ()) >= 0).sum())
            same_id += int(_search(self._ids, _digests(shard.ids))[1].sum())
        return Changes(kept, rows - same_id, same_id - kept, len(self._ids) - same_id)


def read_shard_pictures(folder: Path, number: int) -> dict[Path, tuple[PictureVersion, str]]:
    """Reads which picture files a shard in `folder` was made of, each with the id of a row that has it.

    Raises:
        FoundryError: The file that records them is missing or damaged.
    """
    table = read_ids(folder, number, [name for name in IDS_SCHEMA.names if name != "content"])
    return {
        Path(row["picture"]): (PictureVersion(row["sha256"], row["bytes"], row["ctime_ns"]), row["id"])
        for row in table.filter(table.column("picture").is_valid()).to_pylist()
    }


def _digests(ids: Sequence[str], contents: Sequence[bytes] | None = None) -> Digests:
    """Returns 16-byte digests of each id, or of each id with its content."""
    rows = [id_.encode() for id_ in ids]
    if contents is not None:
        # A content always has 32 bytes, so no id is taken for the end of one.
        rows = [content + id_ for id_, content in zip(rows, contents, strict=True)]
    return np.array([hashlib.blake2b(row, digest_size=16, usedforsecurity=False).digest() for row in rows], _DIGEST)


def _search(ordered: Digests, digests: Digests) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns indices into `ordered`, and whether each digest stands there."""
    if not len(ordered):
        return np.zeros(len(digests), np.int64), np.zeros(len(digests), bool)
    indices = np.minimum(np.searchsorted(ordered, digests), len(ordered) - 1)
    return indices, ordered[indices] == digests
