"""The step `synthesize`: a corpus of any kind -> training examples, held-out tasks, pictures, the whole record.

Main path, top to bottom: clean and classify every passage, choose, encode the pool, write and filter questions and
pictures shard by shard, assemble, select, write. Everything between is in the journals, so a kill costs one shard. Of a
passage no more than its id and some hundred bytes of signature are in memory: texts come shard by shard, and what
selection needs at once lies in a file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from sys import intern
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_data.examples import write_examples
from gme_data.journal import atomic_write, fsync_file
from gme_data.parquet import write_shards
from gme_data.progress import Progress
from gme_data.steps import Counts, StepContext
from gme_embedder.store import EmbeddingStore
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.chain import JUDGES, first_stretch, second_stretch
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.executors import make_executor
from gme_synthesis.corpus.report import Account, skipped, write_report
from gme_synthesis.corpus.selection import Selection, select
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.corpus.store import IMAGES, Corpus
from gme_synthesis.corpus.tasks import write_tasks
from gme_synthesis.corpus.tools import POOL, POOL_IDS, SPOOL, Places, Tools
from gme_synthesis.funnel import REJECTS_SCHEMA
from gme_synthesis.records import Reject, Tally, tally
from gme_synthesis.steps.classification import UNSURE, sample_evenly
from gme_synthesis.steps.near_duplicates import MinHashIndex

_TASK_POOL = 10_000
"""Documents in the pool of a held-out task, and questions to it, at most."""
_ENCODED = 8192
"""Passages encoded before their vectors go to the pool."""
RowT = TypeVar("RowT")


def synthesize(config: SynthesisConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write ``train/``, ``tasks/``, ``images/``, ``rejects/``, the funnel and the card from the input ``corpus``.

    A model in the input ``judge`` scores pictures, if the config wants the champion to. Of a corpus that brings tasks
    along nothing is held out, and of its pictures only new ones are written: the others stay where they are.

    Raises:
        FoundryError: No corpus, a model that can't be asked, a budget used up, too many rejects, or nothing left.
    """
    answers = context.log_dir / "answers"
    places = Places(inputs["corpus"], context.staging / ".work", answers, inputs.get("judge"))
    places.scratch.mkdir(parents=True, exist_ok=True)
    with closing(Tools(config, places)) as tools, closing(Spool(places.scratch / SPOOL, config.seed)) as spool:
        return _synthesize(config, tools, spool, context)


def _synthesize(config: SynthesisConfig, tools: Tools, spool: Spool, context: StepContext) -> Counts:
    passages = len(tools.corpus)
    whole = _chunks(tools.corpus.passages(), config.shard)
    accounts = [Account(spool), Account(spool)]
    first = _stretch("clean", first_stretch(config), whole, passages, tools, accounts[0])
    chosen, pool, choice = _choose(config, first, spool)
    _encode_pool(tools, first, pool, context.log_dir / "vectors")
    going_on = (one for shard in first.shards() for one in shard.candidates if one.id in chosen)
    asked = _chunks(going_on, config.shard)
    second = _stretch("write", second_stretch(config), asked, len(chosen), tools, accounts[1])
    for caption in tools.corpus.captions.values():
        spool.sees(caption.image, caption.entity_group)
    selection = select(config, tools, second, spool)
    if not spool.splits().get("train"):
        raise FoundryError("Nothing is left to train on.", hint=f"{_worst(spool)} Look at the filters.")
    before, after = (list(account.tallies.values()) for account in accounts)
    tallies = [*before, *choice, *after, *selection.tallies.values()]
    left_out = skipped(config, tools.places.judge, tools.corpus)
    write_report(context.staging, config, selection, spool, accounts, tallies, left_out)
    seconds = {step: round(spent, 2) for account in accounts for step, spent in account.seconds.items()}
    append_event(context.log_dir / "events.jsonl", "steps", key=context.key, seconds=seconds)
    return {"passages": passages, "chosen": len(chosen), **_write(context.staging, tools.corpus, selection, spool)}


def _write(folder: Path, corpus: Corpus, selection: Selection, spool: Spool) -> dict[str, int]:
    write_examples(folder / "train", spool.examples("train"))
    tasks = write_tasks(folder / "tasks", spool, _TASK_POOL)
    there = corpus.images if corpus.tasks is not None else ()
    selection.album.write(folder / IMAGES, (id_ for id_ in spool.used_pictures() if id_ not in there))
    write_shards(folder / "rejects", "rejects", spool.rejects(), REJECTS_SCHEMA)
    trained, all_ = spool.count("train").total(), spool.count().total()
    return {
        "examples": trained,
        "held_out": all_ - trained,
        "tasks": tasks,
        "pictures": sum(id_ not in there for id_ in spool.used_pictures()),
        "rejects": spool.count_rejects(),
    }


