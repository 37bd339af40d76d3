"""A corpus of any size embedded into vectors on disk: streamed, shard by shard, each complete or absent.

`gme_embedder.corpus.vector_folder` describes the layout of the folder, `gme_embedder.corpus.job` what it notes of its
origin. A kill costs one shard. Processes with the same job and folder share the work: each takes the next shard that
no other holds, by a lock that the kernel frees when its holder dies. Knows rows and files; not what is done with the
vectors.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gme_data.batching import batched
from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.journal import atomic_write
from gme_data.locks import try_lock
from gme_data.parquet import write_table
from gme_data.progress import Progress, tell
from gme_data.tables import Table
from gme_embedder.corpus.job import JOB_FILE, EmbedJob, read_job, require_same_job, write_job
from gme_embedder.corpus.picture_files import PictureVersion, changed_pictures, read_pictures
from gme_embedder.corpus.reuse import ReusableVectors, read_shard_pictures
from gme_embedder.corpus.rows import CorpusRow, read_corpus
from gme_embedder.corpus.vector_folder import (
    SkippedRow,
    ids_path,
    ids_schema,
    open_shard,
    read_skipped,
    rows_digest,
    shard_count,
    shards_folder,
    skipped_json,
    skipped_path,
    vectors_path,
)
from gme_embedder.embedder import Embedder
from gme_embedder.processing.inputs import EmbedderInput
from gme_embedder.vectors.npy import npy_bytes

_log = logging.getLogger(__name__)

OnError = Literal["raise", "skip"]
_ITEM_NUMBER = re.compile(r"^Item (\d+): ")
_VARIABLE_PARTS = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\S*\d\S*")


@dataclass(frozen=True, slots=True)
class SkipReason:
    """A reason for which rows were skipped: how many, and the first of them with its location and id."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class EmbedSummary:
    """Counts of what a call of `embed_corpus` did.

    Attributes:
        rows: Rows of the corpus.
        made: Vectors that this call encoded.
        skipped: Rows that could not be embedded, now or before.
        shards_before: Complete shards that were there before.
        shards_elsewhere: Shards that another process was embedding.
        reasons: Skipped rows by reason.
    """

    rows: int
    made: int
    skipped: int
    shards_before: int
    shards_elsewhere: int
    reasons: dict[str, SkipReason] = field(default_factory=dict)


class ThroughputMeter:
    """Counts rows and tokens, and shows tokens per second in a progress display."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tokens, self._started = progress, 0, time.monotonic()

    def add(self, rows: int, tokens: int) -> None:
        """Counts a batch."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-3)
        self._progress.advance(rows, f"{self._tokens / seconds:,.0f} tokens/s")


def embed_corpus(
    embedder: Embedder,
    table: Table,
    output: Path,
    job: EmbedJob,
    *,
    images: Images | None = None,
    on_error: OnError = "raise",
) -> EmbedSummary:
    """Embeds all rows; shards that are complete, or that another process is embedding, are left alone.

    Args:
        embedder: The model that `job` names.
        table: The corpus that `job` names; see `open_corpus`. An ``image`` is the encoded bytes, an object with
            ``bytes`` or ``path``, a path, or an id in `images`.
        output: Folder of vectors.
        job: Must be that of the vectors already in `output`.
        images: Where image ids are looked up.
        on_error: `raise` stops at a bad row, also at one that was skipped before; `skip` records it and goes on.

    Raises:
        FoundryError: `output` holds vectors of another job or of pictures that have changed since, or can't be a
            folder of vectors; a file of the corpus can't be read on; a bad row with ``on_error="raise"``.
    """
    job = record_job(output, table.path, job)
    return embed_shards(ShardEmbedder(embedder, table, output, job, images, on_error, file_times(table)))


