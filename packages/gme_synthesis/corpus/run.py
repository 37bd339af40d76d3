"""The step `synthesize-corpus`: an imported corpus -> training examples, held-out tasks, pictures, the whole record.

Main path, top to bottom: clean and classify every passage, choose, encode the pool, write and filter questions and
pictures shard by shard, assemble, select, write. Everything between is in the journals, so a kill costs one shard.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_data.examples import write_examples
from gme_data.journal import atomic_write
from gme_data.progress import Progress
from gme_data.steps import Counts, Step, StepContext
from gme_embedder.store import EmbeddingStore
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.chain import JUDGES, first_stretch, second_stretch
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.executors import make_executor
from gme_synthesis.corpus.report import write_report
from gme_synthesis.corpus.selection import Selection, select
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.store import IMAGES
from gme_synthesis.corpus.tasks import write_tasks
from gme_synthesis.corpus.tools import POOL, POOL_IDS, Places, Tools
from gme_synthesis.funnel import merge_tallies, write_rejects
from gme_synthesis.pipeline import seconds_by_step, tally
from gme_synthesis.records import Reject, Tally
from gme_synthesis.steps.classification import UNSURE, sample_evenly
from gme_synthesis.steps.near_duplicates import NearTexts

_TASK_POOL = 10_000
"""Documents in the pool of a held-out task, at most."""


def synthesize_corpus(config: CorpusSynthesisConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write ``train/``, ``tasks/``, ``images/``, ``rejects/``, the funnel and the card from the input ``corpus``.

    Raises:
        FoundryError: No corpus, a model that can't be asked, a budget used up, too many rejects, or nothing left.
    """
    places = Places(inputs["corpus"], context.staging / ".work", context.log_dir / "answers")
    with closing(Tools(config, places)) as tools:
        return _synthesize(config, tools, context)


def _synthesize(config: CorpusSynthesisConfig, tools: Tools, context: StepContext) -> Counts:
    passages = len(tools.corpus)
    whole = _chunks(tools.corpus.passages(), config.shard)
    first = _stretch("clean", first_stretch(config), whole, passages, tools)
    chosen, pool, unchosen, choice = _choose(config, first)
    _encode_pool(tools, first, pool, context.log_dir / "vectors")
    going_on = (one for shard in first.shards() for one in shard.candidates if one.id in chosen)
    second = _stretch("write", second_stretch(config), _chunks(going_on, config.shard), len(chosen), tools)
    written = list(second.shards())
    selection = select(config, tools, written, second.pictures)
    if not selection.train:
        raise FoundryError("Nothing is left to train on.", hint=f"{_worst(written, selection)} Look at the filters.")
    cleaned = list(first.shards())
    shards = [*cleaned, *written]
    rejects = [*(one for shard in shards for one in shard.rejects), *unchosen, *selection.rejects]
    counts = _write(context.staging, selection, rejects)
    before, after = (
        merge_tallies(one for shard in part for one in shard.tallies) for part in (first.shards(), written)
    )
    write_report(context.staging, config, selection, shards, [*before, *choice, *after, *selection.tallies])
    append_event(context.log_dir / "events.jsonl", "steps", key=context.key, seconds=seconds_by_step(shards))
    return {"passages": passages, "chosen": len(chosen), **counts}


def _write(folder: Path, selection: Selection, rejects: Sequence[Reject]) -> dict[str, int]:
    write_examples(folder / "train", selection.train)
    tasks = write_tasks(folder / "tasks", selection.examples, _TASK_POOL)
    used = [item.image for one in selection.examples for item in (one.query, one.positive) if item.image]
    selection.album.write(folder / IMAGES, used)
    write_rejects(folder / "rejects", rejects)
    return {
        "examples": len(selection.train),
        "held_out": len(selection.examples) - len(selection.train),
        "tasks": tasks,
        "pictures": len(set(used)),
        "rejects": len(rejects),
    }


