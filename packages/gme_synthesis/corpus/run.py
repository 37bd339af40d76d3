"""The step `synthesize`: a corpus of any kind -> training examples, held-out tasks, pictures, funnel and card.

The main path is `_synthesize`, top to bottom: clean and classify every passage, choose, encode the pool, write and
filter questions and pictures shard by shard, assemble, select, write. Every finished shard is journaled, so a kill
costs the shards in progress. Of each passage only its id and some hundred bytes of signature are in memory: texts come
shard by shard, and what selection needs at once lies in the example buffer, a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from sys import intern
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gme_data.batching import batched
from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_data.examples import write_examples
from gme_data.journal import atomic_write, fsync_file
from gme_data.parquet import write_shards
from gme_data.progress import Progress
from gme_data.steps import Counts, StepContext
from gme_embedder.vectors.store import EmbeddingStore
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.example_buffer import ExampleBuffer
from gme_synthesis.corpus.executors import make_executor
from gme_synthesis.corpus.report import PassTotals, skipped_steps, write_report
from gme_synthesis.corpus.resources import BUFFER, POOL, POOL_IDS, Resources, RunFolders
from gme_synthesis.corpus.selection import Selection, select
from gme_synthesis.corpus.shard_runner import COUNTED_STEPS, cleaning_steps, writing_steps
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.store import IMAGES, Corpus
from gme_synthesis.corpus.tasks import write_tasks
from gme_synthesis.funnel import REJECTS_SCHEMA
from gme_synthesis.stages import Reject, Tally
from gme_synthesis.steps.classification import UNSURE, sample_evenly
from gme_synthesis.steps.near_duplicates import MinHashIndex

_TASK_POOL = 10_000
"""A held-out task has at most so many documents, and at most so many queries."""
_ENCODE_BATCH = 8192
"""So many passages are encoded before their vectors are written to the pool."""
_FILLED_COLUMNS = {"clean": ("id", "text"), "write": ("id", "text", "domain")}
"""Columns that are filled in the candidates of each pass."""
RowT = TypeVar("RowT")


def synthesize(config: SynthesisConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes ``train/``, ``tasks/``, ``images/``, ``rejects/``, the funnel and the card from the input ``corpus``.

    The model of the input ``judge`` scores pictures, if the config names the champion. Of a corpus that supplies its
    own tasks nothing is held out, and only new pictures are written: the others stay where they are.

    Raises:
        FoundryError: There is no corpus, a model can't be asked, a budget is used up, too many passages are refused, or
            no example is left to train on.
    """
    # In the log folder, which outlives the staging folder: no answer is paid for twice.
    answers = context.log_dir / "answers"
    folders = RunFolders(inputs["corpus"], context.staging / ".work", answers, inputs.get("judge"))
    folders.scratch.mkdir(parents=True, exist_ok=True)
    with (
        closing(Resources(config, folders)) as resources,
        closing(ExampleBuffer(folders.scratch / BUFFER, config.seed)) as buffer,
    ):
        return _synthesize(config, resources, buffer, context)


def _synthesize(config: SynthesisConfig, resources: Resources, buffer: ExampleBuffer, context: StepContext) -> Counts:
    passages = len(resources.corpus)
    clean_totals, write_totals = PassTotals(buffer), PassTotals(buffer)
    all_passages = batched(resources.corpus.passages(), config.shard)
    clean = _run_pass("clean", cleaning_steps(config), all_passages, passages, resources, clean_totals)

    # The barrier: near duplicates and even shares of the classes are decided over all passages.
    chosen, pool, choice = _choose(config, clean, buffer)
    _encode_pool(resources, clean, pool, context.log_dir / "vectors")

    chosen_passages = (
        candidate for shard in clean.shards() for candidate in shard.candidates if candidate.id in chosen
    )
    chunks = batched(chosen_passages, config.shard)
    written = _run_pass("write", writing_steps(config), chunks, len(chosen), resources, write_totals)

    # A picture of the bank stands for its caption's group, even if no candidate of that group is left.
    for caption in resources.corpus.captions.values():
        buffer.add_image_group(caption.image, caption.entity_group)
    selection = select(config, resources, written, buffer)
    if not buffer.count_splits().get("train"):
        reasons = buffer.most_common_reasons(2)
        refused = f"Most was refused for {', '.join(reasons)}." if reasons else ""
        raise FoundryError("Nothing is left to train on.", hint=f"{refused} Look at the filters.")

    totals = [clean_totals, write_totals]
    tallies = [*clean_totals.tallies.values(), *choice, *write_totals.tallies.values(), *selection.tallies.values()]
    skipped = skipped_steps(config, resources.folders.picture_scorer, resources.corpus)
    write_report(context.staging, config, selection, buffer, totals, tallies, skipped)
    # To the log, not to the output: a rerun takes other seconds and must write the same bytes.
    seconds = {step: round(spent, 2) for one_pass in totals for step, spent in one_pass.seconds.items()}
    append_event(context.log_dir / "events.jsonl", "steps", key=context.key, seconds=seconds)
    counts = _write_output(context.staging, resources.corpus, selection, buffer)
    return {"passages": passages, "chosen": len(chosen), **counts}


