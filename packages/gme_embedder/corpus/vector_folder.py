"""A folder of vectors read back: shard by shard, each file checked against its companions.

Per shard there are ``ids-00007.parquet`` and ``vectors-00007.npy`` (memory-mappable), and ``skipped-00007.json`` where
rows could not be embedded. They lie beside ``job.json``, or below it where that says: it is replaced by one rename, so
a folder that is updated holds the whole of one version at any instant. Knows the layout and what must agree; not how
vectors are made.
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
from gme_embedder.corpus.job import JOB, Job, read_job
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
"""The ids of a shard, the digest of what each row holds (`CorpusRow.content`), and of each row whose picture is a file
of its own what that file was when it was read."""
_JOB_KEY = b"job"
_VECTORS_KEY = b"vectors"
_ROWS_KEY = b"rows"
_AGAIN = "Run the same `gme embed` again: it makes what is missing or damaged, and nothing else."


class SkippedRow(Frozen):
    """A row of the corpus that has no vector."""

    row: str
    """Where it stands, such as ``corpus.parquet, row 7``."""
    id: str
    """Empty where the row has none that can be read."""
    reason: str
    """What is wrong with it."""


_SKIPPED = TypeAdapter(list[SkippedRow])


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard.

    Attributes:
        path: The file of the vectors.
        ids: Of the rows.
        vectors: [m, d], memory-mapped.
        contents: sha256 of what each row holds, [m]; None in folders of earlier versions, which do not note it.
        digest: Of vectors, ids and contents; None in folders of earlier versions.
    """

    path: Path
    ids: list[str]
    vectors: Vectors
    contents: list[bytes] | None = None
    digest: str | None = None

    def require_finite(self) -> None:
        """Read all vectors.

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
class Index:
    """All shards of a folder, of one version of it."""

    job: Job
    shards: list[Shard]

    @property
    def digest(self) -> str:
        """sha256 of the job and of every shard."""
        return sha256_json([self.job.digest(), [shard.digest for shard in self.shards]])


def shards_folder(folder: Path, job: Job) -> Path:
    """Where the shards of a folder of vectors are, by its `job`; what the paths below are given."""
    return folder / job.shards_in


def vectors_path(folder: Path, number: int) -> Path:
    """Where the vectors of a shard are."""
    return folder / f"vectors-{number:05d}.npy"


def ids_path(folder: Path, number: int) -> Path:
    """Where the ids of a shard are."""
    return folder / f"ids-{number:05d}.parquet"


def skipped_path(folder: Path, number: int) -> Path:
    """Where the rows of a shard are noted that have no vector."""
    return folder / f"skipped-{number:05d}.json"


def shard_count(job: Job) -> int:
    """Shards of a whole folder; 0 for an empty corpus."""
    return math.ceil(job.corpus.rows / job.shard_rows)


def open_vectors(folder: Path) -> Iterator[tuple[list[str], Vectors]]:
    """Ids and memory-mapped vectors [m, d] of each shard, in the order of the corpus; nothing for an empty corpus.

    Raises:
        FoundryError: No folder of vectors, or a shard of it is missing or damaged.
    """
    return ((shard.ids, shard.vectors) for shard in open_shards(folder))


def open_index(folder: Path) -> Index:
    """All shards of a folder at once, and so of one version, even if it is updated meanwhile.

    Raises:
        FoundryError: As `open_vectors`.
    """
    while True:
        job = read_job(folder)
        try:
            return Index(job, list(_open_shards(folder, job)))
        except (FoundryError, OSError):
            if read_job(folder) == job:
                raise


def open_shards(folder: Path) -> Iterator[Shard]:
    """All shards of a folder, one after the other. As `open_vectors`."""
    return _open_shards(folder, read_job(folder))


def _open_shards(folder: Path, job: Job) -> Iterator[Shard]:
    place = shards_folder(folder, job)
    there = sum(1 for _ in place.glob("vectors-*.npy"))
    # The first that is missing ends the search: a damaged record may speak of any number of shards.
    first = next((number for number in range(shard_count(job)) if not vectors_path(place, number).exists()), None)
    if first is not None:
        raise FoundryError(
            f"{place}: shards are missing: {there} of {shard_count(job)} are there, the first that is not is number "
            f"{first}.",
            hint=_AGAIN,
        )
    for number in range(shard_count(job)):
        yield open_shard(folder, job, number)


def open_shard(folder: Path, job: Job, number: int) -> Shard:
    """One shard of a folder of vectors.

    Raises:
        FoundryError: One of its files is damaged, or they do not fit each other or the `job`.
    """
    place = shards_folder(folder, job)
    path = vectors_path(place, number)
    noted = _noted(place, number)
    if noted.get(_JOB_KEY) != job.digest():
        raise FoundryError(f"{path} was made by another job than {folder / JOB} says.", hint=_AGAIN)
    vectors = _open_vectors(path, job)
    ids, contents = _read_rows(place, number, noted)
    if len(ids) != len(vectors):
        raise FoundryError(
            f"{path} and {ids_path(place, number).name} do not belong together: {len(vectors)} vectors, "
            f"{len(ids)} ids.",
            hint=_AGAIN,
        )
    rows = min(job.shard_rows, job.corpus.rows - number * job.shard_rows)
    skipped = len(read_skipped(place, number))
    if len(ids) + skipped != rows:
        raise FoundryError(
            f"{path} is of another corpus: {len(ids)} vectors and {skipped} skipped rows, expected {rows} rows.",
            hint=_AGAIN,
        )
    # Folders of earlier versions have no digest of their vectors.
    if noted.get(_VECTORS_KEY, "") not in ("", file_digest(path, across_runs=True)):
        raise FoundryError(
            f"{path} is damaged or another file: it has not the digest that {ids_path(place, number).name} notes.",
            hint=_AGAIN,
        )
    whole = contents is not None and _VECTORS_KEY in noted
    return Shard(path, ids, vectors, contents, noted[_VECTORS_KEY] + noted[_ROWS_KEY] if whole else None)


def _open_vectors(path: Path, job: Job) -> Vectors:
    try:
        vectors: Vectors = open_npy(path)
    except FoundryError as error:
        raise FoundryError(str(error), hint=_AGAIN) from error
    if vectors.dtype != job.dtype or vectors.ndim != 2 or vectors.shape[1] != job.model.dimension:
        raise FoundryError(
            f"{path} is damaged: it holds {vectors.dtype} {list(vectors.shape)}, "
            f"{JOB} says {job.dtype} of size {job.model.dimension}.",
            hint=_AGAIN,
        )
    return vectors


def _read_rows(place: Path, number: int, noted: Mapping[bytes, str]) -> tuple[list[str], list[bytes] | None]:
    """Ids and contents of a shard; no contents where earlier versions noted none."""
    if _ROWS_KEY not in noted:
        return read_ids(place, number, ["id"]).column("id").to_pylist(), None
    ids, contents = (column.to_pylist() for column in read_ids(place, number, ["id", "content"]).columns)
    if rows_digest(ids, contents) != noted[_ROWS_KEY]:
        path = ids_path(place, number)
        raise FoundryError(f"{path} is damaged: its rows have not the digest that it notes.", hint=_AGAIN)
    return ids, contents


def rows_digest(ids: Sequence[str], contents: Sequence[bytes | None]) -> str:
    """sha256 of the ids of a shard and of what its rows hold."""
    return sha256_json([list(ids), [content and content.hex() for content in contents]])


def ids_schema(job: Job, vectors: str, rows: str) -> pa.Schema:
    """`IDS_SCHEMA` with the digests of the job that makes the shard, of its file of vectors and of its rows."""
    return IDS_SCHEMA.with_metadata({_JOB_KEY: job.digest(), _VECTORS_KEY: vectors, _ROWS_KEY: rows})


def _noted(folder: Path, number: int) -> dict[bytes, str]:
    """The digests that are noted with the ids of a shard; raises as `read_ids`."""
    path = ids_path(folder, number)
    try:
        require_regular(path)
        metadata = pq.read_schema(path).metadata or {}
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is missing.", hint=_AGAIN) from error
    except UNREADABLE as error:
        raise FoundryError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=_AGAIN) from error
    return {name: value.decode("utf-8", "replace") for name, value in metadata.items()}


def read_ids(folder: Path, number: int, columns: Sequence[str]) -> pa.Table:
    """Columns of `IDS_SCHEMA` of a shard.

    Raises:
        FoundryError: The file is missing or damaged.
    """
    path = ids_path(folder, number)
    try:
        return pq.read_table(path, columns=list(columns)).cast(
            pa.schema([IDS_SCHEMA.field(column) for column in columns])
        )
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is missing.", hint=_AGAIN) from error
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise FoundryError(f"{path} is damaged: {str(error).splitlines()[0]}", hint=_AGAIN) from error


def read_skipped(folder: Path, number: int) -> list[SkippedRow]:
    """Rows of a shard that have no vector, in order.

    Raises:
        FoundryError: The file that notes them is damaged.
    """
    path = skipped_path(folder, number)
    try:
        return read_json(path, list[SkippedRow])
    except FileNotFoundError:
        return []
    except StructureError as error:
        raise FoundryError(f"{path} is damaged: {error.reason}", hint=_AGAIN) from error


def skipped_json(rows: Sequence[SkippedRow]) -> bytes:
    """What `read_skipped` reads."""
    return _SKIPPED.dump_json(list(rows), indent=1)