def embed_shards(worker: ShardEmbedder) -> EmbedSummary:
    """Embeds all shards of a job; those that are complete, or that another process is embedding, are left alone.

    Raises:
        FoundryError: As `embed_corpus`.
    """
    job, folder = worker.job, worker.shards
    encoded = before = elsewhere = 0
    with Progress("embed", job.corpus.rows, "rows") as progress:
        meter = ThroughputMeter(progress)
        # One shard of rows at a time is in memory, and one batch of a file.
        shards = batched(read_corpus(worker.table, worker.images), job.shard_rows)
        for number, rows in enumerate(shards):
            # A shard that another process holds is passed over: it completes it, or leaves it to a rerun.
            with try_lock(folder / f".lock-{number:05d}") as locked:
                is_done = worker.is_done(number, rows) if locked else vectors_path(folder, number).exists()
                if locked and not is_done:
                    encoded += worker.embed(number, rows, meter)
                    continue
                before, elsewhere = before + is_done, elsewhere + (not is_done)
                progress.advance(len(rows))
    skipped = [row for number in range(shard_count(job)) for row in read_skipped(folder, number)]
    return EmbedSummary(job.corpus.rows, encoded, len(skipped), before, elsewhere, count_by_reason(skipped))


def record_job(output: Path, source: Path, job: EmbedJob) -> EmbedJob:
    """Writes the job into a fresh folder; in another, checks that it is the same. Returns the recorded job.

    Raises:
        FoundryError: `output` holds vectors of another job, lies inside the corpus, or is no folder.
    """
    make_output_folder(output, source)
    with try_lock(output / ".lock-job", wait=True):
        if (output / JOB_FILE).exists():
            recorded = read_job(output)
            shards = shards_folder(output, recorded)
            is_complete = all(vectors_path(shards, number).exists() for number in range(shard_count(recorded)))
            if job.has_retrained_model(recorded) and not is_complete:
                # The model that began this folder is gone, so nothing can complete its vectors. Its shards record
                # their job, by which `is_done` refuses them, and they are embedded again one by one.
                tell("embed", f"{job.model.name} has changed since {output} was begun: its rows are embedded again.")
                write_job(output, job)
                return job
            require_same_job(output, recorded, job)
            return job.model_copy(update={"shards_in": recorded.shards_in})
        if any(output.glob("vectors-*.npy")):
            raise FoundryError(
                f"{output} holds vectors, but no {JOB_FILE} that says what they were made of.",
                hint="Give another --output, or delete the folder.",
            )
        write_job(output, job)
        return job


def make_output_folder(output: Path, source: Path) -> None:
    """Makes the folder of the output, which may not lie inside the corpus.

    Raises:
        FoundryError: It lies inside the corpus, or is a file.
    """
    inside = source.resolve() if source.is_dir() else None
    if inside and (output.resolve() == inside or inside in output.resolve().parents):
        raise FoundryError(
            f"--output {output} lies inside the corpus {source}: its files would be read as rows.",
            hint="Give a folder beside it.",
        )
    try:
        output.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise FoundryError(f"--output {output}: {error.filename} is a file, expected a folder.") from error


def count_by_reason(rows: Iterable[SkippedRow]) -> dict[str, SkipReason]:
    """Counts skipped rows by reason; what differs from row to row, such as a file name, is left out of the reason."""
    reasons: dict[str, SkipReason] = {}
    for row in rows:
        name = " ".join(_VARIABLE_PARTS.sub("…", row.reason.split(": ")[-1]).split())
        label = f"{row.row}, id '{row.id}'" if row.id else row.row
        reason = reasons.get(name) or SkipReason(0, f"{label}: {row.reason}")
        reasons[name] = SkipReason(reason.count + 1, reason.first)
    return reasons