def _stretch(
    name: str, steps: Sequence[str], chunks: Iterable[list[Candidate]], passages: int, tools: Tools
) -> ShardJournal:
    """All shards through some steps; those in the journal are not done again."""
    config = tools.config
    journal = ShardJournal(tools.places.scratch / name)
    total = -(-passages // config.shard)
    waiting = [number for number in range(total) if not journal.has(number)]
    limit = _RejectLimit(config, journal)
    if waiting:
        numbered = (Shard(number, rows) for number, rows in enumerate(chunks) if not journal.has(number))
        execute = make_executor(config, tools.places, tools)
        with Progress(f"{name}: {', '.join(steps)}", total, "shards", done=total - len(waiting)) as progress:
            for shard in execute(steps, _GIVEN[name], numbered):
                journal.put(shard)
                limit.check(shard)
                progress.advance()
    limit.check(None)
    return journal


_GIVEN = {"clean": ("id", "text"), "write": ("id", "text", "domain")}


class _RejectLimit:
    """Fails a run whose passages are mostly refused: something is wrong with model, endpoint or corpus."""

    def __init__(self, config: CorpusSynthesisConfig, journal: ShardJournal) -> None:
        self._most, self._after = config.max_reject_rate, config.judged_after
        self._seen, self._reasons = 0, Counter[str]()
        for shard in journal.shards():
            self._count(shard)

    def check(self, shard: Shard | None) -> None:
        """Count a shard and judge, if there were enough; None judges whatever there were.

        Raises:
            FoundryError: The rate is over the limit; names the commonest reasons.
        """
        if shard:
            self._count(shard)
            if self._seen < self._after:
                return
        refused = self._reasons.total()
        if self._seen and refused > self._most * self._seen:
            common = ", ".join(f"{reason} ({count})" for reason, count in self._reasons.most_common(3))
            raise FoundryError(
                f"{refused} of {self._seen} passages were refused, more than max_reject_rate {self._most:g}: {common}.",
                hint="Look at the writer and the corpus. Answers are kept; after a change of config the run goes on.",
            )

    def _count(self, shard: Shard) -> None:
        self._seen += shard.tallies[0].seen
        for one in shard.tallies:
            if one.step in JUDGES:
                refused = {reason: count for reason, count in one.rejected.items() if reason != UNSURE}
                self._reasons.update({f"{one.step}: {reason}": count for reason, count in refused.items()})


def _choose(
    config: CorpusSynthesisConfig, first: ShardJournal
) -> tuple[frozenset[str], list[str], list[Reject], list[Tally]]:
    """Ids that go on, ids of the pool, and what was refused on the way: near duplicates, and what was not drawn."""
    near = NearTexts(config.near_duplicates)
    domains: dict[str, str] = {}
    doubles: list[Reject] = []
    for one in (one for shard in first.shards() for one in shard.candidates):
        earlier = near.repeats(one.id, one.text)
        if earlier is None:
            domains[one.id] = one.domain
        else:
            doubles.append(Reject("near-duplicate", "passage-repeats", one.id, f"as {earlier}: {one.text[:160]}"))
    tallies = [tally("near-duplicate", len(domains) + len(doubles), len(domains), doubles)]
    wanted = config.classifier.sample
    if wanted is None or wanted >= len(domains):
        return frozenset(domains), list(domains), doubles, tallies
    chosen = sample_evenly(domains, wanted, config.seed)
    left = [Reject("sample", "not-drawn", id_, domains[id_]) for id_ in domains if id_ not in chosen]
    return chosen, list(domains), [*doubles, *left], [*tallies, tally("sample", len(domains), len(chosen), left)]


def _encode_pool(tools: Tools, first: ShardJournal, pool: Sequence[str], vectors: Path) -> None:
    """Vectors of the pool where all processes can map them; `vectors` outlives the run, so no text is encoded twice."""
    scratch = tools.places.scratch
    if (scratch / POOL_IDS).exists():
        return
    inside = set(pool)
    texts = [one.text for shard in first.shards() for one in shard.candidates if one.id in inside]
    with Progress("encode the pool", len(texts), "passages") as progress:

        def encode(rows: list[int]) -> np.ndarray:
            found = tools.encoder.passages([texts[row] for row in rows])
            progress.advance(len(rows))
            return found

        np.save(scratch / POOL, EmbeddingStore(vectors).encode(tools.encoder.name, texts, encode), allow_pickle=False)
    atomic_write(scratch / POOL_IDS, json.dumps(list(pool)).encode())


def _chunks(rows: Iterator[Candidate], size: int) -> Iterator[list[Candidate]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _worst(shards: Iterable[Shard], selection: Selection) -> str:
    refused = [*(one for shard in shards for one in shard.rejects), *selection.rejects]
    reasons = Counter(f"{one.step}: {one.reason}" for one in refused)
    return "Most was refused for " + ", ".join(reason for reason, _ in reasons.most_common(2)) + "." if reasons else ""


SYNTHESIZE_CORPUS = Step("synthesize-corpus", "data/own", synthesize_corpus)
