"""`gme embed`: embed a corpus file into a folder of vectors."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gme_cli.options import Common, Inputs, find_model, print_inputs_note, print_json, say, say_plan
from gme_data.errors import FoundryError

_COMMON = Common()
_SHARD_ROWS = 8192
"""Rows of a shard in a new folder."""


def embed(
    *,
    input: Annotated[Path, Parameter(name=["--input", "-i"])],  # noqa: A002 - the flag's name
    output: Annotated[Path, Parameter(name=["--output", "-o"])],
    model: str = "champion",
    inputs: Inputs | None = None,
    instruction: str | None = None,
    images: Path | None = None,
    update: bool = False,
    shard_rows: int | None = None,
    store: Literal["float32", "float16"] = "float32",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    device: str = "cpu",
    on_error: Literal["raise", "skip"] = "raise",
    common: Common = _COMMON,
) -> None:
    """Embed every row of a corpus.

    Killed and run again, it goes on at the shard it was at; run several times at once, it shares the work.

    Parameters
    ----------
    input
        Parquet, JSON lines, CSV or TSV, a folder of them, or one of `datasets`: columns id, and text, title and/or
        image (encoded bytes, {bytes, path}, a path or an image id).
    output
        Folder for the vectors.
    model
        A folder, a hub name, or the alias of a registered model.
    inputs
        gme: make its inputs as GME's, though the folder does not say that they are, as that of Qwen2-VL itself.
    instruction
        The task in a sentence, for queries. Documents have none.
    images
        Folder of images-*.parquet in which image ids are looked up.
    update
        The corpus changed since the folder was made: encode new and changed rows only, drop the removed, and publish
        the result at once. Model, instruction and precision must be the same.
    shard_rows
        Rows of a shard: what a kill can cost. By default as the folder has them, 8192 in a fresh one.
    store
        Precision of the vectors on disk.
    dtype
        Precision of the computation.
    device
        Where the model runs.
    on_error
        At a row that can't be embedded: stop, or note it and go on. May change from run to run.
    """
    from gme_data.images import ImageStore
    from gme_data.tables import count_by_suffix
    from gme_embedder.corpus.bulk import embed_corpus
    from gme_embedder.corpus.job import JOB_FILE, EmbedJob, identify_model, read_job
    from gme_embedder.corpus.rows import identify_corpus, open_corpus
    from gme_embedder.corpus.update import update_corpus
    from gme_embedder.embedder import Embedder
    from gme_embedder.model_files.locate import locate

    if shard_rows is not None and shard_rows < 1:
        raise FoundryError(f"--shard-rows {shard_rows}: expected 1 or more.")
    table = open_corpus(input)
    _, location = find_model(model, common)
    if common.dry_run:
        what = f"update {output} to" if update else "embed"
        where = "" if update else f" into {output}"
        files = ", ".join(str(file.path) for file in table.files)
        say_plan(f"Would {what} {files} with {model}{where}.", json=common.json)
        return
    store_of_images = ImageStore([images]) if images else None
    # Before the model is loaded: a bad row or an unknown model is reported within seconds.
    corpus = identify_corpus(table, skip_bad_rows=on_error == "skip")
    folder = locate(location)
    print_inputs_note(folder, inputs)
    embedder = Embedder.load(folder, device=device, dtype=dtype, inputs=inputs)
    embedder.preparer.check_instruction(instruction)
    # A folder that was begun keeps the size of its shards: those that are done are found by it.
    if shard_rows is None:
        shard_rows = read_job(output).shard_rows if (output / JOB_FILE).exists() else _SHARD_ROWS
    job = EmbedJob(
        corpus=corpus,
        model=identify_model(embedder, model),
        precision=dtype,
        instruction=instruction,
        shard_rows=shard_rows,
        dtype=store,
    )
    if update:
        summary, changes = update_corpus(embedder, table, output, job, images=store_of_images, on_error=on_error)
    else:
        summary = embed_corpus(embedder, table, output, job, images=store_of_images, on_error=on_error)
        changes = None
    passed_over = count_by_suffix(table.passed_over)
    if common.json:
        result = {"output": output, "dimension": embedder.dimension, "passed_over": passed_over, **asdict(summary)}
        print_json({**result, "update": asdict(changes) if changes else None})
        return
    if changes:
        say(
            f"{output}: {changes.kept:,} vectors kept, {changes.new:,} new, {changes.changed:,} changed, "
            f"{changes.removed:,} removed, {summary.skipped:,} rows skipped."
        )
    else:
        say(f"{output}: {summary.made:,} vectors made of {summary.rows:,} rows, {summary.skipped:,} rows skipped.")
    for reason, rows in summary.reasons.items():
        say(f"  {rows.count:,} skipped: {reason}; the first: {rows.first}")
    if passed_over:
        say(f"Passed over in {input}: {passed_over}.")
    if summary.shards_elsewhere:
        say(f"Another process is at {summary.shards_elsewhere} shard(s); run the same command again to be sure.")