@dataclass(frozen=True, slots=True)
class ShardEmbedder:
    """Embeds single shards of a job in one process.

    Attributes:
        embedder: As in `embed_corpus`, like table, output, job, images and on_error.
        file_times: When each file of the table was last changed, as of the start.
        reusable: Vectors that need not be encoded, when a folder is updated.
    """

    embedder: Embedder
    table: Table
    output: Path
    job: EmbedJob
    images: Images | None
    on_error: OnError
    file_times: dict[str, int]
    reusable: ReusableVectors = field(default_factory=ReusableVectors)

    @property
    def shards(self) -> Path:
        """Folder of the shards."""
        return shards_folder(self.output, self.job)

    def is_done(self, number: int, rows: Sequence[CorpusRow]) -> bool:
        """Tells whether a shard is complete and of these rows. A damaged one is logged, and is embedded again.

        Raises:
            FoundryError: A picture that was embedded has another content now, or is gone.
        """
        if not vectors_path(self.shards, number).exists():
            return False
        try:
            shard = open_shard(self.output, self.job, number)
            skipped = read_skipped(self.shards, number)
            pictures = read_shard_pictures(self.shards, number)
        except FoundryError as error:
            _log.warning("making a shard again: %s", error)
            return False
        ids = set(shard.ids)
        if shard.ids != [row.id for row in rows if row.id in ids]:
            _log.warning("making a damaged shard again: the ids of %s are not those of the corpus", shard.path)
            return False
        changed = changed_pictures({path: version for path, (version, _) in pictures.items()})
        if changed:
            version, id_ = pictures[changed[0]]
            now = read_pictures(changed[:1]).get(changed[0])
            state = f"sha256 {now.sha256[:12]} now" if now else "gone now"
            label = next(row.label for row in rows if row.id == id_)
            raise FoundryError(
                f"{self.output} holds vectors of other pictures: {len(changed)} of shard {number} changed since. "
                f"{label}: {changed[0]} was sha256 {version.sha256[:12]} when it was embedded, {state}.",
                hint="`gme embed --update` embeds what changed.",
            )
        return not (skipped and self.on_error == "raise")

    def embed(self, number: int, rows: Sequence[CorpusRow], meter: ThroughputMeter) -> int:
        """Embeds a shard and writes it; returns how many of its vectors were encoded.

        Raises:
            FoundryError: A bad row with ``on_error="raise"``; a picture that was changed meanwhile.
        """
        bad = {index: row.error for index, row in enumerate(rows) if row.error is not None}
        self._require_no_bad_row(rows, bad)
        paths = (row.picture for row in rows if row.picture is not None)
        pictures = read_pictures(paths, self.reusable.pictures)
        contents = [row.content(pictures) for row in rows]
        vectors = np.zeros((len(rows), self.job.model.dimension), np.float32)
        reused = self._reuse(rows, contents, vectors)
        meter.add(len(reused), 0)
        to_encode = [index for index in range(len(rows)) if index not in bad and index not in reused]
        self._encode(rows, to_encode, vectors, bad, meter)
        good = [index for index in range(len(rows)) if index not in bad]
        # A picture may have been replaced between its digest and the model: one that differs by now is refused.
        embedded = {path for index in good if (path := rows[index].picture) is not None}
        unread = [path for path in embedded if path not in pictures]
        for path in unread or changed_pictures({path: pictures[path] for path in embedded}):
            raise FoundryError(f"The picture {path} was changed while it was embedded.", hint="Run the command again.")
        for name, time_ns in file_times(self.table).items():
            if time_ns != self.file_times[name]:
                raise FoundryError(
                    f"{name} was changed while it was embedded: the shards in {self.output} are of what it was.",
                    hint="Delete that folder and run the command again.",
                )
        # The vectors' file says that a shard is complete, so it goes first and comes last.
        vectors_path(self.shards, number).unlink(missing_ok=True)
        self._write_skipped(number, rows, bad)
        content = npy_bytes(vectors[good].astype(self.job.dtype))
        ids = [_ids_row(rows[index], contents[index], pictures) for index in good]
        self._write_ids(number, ids, sha256_bytes(content))
        atomic_write(vectors_path(self.shards, number), content)
        return len(good) - len(reused)

    def _encode(
        self,
        rows: Sequence[CorpusRow],
        indices: Sequence[int],
        vectors: NDArray[np.float32],
        bad: dict[int, str],
        meter: ThroughputMeter,
    ) -> None:
        """Fills `vectors` [rows, d] at `indices`; rows that turn out to be bad go to `bad`."""
        if not indices:
            return
        items = [rows[index].item for index in indices]
        refused: dict[int, str] = {}
        try:
            vectors[indices] = self.embedder.encode(
                items,
                self.job.instruction,
                self.images,
                bad=refused if self.on_error == "skip" else None,
                on_batch=meter.add,
            )
        except FoundryError as error:
            raise _with_row_label(error, rows, indices) from error
        except (MemoryError, OSError, RuntimeError):  # caused by the machine, not by an item
            raise
        except Exception as error:  # an unforeseen error of a library about some item of the shard
            vectors[indices] = self._encode_singly(items, refused, error)
        for item, reason in refused.items():
            bad[indices[item]] = _ITEM_NUMBER.sub("", reason)
        for index in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            bad.setdefault(index, f"the model's vector is not finite in {self.job.precision}")
        self._require_no_bad_row(rows, bad)

    def _reuse(
        self, rows: Sequence[CorpusRow], contents: Sequence[bytes | None], vectors: NDArray[np.float32]
    ) -> set[int]:
        """Fills `vectors` [rows, d] with those that were embedded before; returns their indices."""
        with_content = [(index, content) for index, content in enumerate(contents) if content is not None]
        indices = np.array([index for index, _ in with_content], np.int64)
        numbers = self.reusable.find([rows[index].id for index, _ in with_content], [c for _, c in with_content])
        exists = numbers >= 0
        if exists.any():
            vectors[indices[exists]] = self.reusable.vectors(numbers[exists], vectors.dtype)
        return set(indices[exists].tolist())

    def _encode_singly(
        self, items: Sequence[EmbedderInput], refused: dict[int, str], error: Exception
    ) -> NDArray[np.float32]:
        """Encodes items one by one to tell which of them cause the `error`; if all do, it is a defect and is raised."""
        vectors = np.zeros((len(items), self.job.model.dimension), np.float32)
        refused.clear()
        for number, item in enumerate(items):
            try:
                vectors[number] = self.embedder.encode([item], self.job.instruction, self.images)[0]
            except FoundryError as bad_item:
                refused[number] = str(bad_item)
            except (MemoryError, OSError, RuntimeError):
                raise
            except Exception as unforeseen:
                refused[number] = f"can't be embedded: {type(unforeseen).__name__}: {unforeseen}"
        if len(refused) == len(items) > 1:
            raise error
        return vectors

    def _require_no_bad_row(self, rows: Sequence[CorpusRow], bad: dict[int, str]) -> None:
        if bad and self.on_error == "raise":
            first = min(bad)
            raise FoundryError(
                f"{rows[first].label}: {bad[first]}",
                hint="Mend the row, or leave bad rows out with --on-error skip; finished shards stay.",
            )

    def _write_skipped(self, number: int, rows: Sequence[CorpusRow], bad: dict[int, str]) -> None:
        path = skipped_path(self.shards, number)
        if not bad:
            path.unlink(missing_ok=True)
            return
        skipped = [SkippedRow(row=rows[index].location, id=rows[index].id, reason=bad[index]) for index in sorted(bad)]
        atomic_write(path, skipped_json(skipped))

    def _write_ids(self, number: int, rows: Sequence[dict[str, Any]], vectors: str) -> None:
        digest = rows_digest([row["id"] for row in rows], [row["content"] for row in rows])
        part = self.shards / f".ids-{number:05d}.part"
        write_table(part, rows, ids_schema(self.job, vectors, digest))
        part.replace(ids_path(self.shards, number))


def file_times(table: Table) -> dict[str, int]:
    """Returns when each file was last changed, in ns; 0 for one that is gone."""
    return {file.name: file.path.stat().st_mtime_ns if file.path.exists() else 0 for file in table.files}


def _ids_row(row: CorpusRow, content: bytes | None, pictures: dict[Path, PictureVersion]) -> dict[str, Any]:
    version = pictures.get(row.picture) if row.picture is not None else None
    if version is None:
        return {"id": row.id, "content": content}
    return {
        "id": row.id,
        "content": content,
        "picture": str(row.picture),
        "sha256": version.sha256,
        "bytes": version.bytes,
        "ctime_ns": version.ctime_ns,
    }


def _with_row_label(error: FoundryError, rows: Sequence[CorpusRow], indices: Sequence[int]) -> FoundryError:
    """Returns the error of an item with the location of its row, which a user knows; any other error as it is."""
    match = _ITEM_NUMBER.match(str(error))
    if match is None:
        return error
    row, reason = rows[indices[int(match[1])]], str(error)[match.end() :]
    return FoundryError(f"{row.label}: {reason}", hint=error.hint, exit_code=error.exit_code)
