"""The layout of a folder of vectors, which is read shard by shard, each file checked against its companions.

A shard has ``ids-00007.parquet`` and ``vectors-00007.npy`` (memory-mappable), and ``skipped-00007.json`` where rows
could not be embedded. They lie beside ``job.json``, or in the folder below it that it names. An update replaces
``job.json`` by one rename, so the folder holds one complete version at any instant. Knows the layout and what must
agree; not how vectors are made.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import TypeAdapter

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.file_digests import file_digest
from gme_data.parquet import UNREADABLE
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json
from gme_embedder.corpus.job import JOB_FILE, EmbedJob, read_job
from gme_embedder.vectors.npy import open_npy, require_regular

Vectors = NDArray[np.float16] | NDArray[np.float32]

IDS_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("picture", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("bytes", pa.int64()),
        pa.field("ctime_ns", pa.int64()),
        pa.field("content", pa.binary(32)),
    ]
)
"""The columns of a shard's ids: the digest of each row's content (`CorpusRow.content`) and, if the picture of the row
is a separate file, the version of that file that was read."""
_JOB_KEY = b"job"
_VECTORS_KEY = b"vectors"
_ROWS_KEY = b"rows"
_RERUN = "Run the same `gme embed` again: it makes what is missing or damaged, and nothing else."


class SkippedRow(Frozen):
    """A row of the corpus that has no vector."""

    row: str
    """Its location, such as ``corpus.parquet, row 7``."""
    id: str
    """Its id; empty if it has none that can be read."""
    reason: str
    """Why it could not be embedded."""


_SKIPPED = TypeAdapter(list[SkippedRow])


@dataclass(frozen=True, slots=True)
class VectorShard:
    """One shard of a folder of vectors.

    Attributes:
        path: The file of the vectors.
        ids: The ids of the rows.
        vectors: [m, d], memory-mapped.
        contents: sha256 of each row's content, [m]; None in folders of earlier versions, which do not record it.
        digest: Digest of vectors, ids and contents; None in folders of earlier versions.
    """

    path: Path
    ids: list[str]
    vectors: Vectors
    contents: list[bytes] | None = None
    digest: str | None = None

    def require_finite(self) -> None:
        """Reads all vectors and checks that they are finite.

        Raises:
            FoundryError: One is not finite; names file and id.
        """
        bad = np.flatnonzero(~np.isfinite(self.vectors).all(axis=1))
        if len(bad):
            raise FoundryError(
                f"{self.path} is damaged: the vector of '{self.ids[bad[0]]}' is not finite.",
                hint=f"Delete {self.path.name} and run the same `gme embed` again.",
            )


@dataclass(frozen=True, slots=True)
class VectorIndex:
    """All shards of one version of a folder of vectors."""

    job: EmbedJob
    shards: list[VectorShard]

    @property
    def digest(self) -> str:
        """The sha256 of the job and of every shard."""
        return sha256_json([self.job.digest(), [shard.digest for shard in self.shards]])


def shards_folder(folder: Path, job: EmbedJob) -> Path:
    """Returns the folder of the shards by the `job`; the functions for paths below take this folder."""
    return folder / job.shards_in


def vectors_path(folder: Path, number: int) -> Path:
    """Returns the path of the vectors of a shard."""
    return folder / f"vectors-{number:05d}.npy"


def ids_path(folder: Path, number: int) -> Path:
    """Returns the path of the ids of a shard."""
    return folder / f"ids-{number:05d}.parquet"


def skipped_path(folder: Path, number: int) -> Path:
    """Returns the path of the list of rows of a shard that have no vector."""
    return folder / f"skipped-{number:05d}.json"


def shard_count(job: EmbedJob) -> int:
    """Returns how many shards a complete folder has; 0 for an empty corpus."""
    return math.ceil(job.corpus.rows / job.shard_rows)


def open_vectors(folder: Path) -> Iterator[tuple[list[str], Vectors]]:
    """Yields ids and memory-mapped vectors [m, d] of each shard, in the order of the corpus.

    Raises:
        FoundryError: No folder of vectors, or a shard of it is missing or damaged.
    """
    return ((shard.ids, shard.vectors) for shard in open_shards(folder))


def open_index(folder: Path) -> VectorIndex:
    """Opens all shards of a folder together, so that they are of one version even if it is updated meanwhile.

    Raises:
        FoundryError: As `open_vectors`.
    """
    while True:
        job = read_job(folder)
        try:
            return VectorIndex(job, list(_open_shards(folder, job)))
        except (FoundryError, OSError):
            # An update removes the old shards after it has replaced job.json: then the new ones are opened.
            if read_job(folder) == job:
                raise


def open_shards(folder: Path) -> Iterator[VectorShard]:
    """Yields the shards of a folder one after the other. Raises as `open_vectors`."""
    return _open_shards(folder, read_job(folder))


def _open_shards(folder: Path, job: EmbedJob) -> Iterator[VectorShard]:
    shards = shards_folder(folder, job)
    # The first that is missing ends the search, since a damaged ``job.json`` may state any number of shards.
    missing = next((number for number in range(shard_count(job)) if not vectors_path(shards, number).exists()), None)
    if missing is not None:
        present = sum(1 for _ in shards.glob("vectors-*.npy"))
        raise FoundryError(
            f"{shards}: shards are missing: {present} of {shard_count(job)} are there, the first that is not is number "
            f"{missing}.",
            hint=_RERUN,
        )
    for number in range(shard_count(job)):
        yield open_shard(folder, job, number)


def open_shard(folder: Path, job: EmbedJob, number: int) -> VectorShard:
    """Opens one shard of a folder of vectors.

    Raises:
        FoundryError: One of its files is damaged, or they do not fit each other or the `job`.
    """
    shards = shards_folder(folder, job)
    path = vectors_path(shards, number)
    digests = _recorded_digests(shards, number)
    if digests.get(_JOB_KEY) != job.digest():
        raise FoundryError(f"{path} was made by another job than {folder / JOB_FILE} says.", hint=_RERUN)
    vectors = _open_vectors(path, job)
    ids, contents = _read_rows(shards, number, digests)
    if len(ids) != len(vectors):
        raise FoundryError(
            f"{path} and {ids_path(shards, number).name} do not belong together: {len(vectors)} vectors, "
            f"{len(ids)} ids.",
            hint=_RERUN,
        )
    rows = min(job.shard_rows, job.corpus.rows - number * job.shard_rows)
    skipped = len(read_skipped(shards, number))
    if len(ids) + skipped != rows:
        raise FoundryError(
            f"{path} is of another corpus: {len(ids)} vectors and {skipped} skipped rows, expected {rows} rows.",
            hint=_RERUN,
        )
    # Folders of earlier versions have no digest of their vectors.
    if digests.get(_VECTORS_KEY, "") not in ("", file_digest(path, across_runs=True)):
        raise FoundryError(
            f"{path} is damaged or another file: it has not the digest that {ids_path(shards, number).name} notes.",
            hint=_RERUN,
        )
    has_digest = contents is not None and _VECTORS_KEY in digests
    digest = digests[_VECTORS_KEY] + digests[_ROWS_KEY] if has_digest else None
    return VectorShard(path, ids, vectors, contents, digest)


def _open_vectors(path: Path, job: EmbedJob) -> Vectors:
    try:
        vectors: Vectors = open_npy(path)
    except FoundryError as error:
        raise FoundryError(str(error), hint=_RERUN) from error
    if vectors.dtype != job.dtype or vectors.ndim != 2 or vectors.shape[1] != job.model.dimension:
        raise FoundryError(
            f"{path} is damaged: it holds {vectors.dtype} {list(vectors.shape)}, "
            f"{JOB_FILE} says {job.dtype} of size {job.model.dimension}.",
            hint=_RERUN,
        )
    return vectors


def _read_rows(folder: Path, number: int, digests: Mapping[bytes, str]) -> tuple[list[str], list[bytes] | None]:
    """Reads ids and contents of a shard; None for the contents that earlier versions did not record."""
    if _ROWS_KEY not in digests:
        return read_ids(folder, number, ["id"]).column("id").to_pylist(), None
    ids, contents = (column.to_pylist() for column in read_ids(folder, number, ["id", "content"]).columns)
    if rows_digest(ids, contents) != digests[_ROWS_KEY]:
        path = ids_path(folder, number)
        raise FoundryError(f"{path} is damaged: its rows have not the digest that it notes.", hint=_RERUN)
    return ids, contents


def rows_digest(ids: Sequence[str], contents: Sequence[bytes | None]) -> str:
    """Returns the sha256 of the ids of a shard and of the contents of its rows."""
    return sha256_json([list(ids), [content and content.hex() for content in contents]])


def ids_schema(job: EmbedJob, vectors: str, rows: str) -> pa.Schema:
    """Returns `IDS_SCHEMA` with the digests of the job that makes the shard, of its vectors and of its rows."""
    return IDS_SCHEMA.with_metadata({_JOB_KEY: job.digest(), _VECTORS_KEY: vectors, _ROWS_KEY: rows})


def _recorded_digests(folder: Path, number: int) -> dict[bytes, str]:
    """Reads the digests that the file of a shard's ids records; raises as `read_ids`."""
    path = ids_path(folder, number)
    try:
        require_regular(path)
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is missing.", hint=_RERUN) from error
    except UNREADABLE as error:
        raise FoundryError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=_RERUN) from error
    return {name: value.decode("utf-8", "replace") for name, value in metadata.items()}


def read_ids(folder: Path, number: int, columns: Sequence[str]) -> pa.Table:
    """Reads columns of `IDS_SCHEMA` of a shard.

    Raises:
        FoundryError: The file is missing or damaged.
    """
    path = ids_path(folder, number)
    try:
        return pq.read_table(path, columns=list(columns)).cast(
            pa.schema([IDS_SCHEMA.field(column) for column in columns])
        )
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is missing.", hint=_RERUN) from error
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise FoundryError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=_RERUN) from error


def read_skipped(folder: Path, number: int) -> list[SkippedRow]:
    """Reads the rows of a shard that have no vector, in order.

    Raises:
        FoundryError: The file that lists them is damaged.
    """
    path = skipped_path(folder, number)
    try:
        return read_json(path, list[SkippedRow])
    except FileNotFoundError:
        return []
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint=_RERUN) from error


def skipped_json(rows: Sequence[SkippedRow]) -> bytes:
    """Returns the content of the file that `read_skipped` reads."""
    return _SKIPPED.dump_json(list(rows), indent=1)
