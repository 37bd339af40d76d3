"""From shards to the examples that are kept: assembled, split, each once, clean of benchmarks, balanced.

Goes over the shards one at a time, twice: whether a picture stands for one entity is known only when all were seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial

from gme_data.examples import Example
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.album import Album
from gme_synthesis.corpus.assembly import Assembler, split_of, without_ambiguous
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.pages import render_page
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.corpus.store import IMAGES
from gme_synthesis.corpus.tools import Tools
from gme_synthesis.records import Reject, Tally
from gme_synthesis.selection import said
from gme_synthesis.steps.contamination import Benchmarks
from gme_synthesis.steps.near_duplicates import difference_hash

_STEPS = ("ambiguous", "assemble", "deduplicate", "decontaminate", "balance")
_HASHES = 100_000
"""Pictures whose hash is remembered: examples of one picture come close together."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept; the examples themselves are in the spool.

    Attributes:
        album: Every picture there is.
        sources: Passages behind the examples by source and licence.
        marks: Passages behind the examples by what was noticed of them.
        tallies: Counts of the steps here.
    """

    album: Album
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally(name) for name in _STEPS})


def select(config: CorpusSynthesisConfig, tools: Tools, written: ShardJournal, spool: Spool) -> Selection:
    """Assemble and select into the spool. Not journaled: minutes for what took days to write.

    Raises:
        FoundryError: A folder of benchmarks has no tasks.
    """
    for one in tools.corpus.captions.values():
        spool.sees(one.image, one.entity_group)
    for candidate in (one for shard in written.shards() for one in (*shard.named, *shard.candidates)):
        for image in filter(None, (candidate.picture, *(sight.image for sight in candidate.sights))):
            spool.sees(image, candidate.entity_group)
    selection = Selection(Album([tools.places.corpus / IMAGES, *written.pictures], spool))
    assembler = Assembler(
        licence=selection.album.licence,
        page=spool.page_of,
        split=lru_cache(10_000)(partial(split_of, seed=config.seed, dev=config.dev, test=config.test)),
        per_question=config.pictures_per_question,
    )
    selector = _Selector(spool, selection, _judge(config, selection.album))
    for shard in written.shards():
        selector.take(_assembled(shard, config, assembler, selection, spool))
    selector.balance(config.caps)
    return selection


def _assembled(
    shard: Shard, config: CorpusSynthesisConfig, assembler: Assembler, selection: Selection, spool: Spool
) -> Iterator[Example]:
    """The examples of a shard; counts what they are made of."""
    for one in (without_ambiguous(one, spool.is_ambiguous) for one in shard.named):
        selection.sources[one.source, one.licence] += 1
        selection.marks.update(one.marks)
        _note_page(one, config, spool)
        yield from _counted("assemble", assembler.named(one), selection)
        selection.tallies["assemble"].seen += 1
    for one in (without_ambiguous(one, spool.is_ambiguous) for one in shard.candidates):
        unclear = [] if one.sights else [Reject("ambiguous", "picture-of-several", one.id, one.entity)]
        spool.reject(unclear)
        _count(selection, "ambiguous", unclear[0] if unclear else None)
        if one.sights:
            yield from _counted("assemble", assembler.pictured(one), selection)


def _note_page(one: Candidate, config: CorpusSynthesisConfig, spool: Spool) -> None:
    """The page of a passage: that of the corpus, or a rendered one."""
    if one.page:
        spool.note_page(one.id, one.page)
    elif config.render_pages and (page := render_page(one.title, one.text, one.licence)):
        spool.keep_page(one.id, page)


class _Selector:
    """Takes examples one by one into the spool, and counts those that it refuses."""

    def __init__(self, spool: Spool, selection: Selection, spoils: Callable[[Example], Reject | None]) -> None:
        self._spool, self._selection, self._spoils = spool, selection, spoils

    def take(self, examples: Iterator[Example]) -> None:
        for example in examples:
            earlier = self._spool.earlier(example)
            double = earlier and Reject("deduplicate", "duplicate", example.id, f"as {earlier}: {said(example.query)}")
            self._count("deduplicate", double or None)
            if not double:
                spoilt = self._spoils(example)
                self._count("decontaminate", spoilt)
                self._spool.add(example, kept=spoilt is None)

    def balance(self, caps: Mapping[str, int]) -> None:
        self._spool.settle()
        for example in self._spool.cap(caps):
            self._count("balance", Reject("balance", f"over-cap-{example.source}", example.id, said(example.query)))
        tally = self._selection.tallies["balance"]
        tally.kept = self._spool.count().total()
        tally.seen = tally.kept + sum(tally.rejected.values())

    def _count(self, step: str, reject: Reject | None) -> None:
        self._spool.reject([reject] if reject else [])
        _count(self._selection, step, reject)


def _counted(step: str, examples: Iterator[Example], selection: Selection) -> Iterator[Example]:
    for example in examples:
        selection.tallies[step].kept += 1
        yield example


def _count(selection: Selection, step: str, reject: Reject | None) -> None:
    one = {reject.reason: 1} if reject else {}
    selection.tallies[step].add(Tally(step, 1, 1 - len(one), one))


def _judge(config: CorpusSynthesisConfig, album: Album) -> Callable[[Example], Reject | None]:
    """Why an example must not be trained on, if it must not."""
    if not config.benchmarks:
        return lambda _: None
    benchmarks = Benchmarks(config.benchmarks, config.ngram, config.picture_distance)
    look = lru_cache(_HASHES)(lambda id_: difference_hash(album.load(id_)))
    return lambda example: benchmarks.reject(example, look)
