"""A corpus of any size to vectors on disk: streamed, shard by shard, each shard whole or not there.

`gme_embedder.corpus.vector_folder` describes the layout of the folder, `gme_embedder.corpus.job` what it notes of its
origin. A kill costs one shard. Processes with the same job and folder share the work: each takes the next shard that
no other holds, by a lock that the kernel frees when its holder dies. Knows rows and files; not what is done with the
vectors.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.journal import atomic_write
from gme_data.locks import taken
from gme_data.parquet import write_table
from gme_data.progress import Progress, tell
from gme_data.tables import Table
from gme_embedder.corpus.job import JOB, Job, read_job, require_same_job, write_job
from gme_embedder.corpus.picture_files import PictureFile, changed_files, read_picture_files
from gme_embedder.corpus.reuse import EarlierVectors, read_pictures
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
_NUMBERED = re.compile(r"^Item (\d+): ")
_PARTICULAR = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/\\]\S*|\S*\d\S*")


@dataclass(frozen=True, slots=True)
class SkippedKind:
    """Rows that were skipped for one reason: how many, and the first of them with its place and id."""

    count: int
    first: str


@dataclass(frozen=True, slots=True)
class Summary:
    """What a call did.

    Attributes:
        rows: Of the corpus.
        made: Vectors made now.
        skipped: Rows that could not be embedded, now or before.
        shards_before: Shards that were there.
        shards_elsewhere: Shards that another process was at.
        reasons: Why rows were skipped.
    """

    rows: int
    made: int
    skipped: int
    shards_before: int
    shards_elsewhere: int
    reasons: dict[str, SkippedKind] = field(default_factory=dict)


class Meter:
    """Counts rows and tokens of the work at hand."""

    def __init__(self, progress: Progress) -> None:
        self._progress, self._tokens, self._started = progress, 0, time.monotonic()

    def add(self, rows: int, tokens: int) -> None:
        """Count a batch."""
        self._tokens += tokens
        seconds = max(time.monotonic() - self._started, 1e-3)
        self._progress.advance(rows, f"{self._tokens / seconds:,.0f} tokens/s")


def embed_corpus(
    embedder: Embedder,
    table: Table,
    output: Path,
    job: Job,
    *,
    images: Images | None = None,
    on_error: OnError = "raise",
) -> Summary:
    """Embed all rows; whole shards that are there, or that another process is at, are left alone.

    Args:
        embedder: The model that `job` names.
        table: The corpus that `job` names; see `open_corpus`. An ``image`` is the encoded bytes, an object with
            ``bytes`` or ``path``, a path, or an id in `images`.
        output: Folder of vectors.
        job: Must be that of the vectors already in `output`.
        images: Where image ids are looked up.
        on_error: `raise` stops at a bad row, also at one that was skipped before; `skip` notes it and goes on.

    Raises:
        FoundryError: `output` holds vectors of another job or of pictures that have changed since, or can't be a
            folder of vectors; a file of the corpus can't be read on; a bad row with ``on_error="raise"``.
    """
    return embed_shards(
        Work(embedder, table, output, claim(output, table.path, job), images, on_error, file_times(table))
    )


def embed_shards(work: Work) -> Summary:
    """Embed all shards of a job; whole ones that are there, or that another process is at, are left alone.

    Raises:
        FoundryError: As `embed_corpus`.
    """
    job, place = work.job, work.place
    made = before = elsewhere = 0
    with Progress("embed", job.corpus.rows, "rows") as progress:
        meter = Meter(progress)
        for number, rows in enumerate(_shards(read_corpus(work.table, work.images), job.shard_rows)):
            with taken(place / f".lock-{number:05d}") as locked:
                done = work.is_done(number, rows) if locked else vectors_path(place, number).exists()
                if locked and not done:
                    made += work.embed(number, rows, meter)
                    continue
                before, elsewhere = before + done, elsewhere + (not done)
                progress.advance(len(rows))
    skipped = [row for number in range(shard_count(job)) for row in read_skipped(place, number)]
    return Summary(job.corpus.rows, made, len(skipped), before, elsewhere, count_by_reason(skipped))


def claim(output: Path, source: Path, job: Job) -> Job:
    """Note the job in a fresh folder; in another, check that it is the same. Returns it as it is noted.

    Raises:
        FoundryError: `output` holds vectors of another job, lies inside the corpus, or is no folder.
    """
    require_beside(output, source)
    with taken(output / ".lock-job", wait=True):
        if (output / JOB).exists():
            noted = read_job(output)
            if job.has_retrained_model(noted) and not _is_whole(output, noted):
                # Nobody can complete what the model made that was here before. Its shards are known by their job, and
                # made again one by one.
                tell("embed", f"{job.model.name} has changed since {output} was begun: its rows are embedded again.")
                write_job(output, job)
                return job
            require_same_job(output, noted, job)
            return job.model_copy(update={"shards_in": noted.shards_in})
        if any(output.glob("vectors-*.npy")):
            raise FoundryError(
                f"{output} holds vectors, but no {JOB} that says what they were made of.",
                hint="Give another --output, or delete the folder.",
            )
        write_job(output, job)
        return job


def require_beside(output: Path, source: Path) -> None:
    """Make the folder of the output, which may not lie inside the corpus.

    Raises:
        FoundryError: It does, or is a file.
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


