"""From shards to the examples that are kept: assembled, split, each once, clean of benchmarks, balanced.

Goes over the shards one at a time, twice: whether a picture stands for one entity is known only when all were seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.album import Album
from gme_synthesis.corpus.assembly import Assembler, split_of, without_ambiguous
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.pages import render_page
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.corpus.store import IMAGES, Corpus
from gme_synthesis.corpus.tools import Tools
from gme_synthesis.records import Reject, Tally
from gme_synthesis.steps.contamination import BenchmarkIndex, HeldOutQueries
from gme_synthesis.steps.near_duplicates import difference_hash

_STEPS = ("ambiguous", "assemble", "merge", "deduplicate", "decontaminate", "balance")
Judge = Callable[[Example], Reject | None]
"""The example as a reject if it must not be trained on."""
_REMEMBERED = 100_000
"""Pictures whose hash and licence are remembered: examples of one picture come close together."""


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


def select(config: SynthesisConfig, tools: Tools, written: ShardJournal, spool: Spool) -> Selection:
    """Assemble and select into the spool, which has seen all pictures. Not journaled: it is quick.

    Raises:
        FoundryError: A folder of benchmarks has no tasks.
    """
    corpus = tools.corpus
    selection = Selection(Album([tools.places.corpus / IMAGES, *written.pictures], spool))
    assembler = Assembler(
        recipes=corpus.recipes,
        licence=lru_cache(_REMEMBERED)(selection.album.licence),
        page=spool.page_of,
        split=_splitter(config, corpus),
        per_question=config.pictures_per_question,
    )
    selector = _Selector(spool, selection, _judges(config, corpus, selection.album))
    for shard in written.shards():
        selector.take(_assembled(shard, config, assembler, selection, spool))
    selector.take(_brought_along(corpus, selection))
    selector.balance(config.caps)
    return selection


def _splitter(config: SynthesisConfig, corpus: Corpus) -> Callable[[str], str]:
    """Split by entity group; a corpus that comes with its tasks is for training as a whole."""
    if corpus.tasks is not None:
        return lambda _: "train"
    return lru_cache(10_000)(partial(split_of, seed=config.seed, dev=config.dev, test=config.test))


def _assembled(
    shard: Shard, config: SynthesisConfig, assembler: Assembler, selection: Selection, spool: Spool
) -> Iterator[Example]:
    """The examples of a shard; counts what they are made of."""
    seen: set[str] = set()
    is_ambiguous = lru_cache(_REMEMBERED)(spool.is_ambiguous)
    clear = [without_ambiguous(one, is_ambiguous) for one in shard.candidates]
    for one in (*clear, *(without_ambiguous(one, is_ambiguous) for one in shard.named)):
        if one.id not in seen:
            seen.add(one.id)
            selection.sources[one.source, one.licence] += 1
            selection.marks.update(one.marks)
            _note_page(one, config, spool)
        yield from _counted("assemble", assembler.named(one), selection)
        selection.tallies["assemble"].seen += 1
    for one in clear:
        unclear = None if one.sights else Reject("ambiguous", "picture-of-several", one.subject, one.entity)
        _count(selection, "ambiguous", unclear)
        if unclear:
            spool.reject([unclear])
        else:
            yield from _counted("assemble", assembler.pictured(one), selection)


def _brought_along(corpus: Corpus, selection: Selection) -> Iterator[Example]:
    """The examples that the corpus has already, merged with those that were assembled."""
    if not corpus.examples:
        del selection.tallies["merge"]
        return
    written = selection.tallies["assemble"].kept
    selection.tallies["merge"].add(Tally("merge", written + len(corpus.examples), written))
    yield from _counted("merge", (one for one in corpus.examples if one.split == "train"), selection)


def _note_page(one: Candidate, config: SynthesisConfig, spool: Spool) -> None:
    """The page of a passage: that of the corpus, or a rendered one."""
    if one.page:
        spool.note_page(one.id, one.page)
    elif config.render_pages and (page := render_page(one.title, one.text, one.licence)):
        spool.keep_page(one.id, page)


class _Selector:
    """Takes examples one by one into the spool, and counts those that it refuses."""

    def __init__(self, spool: Spool, selection: Selection, judges: Sequence[Judge]) -> None:
        self._spool, self._selection, self._judges = spool, selection, judges

    def take(self, examples: Iterator[Example]) -> None:
        for example in examples:
            spoilt = next(filter(None, (judge(example) for judge in self._judges)), None)
            earlier = self._spool.add(example, kept=spoilt is None)
            if earlier:
                text = f"as {earlier}: {said(example.query)}"
                self._count("deduplicate", Reject("deduplicate", "duplicate", example.id, text))
                continue
            self._count("deduplicate", None)
            self._count("decontaminate", spoilt)

    def balance(self, caps: Mapping[str, int]) -> None:
        self._spool.settle()
        for example in self._spool.cap(caps):
            self._count("balance", Reject("balance", f"over-cap-{example.source}", example.id, said(example.query)))
        tally = self._selection.tallies["balance"]
        tally.kept = self._spool.count().total()
        tally.seen = tally.kept + sum(tally.rejected.values())

    def _count(self, step: str, reject: Reject | None) -> None:
        if reject:
            self._spool.reject([reject])
        _count(self._selection, step, reject)


def _counted(step: str, examples: Iterator[Example], selection: Selection) -> Iterator[Example]:
    for example in examples:
        selection.tallies[step].kept += 1
        yield example


def _count(selection: Selection, step: str, reject: Reject | None) -> None:
    tally = selection.tallies[step]
    tally.seen += 1
    tally.kept += reject is None
    if reject:
        tally.rejected[reject.reason] = tally.rejected.get(reject.reason, 0) + 1


def _judges(config: SynthesisConfig, corpus: Corpus, album: Album) -> list[Judge]:
    """What keeps examples apart from the tasks of the corpus and from the benchmarks of the config."""
    judges: list[Judge] = [HeldOutQueries(corpus.tasks).reject] if corpus.tasks is not None else []
    if config.benchmarks:
        look = lru_cache(_REMEMBERED)(lambda id_: difference_hash(album.load(id_)))
        judges.append(
            partial(BenchmarkIndex(config.benchmarks, config.ngram, config.picture_distance).reject, picture_hash=look)
        )
    return judges


def said(item: Item) -> str:
    """An item in a line, for a reject."""
    return item.text if item.text is not None else f"image {item.image}"
