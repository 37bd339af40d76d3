"""From shards to the examples that are kept: assembled, split, each once, clean of benchmarks, balanced."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gme_data.examples import Example
from gme_data.images import write_images
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.album import Album
from gme_synthesis.corpus.assembly import Assembler, groups_of_pictures, split_of, without_ambiguous
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.pages import render_page
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.corpus.store import IMAGES
from gme_synthesis.corpus.tools import Tools
from gme_synthesis.pipeline import tally
from gme_synthesis.records import Reject, Tally
from gme_synthesis.selection import balance, deduplicate
from gme_synthesis.steps.contamination import Benchmarks, remove_contaminated
from gme_synthesis.steps.near_duplicates import difference_hash


@dataclass(frozen=True, slots=True)
class Selection:
    """What is kept.

    Attributes:
        examples: Of all splits.
        named: The candidates behind them.
        pictured: Those of them with pictures.
        album: Every picture there is.
        rejects: What was refused here.
        tallies: Counts of the steps here.
    """

    examples: list[Example]
    named: list[Candidate]
    pictured: list[Candidate]
    album: Album
    rejects: list[Reject]
    tallies: list[Tally]

    @property
    def train(self) -> list[Example]:
        """The examples to train on."""
        return [example for example in self.examples if example.split == "train"]


def select(config: CorpusSynthesisConfig, tools: Tools, shards: Sequence[Shard], pictures: Sequence[Path]) -> Selection:
    """Assemble and select. Not journaled: seconds for what took hours to write.

    Raises:
        FoundryError: A folder of benchmarks has no tasks.
    """
    named, pictured, unclear = _unambiguous(tools, shards)
    pages = _pages(config, tools, named)
    album = Album([tools.places.corpus / IMAGES, *pictures, tools.places.scratch / "pages"])
    groups = {one.entity_group for one in named}
    assembler = Assembler(
        licences=album.licences,
        pages=pages,
        splits={group: split_of(group, config.seed, config.dev, config.test) for group in groups},
        per_question=config.pictures_per_question,
    )
    made = [example for one in named for example in assembler.named(one)]
    made += [example for one in pictured for example in assembler.pictured(one)]
    unique, doubles = deduplicate(made)
    clean, spoilt = _decontaminated(config, unique, album)
    kept, surplus = balance(clean, config.caps, config.seed)
    tallies = [
        tally("ambiguous", len(pictured) + len(unclear), len(pictured), unclear),
        Tally("assemble", len(named), len(made)),
        tally("deduplicate", len(made), len(unique), doubles),
        tally("decontaminate", len(unique), len(clean), spoilt),
        tally("balance", len(clean), len(kept), surplus),
    ]
    return Selection(kept, named, pictured, album, [*unclear, *doubles, *spoilt, *surplus], tallies)


def _unambiguous(tools: Tools, shards: Iterable[Shard]) -> tuple[list[Candidate], list[Candidate], list[Reject]]:
    shards = list(shards)
    everyone = (one for shard in shards for one in (*shard.named, *shard.candidates))
    groups = groups_of_pictures(everyone, {id_: one.entity_group for id_, one in tools.corpus.captions.items()})
    named = [without_ambiguous(one, groups) for shard in shards for one in shard.named]
    judged = [without_ambiguous(one, groups) for shard in shards for one in shard.candidates]
    unclear = [Reject("ambiguous", "picture-of-several", one.id, one.entity) for one in judged if not one.sights]
    return named, [one for one in judged if one.sights], unclear


def _pages(config: CorpusSynthesisConfig, tools: Tools, named: Iterable[Candidate]) -> dict[str, str]:
    """Image id of the page by passage; those of the corpus, and rendered ones."""
    pages = {}
    rendered = []
    for one in named:
        if one.page:
            pages[one.id] = one.page
        elif config.render_pages and (page := render_page(one.title, one.text, one.licence)):
            pages[one.id] = page.id
            rendered.append(page)
    write_images(tools.places.scratch / "pages", rendered)
    return pages


def _decontaminated(
    config: CorpusSynthesisConfig, examples: list[Example], album: Album
) -> tuple[list[Example], list[Reject]]:
    if not config.benchmarks:
        return examples, []
    benchmarks = Benchmarks(config.benchmarks, config.ngram, config.picture_distance)
    used = {item.image for example in examples for item in (example.query, example.positive) if item.image}
    hashes = {id_: difference_hash(album.store.load(id_)) for id_ in sorted(used)}
    return remove_contaminated(examples, benchmarks, hashes)