def _is_whole(output: Path, job: Job) -> bool:
    place = shards_folder(output, job)
    return all(vectors_path(place, number).exists() for number in range(shard_count(job)))


def count_by_reason(rows: Iterable[SkippedRow]) -> dict[str, SkippedKind]:
    """How many rows were skipped for each reason; what is particular to one row, such as its file, makes no reason."""
    kinds: dict[str, SkippedKind] = {}
    for row in rows:
        name = " ".join(_PARTICULAR.sub("…", row.reason.split(": ")[-1]).split())
        label = f"{row.row}, id '{row.id}'" if row.id else row.row
        known = kinds.get(name)
        kinds[name] = SkippedKind(known.count + 1, known.first) if known else SkippedKind(1, f"{label}: {row.reason}")
    return kinds


@dataclass(frozen=True, slots=True)
class Work:
    """One process' part in a job.

    Attributes:
        embedder: As these, for `embed_corpus`: table, output, job, images and on_error.
        times: Those of the table's files when it began.
        earlier: Vectors that need not be made, when a folder is updated.
    """

    embedder: Embedder
    table: Table
    output: Path
    job: Job
    images: Images | None
    on_error: OnError
    times: dict[str, int]
    earlier: EarlierVectors = field(default_factory=EarlierVectors)

    @property
    def place(self) -> Path:
        """Folder of the shards."""
        return shards_folder(self.output, self.job)

    def is_done(self, number: int, rows: Sequence[CorpusRow]) -> bool:
        """Whether a shard is there, whole and still of these rows. One that is damaged is made again, and says so.

        Raises:
            FoundryError: A picture that was embedded has another content now, or is gone.
        """
        if not vectors_path(self.place, number).exists():
            return False
        try:
            shard = open_shard(self.output, self.job, number)
            skipped = read_skipped(self.place, number)
            pictures = read_pictures(self.place, number)
        except FoundryError as error:
            _log.warning("making a shard again: %s", error)
            return False
        ids = set(shard.ids)
        if shard.ids != [row.id for row in rows if row.id in ids]:
            _log.warning("making a damaged shard again: the ids of %s are not those of the corpus", shard.path)
            return False
        changed = changed_files({path: file for path, (file, _) in pictures.items()})
        if changed:
            file, id_ = pictures[changed[0]]
            now = read_picture_files(changed[:1]).get(changed[0])
            state = f"sha256 {now.sha256[:12]} now" if now else "gone now"
            label = next(row.label for row in rows if row.id == id_)
            raise FoundryError(
                f"{self.output} holds vectors of other pictures: {len(changed)} of shard {number} changed since. "
                f"{label}: {changed[0]} was sha256 {file.sha256[:12]} when it was embedded, {state}.",
                hint="`gme embed --update` embeds what changed.",
            )
        return not (skipped and self.on_error == "raise")

    def embed(self, number: int, rows: Sequence[CorpusRow], meter: Meter) -> int:
        """Embed a shard and write it; returns how many of its vectors were encoded.

        Raises:
            FoundryError: A bad row with ``on_error="raise"``; a picture that was changed meanwhile.
        """
        bad = {place: row.error for place, row in enumerate(rows) if row.error is not None}
        self._require_good(rows, bad)
        paths = (row.picture for row in rows if row.picture is not None)
        pictures = read_picture_files(paths, self.earlier.pictures)
        contents = [row.content(pictures) for row in rows]
        vectors = np.zeros((len(rows), self.job.model.dimension), np.float32)
        earlier = self._take_earlier(rows, contents, vectors)
        meter.add(len(earlier), 0)
        fresh = [place for place in range(len(rows)) if place not in bad and place not in earlier]
        self._encode(rows, fresh, vectors, bad, meter)
        good = [place for place in range(len(rows)) if place not in bad]
        embedded = {path for place in good if (path := rows[place].picture) is not None}
        missing = [path for path in embedded if path not in pictures]  # it could not be read a moment before
        for path in missing or changed_files({path: pictures[path] for path in embedded}):
            raise FoundryError(f"The picture {path} was changed while it was embedded.", hint="Run the command again.")
        for name, time_ns in file_times(self.table).items():
            if time_ns != self.times[name]:
                raise FoundryError(
                    f"{name} was changed while it was embedded: the shards in {self.output} are of what it was.",
                    hint="Delete that folder and run the command again.",
                )
        # A shard that is made again must not look whole while its parts are replaced.
        vectors_path(self.place, number).unlink(missing_ok=True)
        self._write_skipped(number, rows, bad)
        content = npy_bytes(vectors[good].astype(self.job.dtype))
        noted = [_ids_row(rows[place], contents[place], pictures) for place in good]
        self._write_ids(number, noted, sha256_bytes(content))
        # Last: its presence says that the shard is done.
        atomic_write(vectors_path(self.place, number), content)
        return len(good) - len(earlier)

    def _encode(
        self,
        rows: Sequence[CorpusRow],
        good: Sequence[int],
        vectors: NDArray[np.float32],
        bad: dict[int, str],
        meter: Meter,
    ) -> None:
        """Put the vectors of the `good` rows into `vectors` [rows, d]; places that turn out to be bad go to `bad`."""
        if not good:
            return
        items = [rows[place].item for place in good]
        refused: dict[int, str] = {}
        try:
            vectors[good] = self.embedder.encode(
                items,
                self.job.instruction,
                self.images,
                bad=refused if self.on_error == "skip" else None,
                on_batch=meter.add,
            )
        except FoundryError as error:
            raise _renamed(error, rows, good) from error
        except (MemoryError, OSError, RuntimeError):  # of the machine, not of an item
            raise
        except Exception as error:  # some library stumbled over an item in a way that nobody foresaw
            vectors[good] = self._encode_singly(items, refused, error)
        for item, reason in refused.items():
            bad[good[item]] = _NUMBERED.sub("", reason)
        for place in np.flatnonzero(~np.isfinite(vectors).all(axis=1)).tolist():
            bad.setdefault(place, f"the model's vector is not finite in {self.job.precision}")
        self._require_good(rows, bad)

    def _take_earlier(
        self, rows: Sequence[CorpusRow], contents: Sequence[bytes | None], vectors: NDArray[np.float32]
    ) -> set[int]:
        """Put what was embedded before into `vectors` [rows, d]; returns the places that are filled."""
        known = [(place, content) for place, content in enumerate(contents) if content is not None]
        places = np.array([place for place, _ in known], np.int64)
        numbers = self.earlier.find([rows[place].id for place, _ in known], [content for _, content in known])
        there = numbers >= 0
        if there.any():
            vectors[places[there]] = self.earlier.vectors(numbers[there], vectors.dtype)
        return set(places[there].tolist())

    def _encode_singly(
        self, items: Sequence[EmbedderInput], refused: dict[int, str], error: Exception
    ) -> NDArray[np.float32]:
        """Vectors of items one by one, which tells those apart that end in an `error`; if all do, it is our own."""
        vectors = np.zeros((len(items), self.job.model.dimension), np.float32)
        refused.clear()
        for number, item in enumerate(items):
            try:
                vectors[number] = self.embedder.encode([item], self.job.instruction, self.images)[0]
            except FoundryError as known:
                refused[number] = str(known)
            except (MemoryError, OSError, RuntimeError):
                raise
            except Exception as unforeseen:
                refused[number] = f"can't be embedded: {type(unforeseen).__name__}: {unforeseen}"
        if len(refused) == len(items) > 1:
            raise error
        return vectors

    def _require_good(self, rows: Sequence[CorpusRow], bad: dict[int, str]) -> None:
        if bad and self.on_error == "raise":
            place = min(bad)
            raise FoundryError(
                f"{rows[place].label}: {bad[place]}",
                hint="Mend the row, or leave bad rows out with --on-error skip; finished shards stay.",
            )

    def _write_skipped(self, number: int, rows: Sequence[CorpusRow], bad: dict[int, str]) -> None:
        path = skipped_path(self.place, number)
        if not bad:
            path.unlink(missing_ok=True)
            return
        notes = [SkippedRow(row=rows[place].location, id=rows[place].id, reason=bad[place]) for place in sorted(bad)]
        atomic_write(path, skipped_json(notes))

    def _write_ids(self, number: int, rows: Sequence[dict[str, Any]], vectors: str) -> None:
        digest = rows_digest([row["id"] for row in rows], [row["content"] for row in rows])
        part = self.place / f".ids-{number:05d}.part"
        write_table(part, rows, ids_schema(self.job, vectors, digest))
        part.replace(ids_path(self.place, number))


