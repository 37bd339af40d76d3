"""A corpus of any size to vectors on disk: streamed, shard by shard, each shard whole or not there.

A folder of vectors holds, per shard, ``ids-00007.parquet`` and ``vectors-00007.npy`` (memory-mappable), with
``skipped-00007.json`` for rows that could not be embedded, and ``job.json`` with what they were made of. A kill costs
one shard. Processes that are given the same job and folder share the work: each takes the next shard that nobody has,
by a lock that the kernel frees when its holder dies. Knows rows and files; not what is done with the vectors.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from gme_data.digests import sha256_bytes, sha256_file
from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.items import Item
from gme_data.journal import atomic_write
from gme_data.locks import taken
from gme_data.parquet import write_table
from gme_data.progress import Progress
from gme_embedder.embedder import Embedder
from gme_embedder.sources import EmbedderInput

JOB = "job.json"
_IDS = pa.schema([pa.field("id", pa.string(), nullable=False)])
_CONTENT = ("text", "title", "image")

Vectors = NDArray[np.float16] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Job:
    """What decides the vectors of a folder.

    Attributes:
        source: Digest of the input files.
        model: Names the model, with its digest where it has one.
        instruction: Of queries; None for documents.
        shard_rows: Rows of a shard.
        dtype: Of the stored vectors.
        on_error: `raise` stops at a bad row, `skip` notes it.
    """

    source: str
    model: str
    instruction: str | None = None
    shard_rows: int = 8192
    dtype: Literal["float16", "float32"] = "float32"
    on_error: Literal["raise", "skip"] = "raise"


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call did.

    Attributes:
        rows: Of the corpus.
        made: Vectors made now.
        skipped: Rows that could not be embedded, now or before.
        shards_before: Shards that were there.
        shards_elsewhere: Shards that another process was at.
    """

    rows: int
    made: int
    skipped: int
    shards_before: int
    shards_elsewhere: int


def corpus_files(source: Path) -> list[Path]:
    """The parquet files of a corpus: the file itself, or all of a folder by name.

    Raises:
        FoundryError: There is none, one is damaged, or lacks ``id`` or all of ``text``, ``title`` and ``image``.
    """
    files = sorted(source.glob("*.parquet")) if source.is_dir() else [source]
    if not files or not all(file.is_file() for file in files):
        raise FoundryError(f"No parquet file at {source}.", hint="Columns: id, and text, title and/or image.")
    for file in files:
        names = _open(file).schema_arrow.names
        if "id" not in names or not set(names) & set(_CONTENT):
            raise FoundryError(f"{file}: expected columns id and text, title or image; found {', '.join(names)}.")
    return files


def digest_of(files: Sequence[Path]) -> str:
    """sha256 over the names and contents of the files."""
    return sha256_bytes("\n".join(f"{file.name} {sha256_file(file)}" for file in files).encode())


def embed_corpus(
    embedder: Embedder, files: Sequence[Path], output: Path, job: Job, *, images: ImageStore | None = None
) -> Summary:
    """Embed all rows; shards that are there, or that another process is at, are left alone.

    Args:
        embedder: The model that `job` names.
        files: See `corpus_files`. An ``image`` is the encoded bytes, a path, or an id in `images`.
        output: Folder of vectors.
        job: Must be that of the vectors already in `output`.
        images: Where image ids are looked up.

    Raises:
        FoundryError: `output` holds vectors of another job; a bad row with ``on_error="raise"``.
    """
    _claim(output, job)
    total = sum(_open(file).metadata.num_rows for file in files)
    made = skipped = before = elsewhere = 0
    with Progress("embed", total, "rows") as progress:
        meter = Meter(progress)
        for number, rows in enumerate(_shards(files, job.shard_rows)):
            with taken(output / f".lock-{number:05d}") as mine:
                if vectors_path(output, number).exists():
                    before += 1
                    progress.advance(len(rows))
                elif mine:
                    made += _embed_shard(embedder, rows, output, number, job, images, meter)
                else:
                    elsewhere += 1
                    progress.advance(len(rows))
            skipped += _count_skipped(output, number)
    return Summary(total, made, skipped, before, elsewhere)


class Meter:
    """Counts rows and tokens of the work at hand."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tokens, self._started = progress, 0, time.monotonic()

    def add(self, rows: int, tokens: int) -> None:
        """Count a batch."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-3)
        self._progress.advance(rows, f"{self._tokens / seconds:,.0f} tokens/s")


