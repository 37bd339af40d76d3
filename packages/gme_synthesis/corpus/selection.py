"""From shards to the examples of the output: assembled, split, each once, clean of benchmarks, capped.

The shards are read one at a time, and for the second time: whether an image stands for one entity only is known when
all were read once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial

from gme_data.examples import Example
from gme_data.items import Item
from gme_synthesis.corpus.assembly import Assembler, drop_ambiguous_images, split_of
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.example_buffer import ExampleBuffer
from gme_synthesis.corpus.pages import render_page
from gme_synthesis.corpus.picture_collection import PictureCollection
from gme_synthesis.corpus.resources import Resources
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.store import IMAGES, Corpus
from gme_synthesis.stages import Reject, Tally
from gme_synthesis.steps.contamination import BenchmarkIndex, HeldOutQueries
from gme_synthesis.steps.near_duplicates import difference_hash

_STEPS = ("ambiguous", "assemble", "merge", "deduplicate", "decontaminate", "balance")
ContaminationCheck = Callable[[Example], Reject | None]
"""Returns the example as a reject if it must not be trained on, else None."""
_CACHED_PICTURES = 100_000
"""Hashes and licences of so many pictures are cached: examples of one picture come close together."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What was selected; the examples themselves are in the buffer.

    Attributes:
        pictures: All pictures of the run.
        sources: Number of passages behind the examples, by source and licence.
        marks: Number of passages behind the examples, by mark.
        tallies: Counts of the steps of selection.
    """

    pictures: PictureCollection
    sources: Counter[tuple[str, str]] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)
    tallies: dict[str, Tally] = field(default_factory=lambda: {name: Tally(name) for name in _STEPS})

    def count(self, step: str, reject: Reject | None) -> None:
        """Counts one candidate or example that a step refused, or kept if `reject` is None."""
        reasons = {reject.reason: 1} if reject else {}
        self.tallies[step].add(Tally(step, 1, int(reject is None), reasons))


def select(config: SynthesisConfig, resources: Resources, written: ShardJournal, buffer: ExampleBuffer) -> Selection:
    """Assembles the examples and selects among them, into the buffer, which has the groups of all images already.

    It is not journaled, because it is quick.

    Raises:
        FoundryError: A folder of benchmarks has no tasks.
    """
    corpus = resources.corpus
    selection = Selection(PictureCollection([resources.folders.corpus / IMAGES, *written.pictures], buffer))
    assembler = Assembler(
        recipes=corpus.recipes,
        licence=lru_cache(_CACHED_PICTURES)(selection.pictures.licence),
        page=buffer.page_of,
        split=_splitter(config, corpus),
        max_images=config.pictures_per_question,
    )
    selector = _Selector(buffer, selection, _contamination_checks(config, corpus, selection.pictures))
    for shard in written.shards():
        selector.add(_assemble(shard, config, assembler, selection, buffer))
    selector.add(_supplied_examples(corpus, selection))
    selector.balance(config.caps)
    return selection


def _splitter(config: SynthesisConfig, corpus: Corpus) -> Callable[[str], str]:
    """Returns the split by entity group; a corpus that supplies its tasks is for training only."""
    if corpus.tasks is not None:
        return lambda _: "train"
    # Examples of a group come close together, and a look-up is cheaper than a digest.
    return lru_cache(10_000)(partial(split_of, seed=config.seed, dev=config.dev, test=config.test))


def _assemble(
    shard: Shard, config: SynthesisConfig, assembler: Assembler, selection: Selection, buffer: ExampleBuffer
) -> Iterator[Example]:
    """Yields the examples of a shard; counts them and the passages that they are made of."""
    counted: set[str] = set()  # ids of passages: several drafts of a shard are of one passage
    is_ambiguous = lru_cache(_CACHED_PICTURES)(buffer.is_ambiguous)
    pictured = [drop_ambiguous_images(candidate, is_ambiguous) for candidate in shard.candidates]
    # A question whose pictures were refused is still asked by name.
    for candidate in (*pictured, *(drop_ambiguous_images(candidate, is_ambiguous) for candidate in shard.named)):
        if candidate.id not in counted:
            counted.add(candidate.id)
            selection.sources[candidate.source, candidate.licence] += 1
            selection.marks.update(candidate.marks)
            if candidate.page:
                buffer.set_page(candidate.id, candidate.page)
            elif config.render_pages and (page := render_page(candidate.title, candidate.text, candidate.licence)):
                buffer.add_rendered_page(candidate.id, page)
        yield from _count_kept("assemble", assembler.named_examples(candidate), selection)
        selection.tallies["assemble"].seen += 1
    for candidate in pictured:
        if candidate.entity_images:
            selection.count("ambiguous", None)
            yield from _count_kept("assemble", assembler.pictured_examples(candidate), selection)
        else:
            reject = Reject("ambiguous", "picture-of-several", candidate.subject, candidate.entity)
            selection.count("ambiguous", reject)
            buffer.add_rejects([reject])


def _supplied_examples(corpus: Corpus, selection: Selection) -> Iterator[Example]:
    """Yields the training examples that the corpus supplies, beside those that were assembled."""
    if not corpus.examples:
        del selection.tallies["merge"]
        return
    # In the funnel, merging sees the assembled examples again, and keeps them all.
    assembled = selection.tallies["assemble"].kept
    selection.tallies["merge"].add(Tally("merge", assembled + len(corpus.examples), assembled))
    train = (example for example in corpus.examples if example.split == "train")
    yield from _count_kept("merge", train, selection)


class _Selector:
    """Adds examples to the buffer one by one, and counts those that it refuses."""

    def __init__(self, buffer: ExampleBuffer, selection: Selection, checks: Sequence[ContaminationCheck]) -> None:
        self._buffer, self._selection, self._checks = buffer, selection, checks

    def add(self, examples: Iterator[Example]) -> None:
        """Adds examples that are neither duplicates nor contaminated."""
        for example in examples:
            contaminated = next(filter(None, (check(example) for check in self._checks)), None)
            # A contaminated example goes to the buffer too, so that its repeats count as duplicates.
            earlier = self._buffer.add(example, is_accepted=contaminated is None)
            if earlier:
                text = f"as {earlier}: {_text_of(example.query)}"
                self._count("deduplicate", Reject("deduplicate", "duplicate", example.id, text))
                continue
            self._count("deduplicate", None)
            self._count("decontaminate", contaminated)

    def balance(self, caps: Mapping[str, int]) -> None:
        """Finalizes the buffer and removes the examples over the caps."""
        self._buffer.finalize()
        for example in self._buffer.cap(caps):
            self._count("balance", Reject("balance", f"over-cap-{example.source}", example.id, _text_of(example.query)))
        tally = self._selection.tallies["balance"]
        tally.kept = self._buffer.count().total()
        tally.seen = tally.kept + sum(tally.rejected.values())

    def _count(self, step: str, reject: Reject | None) -> None:
        if reject:
            self._buffer.add_rejects([reject])
        self._selection.count(step, reject)


def _count_kept(step: str, examples: Iterator[Example], selection: Selection) -> Iterator[Example]:
    for example in examples:
        selection.tallies[step].kept += 1
        yield example


def _contamination_checks(
    config: SynthesisConfig, corpus: Corpus, pictures: PictureCollection
) -> list[ContaminationCheck]:
    """Returns the checks against the tasks of the corpus and the benchmarks of the config."""
    checks: list[ContaminationCheck] = [HeldOutQueries(corpus.tasks).reject] if corpus.tasks is not None else []
    if config.benchmarks:
        picture_hash = lru_cache(_CACHED_PICTURES)(lambda id_: difference_hash(pictures.load(id_)))
        benchmarks = BenchmarkIndex(config.benchmarks, config.ngram, config.picture_distance)
        checks.append(lambda example: benchmarks.reject(example, picture_hash))
    return checks


def _text_of(item: Item) -> str:
    """Returns an item in a line, for a reject."""
    return item.text if item.text is not None else f"image {item.image}"