def file_times(table: Table) -> dict[str, int]:
    """When each file was changed last; 0 for one that is gone."""
    return {file.name: file.path.stat().st_mtime_ns if file.path.exists() else 0 for file in table.files}


def _ids_row(row: CorpusRow, content: bytes | None, pictures: dict[Path, PictureFile]) -> dict[str, Any]:
    file = pictures.get(row.picture) if row.picture is not None else None
    if file is None:
        return {"id": row.id, "content": content}
    return {
        "id": row.id,
        "content": content,
        "picture": str(row.picture),
        "sha256": file.sha256,
        "bytes": file.bytes,
        "ctime_ns": file.ctime_ns,
    }


def _renamed(error: FoundryError, rows: Sequence[CorpusRow], places: Sequence[int]) -> FoundryError:
    """The error of an item, by the row that the user knows it as; any other as it is."""
    numbered = _NUMBERED.match(str(error))
    if numbered is None:
        return error
    row, reason = rows[places[int(numbered[1])]], str(error)[numbered.end() :]
    return FoundryError(f"{row.label}: {reason}", hint=error.hint, exit_code=error.exit_code)


def _shards(rows: Iterator[CorpusRow], size: int) -> Iterator[list[CorpusRow]]:
    """Rows in order, `size` at a time; never more than that and one batch of a file in memory."""
    while shard := list(islice(rows, size)):
        yield shard
