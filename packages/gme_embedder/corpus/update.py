"""A folder of vectors brought to what its corpus is now: only new and changed rows are encoded.

The shards of the new version are made in a folder of their own below it, from the old vectors and from those that are
made, in the order of the corpus and cut as a full run cuts them. Then ``job.json`` is replaced, which by one rename
publishes them all; then the old ones go. A kill before the rename leaves the old version and the finished shards of the
new, which a rerun goes on from; one after it leaves the new version and waste, which a rerun removes.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.locks import taken
from gme_data.tables import Table
from gme_embedder.corpus.bulk import OnError, Summary, Work, embed_corpus, embed_shards, file_times, require_beside
from gme_embedder.corpus.job import JOB, Job, read_job, require_same_maker, write_job
from gme_embedder.corpus.picture_files import changed_files
from gme_embedder.corpus.reuse import Changes, EarlierVectors, read_pictures
from gme_embedder.corpus.vector_folder import open_shard, read_skipped, shard_count, shards_folder, vectors_path
from gme_embedder.embedder import Embedder

_SHARDS = ("vectors-*.npy", "ids-*.parquet", "skipped-*.json", ".vectors-*.part", ".ids-*.part", ".skipped-*.part")


def update_corpus(
    embedder: Embedder,
    table: Table,
    output: Path,
    job: Job,
    *,
    images: Images | None = None,
    on_error: OnError = "raise",
) -> tuple[Summary, Changes]:
    """Make a folder of vectors that of the corpus as it is now; a fresh folder is made as by `embed_corpus`.

    Args:
        embedder: The model that `job` names.
        table: The corpus that `job` names.
        output: Folder of vectors.
        job: Of the new version; differs from that of the folder in the corpus and the size of shards alone.
        images: Where image ids are looked up.
        on_error: As for `embed_corpus`.

    Returns:
        What was done, and how the vectors differ from those that were there.

    Raises:
        FoundryError: Another model, input settings, instruction or precision made the folder; it is of an earlier
            version; another process updates it; or as `embed_corpus`.
    """
    require_beside(output, table.path)
    with taken(output / ".lock-update") as free:
        if not free:
            raise FoundryError(f"Another process updates {output}.", hint="Wait until it is done, then look again.")
        if not (output / JOB).exists() or _is_of(output, read_job(output), job):
            summary = embed_corpus(embedder, table, output, job, images=images, on_error=on_error)
            _clean(output)
            there = job.corpus.rows - summary.skipped
            return summary, Changes(there - summary.made, summary.made, 0, 0)
        noted = read_job(output)
        require_same_maker(output, noted, job)
        earlier = EarlierVectors.open(output, noted)
        job = job.model_copy(update={"shards_in": _name(noted, job)})
        shards_folder(output, job).mkdir(exist_ok=True)
        work = Work(embedder, table, output, job, images, on_error, file_times(table), earlier)
        _drop_stale(work)
        summary = embed_shards(work)
        changes = earlier.compare(open_shard(output, job, number) for number in range(shard_count(job)))
        if noted.digest() == job.digest() and changes.kept == len(earlier) == job.corpus.rows - summary.skipped:
            _clean(output)  # what was skipped is skipped again, and nothing else was to be done
        else:
            _publish(output, noted, job)
        return summary, changes


def _is_of(output: Path, noted: Job, job: Job) -> bool:
    """Whether a folder is, or is to become, what this very job makes: nothing in it is older than the corpus."""
    if noted.digest() != job.digest():
        return False
    place = shards_folder(output, noted)
    there = [number for number in range(shard_count(noted)) if vectors_path(place, number).exists()]
    skipped = any(read_skipped(place, number) for number in there)
    return not skipped and not any(_changed_pictures(place, number) for number in there)


def _changed_pictures(place: Path, number: int) -> list[Path]:
    try:
        noted = read_pictures(place, number)
    except FoundryError:  # damaged: made again, with all its pictures
        return []
    return changed_files({path: file for path, (file, _) in noted.items()})


def _name(noted: Job, job: Job) -> str:
    """Folder of the shards of `job` after those of `noted`: the same after a kill, and another after each update."""
    return f"shards-{sha256_json([noted.shards_in, noted.digest(), job.digest()])[:16]}"


def _drop_stale(work: Work) -> None:
    """Remove shards that a killed update made of pictures which were changed since."""
    for number in range(shard_count(work.job)):
        path = vectors_path(work.place, number)
        if path.exists() and _changed_pictures(work.place, number):
            path.unlink()


def _publish(output: Path, noted: Job, job: Job) -> None:
    with taken(output / ".lock-job", wait=True):
        if read_job(output) != noted:
            raise FoundryError(
                f"{output / JOB} was changed while {output} was updated.", hint="Run the same command again."
            )
        write_job(output, job)
    _clean(output)


def _clean(output: Path) -> None:
    """Remove the shards of other versions. Who has them open or mapped keeps them until then."""
    current = shards_folder(output, read_job(output))
    for place in output.glob("shards-*"):
        if place != current:
            shutil.rmtree(place)
    if current != output:
        for path in _loose(output):
            path.unlink(missing_ok=True)


def _loose(output: Path) -> Iterator[Path]:
    """The files of shards that lie beside the record of the job."""
    return (path for pattern in _SHARDS for path in output.glob(pattern))