def _stretch(
    name: str, steps: Sequence[str], chunks: Iterable[list[Candidate]], passages: int, tools: Tools, account: Account
) -> ShardJournal:
    """All shards through some steps, and into the account; those in the journal are not done again."""
    config = tools.config
    journal = ShardJournal(tools.places.scratch / name)
    journal.drop_damaged()
    total = -(-passages // config.shard)
    waiting = [number for number in range(total) if not journal.has(number)]
    limit = _RejectLimit(config)
    for shard in journal.shards():
        account.add(shard)
        limit.count(shard)
    if waiting:
        numbered = (Shard(number, rows) for number, rows in enumerate(chunks) if not journal.has(number))
        execute = make_executor(config, tools.places, tools)
        with Progress(f"{name}: {', '.join(steps)}", total, "shards", done=total - len(waiting)) as progress:
            for shard in execute(steps, _GIVEN[name], numbered):
                journal.put(shard)
                account.add(shard)
                limit.check(shard)
                progress.advance()
    limit.check(None)
    return journal


_GIVEN = {"clean": ("id", "text"), "write": ("id", "text", "domain")}


class _RejectLimit:
    """Fails a run whose passages are mostly refused: something is wrong with model, endpoint or corpus."""

    def __init__(self, config: SynthesisConfig) -> None:
        self._most, self._after = config.max_reject_rate, config.judged_after
        self._seen, self._reasons = 0, Counter[str]()

    def check(self, shard: Shard | None) -> None:
        """Count a shard and judge, if there were enough; None judges whatever there were.

        Raises:
            FoundryError: The rate is over the limit; names the commonest reasons.
        """
        if shard:
            self.count(shard)
            if self._seen < self._after:
                return
        refused = self._reasons.total()
        if self._seen and refused > self._most * self._seen:
            common = ", ".join(f"{reason} ({count})" for reason, count in self._reasons.most_common(3))
            raise FoundryError(
                f"{refused} of {self._seen} passages were refused, more than max_reject_rate {self._most:g}: {common}.",
                hint="Look at the writer and the corpus. Answers are kept; after a change of config the run goes on.",
            )

    def count(self, shard: Shard) -> None:
        """Count a shard without judging."""
        judged = [one for one in shard.tallies if one.step in JUDGES]
        self._seen += judged[0].seen
        for one in judged:
            refused = {reason: count for reason, count in one.rejected.items() if reason != UNSURE}
            self._reasons.update({f"{one.step}: {reason}": count for reason, count in refused.items()})


def _choose(
    config: SynthesisConfig, first: ShardJournal, spool: Spool
) -> tuple[Collection[str], Collection[str], list[Tally]]:
    """Ids that go on, ids of the pool, and counts; near duplicates and what was not drawn go to the spool."""
    near = MinHashIndex(config.near_duplicates)
    domains: dict[str, str] = {}
    doubles = Tally("near-duplicate")
    for one in (one for shard in first.shards() for one in shard.candidates):
        earlier = near.find_or_add(one.id, one.text)
        if earlier is None:
            domains[one.id] = intern(one.domain)
        else:
            reject = Reject(doubles.step, "passage-repeats", one.id, f"as {earlier}: {one.text[:160]}")
            spool.reject([reject])
        doubles.add(tally(doubles.step, 1, earlier is None, [reject] if earlier else []))
    wanted = config.classifier.sample
    if wanted is None or wanted >= len(domains):
        return domains.keys(), domains.keys(), [doubles]
    chosen = sample_evenly(domains, wanted, config.seed)
    left = (Reject("sample", "not-drawn", id_, domain) for id_, domain in domains.items() if id_ not in chosen)
    spool.reject(left)
    drawn = Tally("sample", len(domains), len(chosen), {"not-drawn": len(domains) - len(chosen)})
    return chosen, domains.keys(), [doubles, drawn]


def _encode_pool(tools: Tools, first: ShardJournal, pool: Collection[str], vectors: Path) -> None:
    """Vectors of the pool where all processes can map them; `vectors` outlives the run, so no text is encoded twice."""
    scratch = tools.places.scratch
    if (scratch / POOL_IDS).exists():
        return
    texts = (one.text for shard in first.shards() for one in shard.candidates if one.id in pool)
    store, row, mapped = EmbeddingStore(vectors), 0, np.zeros((0, 0), np.float32)
    with Progress("encode the pool", len(pool), "passages") as progress:
        for chunk in _chunks(texts, _ENCODED):
            encode = partial(_encode, tools, chunk)
            found = store.encode(tools.encoder.name, chunk, encode)
            if not row:
                shape = (len(pool), found.shape[1])
                mapped = np.lib.format.open_memmap(scratch / POOL, "w+", np.float32, shape)
            mapped[row : row + len(chunk)] = found
            row += len(chunk)
            progress.advance(len(chunk))
    del mapped  # closes the file
    fsync_file(scratch / POOL)
    atomic_write(scratch / POOL_IDS, json.dumps(list(pool)).encode())


def _encode(tools: Tools, texts: Sequence[str], rows: list[int]) -> NDArray[np.float32]:
    return tools.encoder.passages([texts[row] for row in rows])


def _chunks(rows: Iterator[RowT], size: int) -> Iterator[list[RowT]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _worst(spool: Spool) -> str:
    reasons = spool.commonest(2)
    return f"Most was refused for {', '.join(reasons)}." if reasons else ""