def vectors_path(folder: Path, number: int) -> Path:
    """Where the vectors of a shard are."""
    return folder / f"vectors-{number:05d}.npy"


def open_vectors(folder: Path) -> Iterator[tuple[list[str], Vectors]]:
    """Ids and memory-mapped vectors [m, d] of each shard, in the order of the corpus.

    Raises:
        FoundryError: No folder of vectors, or one of its shards is missing.
    """
    if not (folder / JOB).is_file():
        raise FoundryError(f"{folder} holds no vectors.", hint="Make them with `gme embed`.")
    paths = sorted(folder.glob("vectors-*.npy"))
    if not paths or paths[-1] != vectors_path(folder, len(paths) - 1):
        raise FoundryError(f"{folder}: shards are missing.", hint="Run the same `gme embed` again; it goes on.")
    for number, path in enumerate(paths):
        ids: list[str] = pq.read_table(_ids_path(folder, number)).column("id").to_pylist()
        yield ids, np.load(path, mmap_mode="r", allow_pickle=False)


def _embed_shard(
    embedder: Embedder,
    rows: list[dict[str, Any]],
    output: Path,
    number: int,
    job: Job,
    images: ImageStore | None,
    meter: Meter,
) -> int:
    items = [_item(row, images) for row in rows]
    bad: dict[int, str] | None = {} if job.on_error == "skip" else None
    vectors = embedder.encode(items, job.instruction, images, bad=bad, on_batch=meter.add)
    kept = [place for place in range(len(rows)) if place not in (bad or {})]
    vectors = vectors[kept].astype(job.dtype)
    if bad:
        notes = [
            {"id": str(rows[place]["id"]), "reason": reason.removeprefix(f"Item {place}: ")}
            for place, reason in sorted(bad.items())
        ]
        atomic_write(_skipped_path(output, number), json.dumps(notes, ensure_ascii=False, indent=1).encode())
    part = output / f".ids-{number:05d}.part"
    write_table(part, [{"id": str(rows[place]["id"])} for place in kept], _IDS)
    part.replace(_ids_path(output, number))
    buffer = io.BytesIO()
    np.save(buffer, vectors, allow_pickle=False)
    atomic_write(vectors_path(output, number), buffer.getvalue())  # last: its presence says that the shard is done
    return len(kept)


def _item(row: Mapping[str, Any], images: ImageStore | None) -> EmbedderInput:
    content = {name: row[name] for name in _CONTENT if row.get(name) is not None}
    image = content.get("image")
    if images is not None and isinstance(image, str) and image in images:
        text = " ".join(content[name] for name in ("title", "text") if content.get(name)) or None
        return Item(text, image)
    return content


def _shards(files: Sequence[Path], rows: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in the order of the files, `rows` at a time; never more than that and one batch of a file in memory."""
    held: list[dict[str, Any]] = []
    for file in files:
        columns = [name for name in ("id", *_CONTENT) if name in _open(file).schema_arrow.names]
        for batch in _open(file).iter_batches(batch_size=rows, columns=columns):
            held += batch.to_pylist()
            while len(held) >= rows:
                yield held[:rows]
                held = held[rows:]
    if held:
        yield held


def _claim(output: Path, job: Job) -> None:
    """Note the job in a fresh folder; in another, check that it is the same."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / JOB
    if not path.exists():
        atomic_write(path, json.dumps(asdict(job), indent=1).encode())
        return
    noted = json.loads(path.read_text(encoding="utf-8"))
    other = [name for name, value in asdict(job).items() if noted.get(name) != value]
    if other:
        raise FoundryError(
            f"{output} holds vectors of another job: {', '.join(other)} differ(s).",
            hint="Give another --output, or delete the folder.",
        )


def _count_skipped(folder: Path, number: int) -> int:
    path = _skipped_path(folder, number)
    return len(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else 0


def _ids_path(folder: Path, number: int) -> Path:
    return folder / f"ids-{number:05d}.parquet"


def _skipped_path(folder: Path, number: int) -> Path:
    return folder / f"skipped-{number:05d}.json"


def _open(file: Path) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise FoundryError(f"{file} is no readable parquet file: {error}") from error
