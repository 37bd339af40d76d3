"""An update of a folder of vectors after its corpus has changed: only new and changed rows are encoded.

The shards of the new version are written to a new folder below it, from the old vectors and those that are encoded, in
the order of the corpus and cut as a full run cuts them. Then ``job.json`` is replaced, which publishes all of them by
one rename, and the old shards are removed. A kill before the rename leaves the old version and the finished shards of
the new one, from which a rerun goes on; a kill after it leaves the new version and old shards, which a rerun removes.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import Images
from gme_data.locks import try_lock
from gme_data.tables import Table
from gme_embedder.corpus.bulk import (
    EmbedSummary,
    OnError,
    ShardEmbedder,
    embed_corpus,
    embed_shards,
    file_times,
    make_output_folder,
)
from gme_embedder.corpus.job import JOB_FILE, EmbedJob, read_job, require_same_encoding, write_job
from gme_embedder.corpus.picture_files import changed_pictures
from gme_embedder.corpus.reuse import Changes, ReusableVectors, read_shard_pictures
from gme_embedder.corpus.vector_folder import open_shard, read_skipped, shard_count, shards_folder, vectors_path
from gme_embedder.embedder import Embedder

_SHARD_FILES = ("vectors-*.npy", "ids-*.parquet", "skipped-*.json", ".vectors-*.part", ".ids-*.part", ".skipped-*.part")


def update_corpus(
    embedder: Embedder,
    table: Table,
    output: Path,
    job: EmbedJob,
    *,
    images: Images | None = None,
    on_error: OnError = "raise",
) -> tuple[EmbedSummary, Changes]:
    """Updates a folder of vectors to the corpus as it is now; a fresh folder is written as by `embed_corpus`.

    Args:
        embedder: The model that `job` names.
        table: The corpus that `job` names.
        output: Folder of vectors.
        job: The job of the new version; it may differ from the recorded one in the corpus and the size of shards alone.
        images: Where image ids are looked up.
        on_error: As for `embed_corpus`.

    Returns:
        What this call did, and how the vectors differ from those that were there.

    Raises:
        FoundryError: Another model, input settings, instruction or precision made the folder; it is of an earlier
            version; another process updates it; or as `embed_corpus`.
    """
    make_output_folder(output, table.path)
    with try_lock(output / ".lock-update") as locked:
        if not locked:
            raise FoundryError(f"Another process updates {output}.", hint="Wait until it is done, then look again.")
        if not (output / JOB_FILE).exists() or _is_up_to_date(output, read_job(output), job):
            summary = embed_corpus(embedder, table, output, job, images=images, on_error=on_error)
            _remove_old_shards(output)
            unchanged = job.corpus.rows - summary.skipped - summary.made
            return summary, Changes(unchanged, summary.made, 0, 0)
        recorded = read_job(output)
        require_same_encoding(output, recorded, job)
        reusable = ReusableVectors.open(output, recorded)
        # The name follows from both versions: the same after a kill, so that a rerun goes on, and new for each update.
        name = f"shards-{sha256_json([recorded.shards_in, recorded.digest(), job.digest()])[:16]}"
        job = job.model_copy(update={"shards_in": name})
        shards_folder(output, job).mkdir(exist_ok=True)
        worker = ShardEmbedder(embedder, table, output, job, images, on_error, file_times(table), reusable)
        _remove_stale_shards(worker)
        summary = embed_shards(worker)
        changes = reusable.compare(open_shard(output, job, number) for number in range(shard_count(job)))
        is_same = recorded.digest() == job.digest()
        if is_same and changes.kept == len(reusable) == job.corpus.rows - summary.skipped:
            _remove_old_shards(output)  # only rows that were skipped before were tried again, and skipped again
        else:
            _publish(output, recorded, job)
        return summary, changes


def _is_up_to_date(output: Path, recorded: EmbedJob, job: EmbedJob) -> bool:
    """Tells whether the folder has, or is to have, the vectors of this very job, with nothing older than the corpus."""
    if recorded.digest() != job.digest():
        return False
    folder = shards_folder(output, recorded)
    present = [number for number in range(shard_count(recorded)) if vectors_path(folder, number).exists()]
    skipped = any(read_skipped(folder, number) for number in present)
    return not skipped and not any(_changed_pictures(folder, number) for number in present)


def _changed_pictures(folder: Path, number: int) -> list[Path]:
    try:
        pictures = read_shard_pictures(folder, number)
    except FoundryError:  # a damaged shard is embedded again, with all its pictures
        return []
    return changed_pictures({path: version for path, (version, _) in pictures.items()})


def _remove_stale_shards(worker: ShardEmbedder) -> None:
    """Removes shards of a killed update whose pictures have been changed since."""
    for number in range(shard_count(worker.job)):
        path = vectors_path(worker.shards, number)
        if path.exists() and _changed_pictures(worker.shards, number):
            path.unlink()


def _publish(output: Path, recorded: EmbedJob, job: EmbedJob) -> None:
    with try_lock(output / ".lock-job", wait=True):
        if read_job(output) != recorded:
            raise FoundryError(
                f"{output / JOB_FILE} was changed while {output} was updated.", hint="Run the same command again."
            )
        write_job(output, job)
    _remove_old_shards(output)


def _remove_old_shards(output: Path) -> None:
    """Removes the shards of other versions. A process that has mapped them keeps their content until it ends."""
    current = shards_folder(output, read_job(output))
    for folder in output.glob("shards-*"):
        if folder != current:
            shutil.rmtree(folder)
    if current != output:  # the first version lies beside ``job.json``
        for path in [path for pattern in _SHARD_FILES for path in output.glob(pattern)]:
            path.unlink(missing_ok=True)