def _write_output(folder: Path, corpus: Corpus, selection: Selection, buffer: ExampleBuffer) -> dict[str, int]:
    write_examples(folder / "train", buffer.examples("train"))
    tasks = write_tasks(folder / "tasks", buffer, _TASK_POOL)
    # The tasks of a corpus refer to the pictures in its own folder, which is read beside the output.
    supplied = corpus.images if corpus.tasks is not None else ()
    selection.pictures.write(folder / IMAGES, (id_ for id_ in buffer.used_pictures() if id_ not in supplied))
    write_shards(folder / "rejects", "rejects", buffer.rejects(), REJECTS_SCHEMA)
    train, total = buffer.count("train").total(), buffer.count().total()
    return {
        "examples": train,
        "held_out": total - train,
        "tasks": tasks,
        "pictures": sum(id_ not in supplied for id_ in buffer.used_pictures()),
        "rejects": buffer.count_rejects(),
    }


def _run_pass(
    name: str,
    steps: Sequence[str],
    chunks: Iterable[list[Candidate]],
    passages: int,
    resources: Resources,
    totals: PassTotals,
) -> ShardJournal:
    """Runs the steps of one pass over all shards and adds these to `totals`; shards in the journal are not run again.

    Args:
        name: Name of the pass and of its journal.
        steps: Names of the steps, in order.
        chunks: The candidates of each shard; read only if a shard is not finished.
        passages: Number of candidates in all chunks.
        resources: What the steps share.
        totals: Gets every shard.

    Raises:
        FoundryError: Too many candidates are refused, or a step fails.
    """
    config = resources.config
    journal = ShardJournal(resources.folders.scratch / name)
    journal.drop_damaged()  # before the finished shards are counted
    total = -(-passages // config.shard)
    unfinished = [number for number in range(total) if not journal.has(number)]
    limit = _RejectLimit(config)
    for shard in journal.shards():
        totals.add(shard)
        limit.count(shard)
    if unfinished:
        # Numbers are positions in `chunks`, so finished shards are read and passed over.
        shards = (Shard(number, rows) for number, rows in enumerate(chunks) if not journal.has(number))
        execute = make_executor(config, resources.folders, resources)
        with Progress(f"{name}: {', '.join(steps)}", total, "shards", done=total - len(unfinished)) as progress:
            for shard in execute(steps, _FILLED_COLUMNS[name], shards):
                journal.put(shard)
                totals.add(shard)
                limit.count(shard)
                limit.check(at_end=False)
                progress.advance()
    limit.check(at_end=True)
    return journal


class _RejectLimit:
    """Fails a run whose passages are mostly refused: something is wrong with model, endpoint or corpus."""

    def __init__(self, config: SynthesisConfig) -> None:
        self._max_rate, self._min_passages = config.max_reject_rate, config.reject_rate_min_passages
        self._seen, self._reasons = 0, Counter[str]()

    def count(self, shard: Shard) -> None:
        """Counts the passages of a shard and what was refused of them."""
        counted = [tally for tally in shard.tallies if tally.step in COUNTED_STEPS]
        # All that come into the first step; later steps see the same passages again.
        self._seen += counted[0].seen
        for tally in counted:
            refused = {reason: count for reason, count in tally.rejected.items() if reason != UNSURE}
            self._reasons.update({f"{tally.step}: {reason}": count for reason, count in refused.items()})

    def check(self, *, at_end: bool) -> None:
        """Checks the reject rate, if enough passages were counted or none are to come.

        Raises:
            FoundryError: The rate is over the limit; the message names the most common reasons.
        """
        if not at_end and self._seen < self._min_passages:
            return
        refused = self._reasons.total()
        if self._seen and refused > self._max_rate * self._seen:
            common = ", ".join(f"{reason} ({count})" for reason, count in self._reasons.most_common(3))
            raise FoundryError(
                f"{refused} of {self._seen} passages were refused, more than max_reject_rate {self._max_rate:g}:"
                f" {common}.",
                hint="Look at the writer and the corpus. Answers are kept; after a change of config the run goes on.",
            )


def _choose(
    config: SynthesisConfig, clean: ShardJournal, buffer: ExampleBuffer
) -> tuple[Collection[str], Collection[str], list[Tally]]:
    """Chooses the passages that questions are written about; the others become rejects in the buffer.

    Returns:
        Ids of the chosen passages, ids of the pool that questions are checked against, and the tallies of the choice.
    """
    near = MinHashIndex(config.near_duplicates)
    domains: dict[str, str] = {}
    duplicates = Tally("near-duplicate")
    for candidate in (candidate for shard in clean.shards() for candidate in shard.candidates):
        earlier = near.find_or_add(candidate.id, candidate.text)
        if earlier is None:
            domains[candidate.id] = intern(candidate.domain)  # a few classes, and maybe millions of passages
            duplicates.add(Tally(duplicates.step, 1, 1))
        else:
            text = f"as {earlier}: {candidate.text[:160]}"
            reject = Reject(duplicates.step, "passage-repeats", candidate.id, text)
            duplicates.add(Tally(duplicates.step, 1, 0, {reject.reason: 1}))
            buffer.add_rejects([reject])
    sample = config.classifier.sample
    if sample is None or sample >= len(domains):
        return domains.keys(), domains.keys(), [duplicates]
    chosen = sample_evenly(domains, sample, config.seed)
    buffer.add_rejects(
        Reject("sample", "not-drawn", id_, domain) for id_, domain in domains.items() if id_ not in chosen
    )
    sampled = Tally("sample", len(domains), len(chosen), {"not-drawn": len(domains) - len(chosen)})
    return chosen, domains.keys(), [duplicates, sampled]


def _encode_pool(resources: Resources, clean: ShardJournal, pool: Collection[str], vectors: Path) -> None:
    """Writes the vectors of the pool to the scratch folder, float32 [passages, d], for all processes to map.

    Args:
        resources: Text encoder and folders.
        clean: Shards with the texts.
        pool: Ids of the passages, in the order of the shards.
        vectors: Embedding store that outlives the run, so that no text is encoded twice.
    """
    scratch = resources.folders.scratch
    # The ids are written last, so where they are the vectors are complete.
    if (scratch / POOL_IDS).exists():
        return
    texts = (candidate.text for shard in clean.shards() for candidate in shard.candidates if candidate.id in pool)
    store, start, mapped = EmbeddingStore(vectors), 0, np.zeros((0, 0), np.float32)
    with Progress("encode the pool", len(pool), "passages") as progress:
        for chunk in batched(texts, _ENCODE_BATCH):
            encoded = store.encode(resources.encoder.name, chunk, partial(_encode_rows, resources, chunk))
            if not start:  # only the first vectors say how wide the file must be
                shape = (len(pool), encoded.shape[1])
                mapped = np.lib.format.open_memmap(scratch / POOL, "w+", np.float32, shape)
            mapped[start : start + len(chunk)] = encoded
            start += len(chunk)
            progress.advance(len(chunk))
    del mapped  # closes the file
    fsync_file(scratch / POOL)
    atomic_write(scratch / POOL_IDS, json.dumps(list(pool)).encode())


def _encode_rows(resources: Resources, texts: Sequence[str], rows: list[int]) -> NDArray[np.float32]:
    return resources.encoder.passages([texts[row] for row in rows])
