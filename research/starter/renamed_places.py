"""Questions about renamed places: passages of Atlas's train split under other names and under procedural flags.

With a hundred-odd trained places a model memorises each and doesn't generalise to an unseen one. A passage that occurs
under many names can be found only by comparing names (T->T); one under a procedural flag only by the flag or by its
description (IT->T, IT->IT).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from atlas.choice import seeded_choice, seeded_hash
from atlas.factbook import shorten
from atlas.fields import FLAG_START
from atlas.imagined import rename_place
from atlas.wordings import REFERENCES
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.licences import combine_licences
from gme_data.parquet import read_rows
from research.starter.config import StarterDataConfig
from research.starter.examples import StoredPicture, make_example
from research.starter.held_out import HeldOutEntities
from research.starter.invented_flags import FLAT, OUTLINED
from research.starter.wordnet import Synset

_FLAG_SECTION = "Government"
"""The section whose passages end with the description of the flag."""
_NAME = re.compile(r"[A-Z][a-z]{2,}(?:[ -][A-Z][a-z]+){0,2}")


@dataclass(frozen=True, slots=True)
class TrainPassages:
    """The train split of an Atlas, and names to put in place of those of its places.

    Attributes:
        passages: Rows of Atlas's table.
        facts: Rows of Atlas's table, by passage.
        named: Templates that ask by the name of the place, by field.
        deictic: Templates that ask by pointing at a picture, by field.
        names: Names of other things.
        name_licence: Licence of the names.
    """

    passages: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Sequence[Mapping[str, Any]]]
    named: Mapping[str, Sequence[str]]
    deictic: Mapping[str, Sequence[str]]
    names: Sequence[str]
    name_licence: str


def read_train_passages(atlas: Path, names: Sequence[str], name_licence: str) -> TrainPassages:
    """Reads the train split of a built Atlas.

    Raises:
        FoundryError: A table is missing.
    """
    tables = atlas / "corpus"
    facts: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    templates: dict[str, dict[str, list[str]]] = {"named": defaultdict(list), "deictic": defaultdict(list)}
    for row in read_rows(tables / "facts.parquet"):
        if row["split"] == "train":
            facts[row["passage_id"]].append(row)
    for row in read_rows(tables / "wordings.parquet"):
        if row["split"] == "train":
            templates[row["kind"]][row["field"]].append(row["template"])
    passages = [row for row in read_rows(tables / "passages.parquet") if row["split"] == "train"]
    return TrainPassages(passages, facts, **templates, names=names, name_licence=name_licence)


def proper_names(synsets: Iterable[Synset], held_out: HeldOutEntities) -> list[str]:
    """Returns the names of places, people and kinds of living things in WordNet, sorted, without held-out ones."""
    words = {word for synset in synsets if synset.id.startswith("n") for word in synset.words}
    names = sorted(word for word in words if _NAME.fullmatch(word))
    return [name for name in names if not held_out.has_english_name(name) and not held_out.place_mentioned_in(name)]


def renamed_questions(source: TrainPassages, held_out: HeldOutEntities, config: StarterDataConfig) -> Iterator[Example]:
    """Yields each passage under `config.names_per_passage` other names, with a question for each of its facts.

    A held-out place that a passage mentions gets another name too.
    """
    for passage in source.passages:
        order = sorted(source.names, key=partial(seeded_hash, config.seed, passage["id"]))
        for name in order[: config.names_per_passage]:
            text = _rename(passage, name, source, held_out, config)
            for fact in source.facts[passage["id"]]:
                template = seeded_choice(source.named[fact["field"]], config.seed, "wording", fact["id"], name)
                licence = combine_licences(passage["licence"], source.name_licence)
                yield make_example(
                    "starter-place-question", "T->T", Item(template.format(place=name)), Item(text),
                    f"named:{name}", f"{fact['section']}/{fact['field']}", licence, None,
                )  # fmt: skip


def flag_questions(
    flags: Iterable[StoredPicture], source: TrainPassages, held_out: HeldOutEntities, config: StarterDataConfig
) -> Iterator[Example]:
    """Yields questions with a procedural flag: one for the passage that describes it, one for a passage beside it.

    The query has the outlined drawing, the document beside a passage the flat one.

    Args:
        flags: Procedural flags; those that were dropped in one of the styles are skipped.
        source: Passages, templates and names.
        held_out: Entities that no text may mention.
        config: The seed.
    """
    government = [passage for passage in source.passages if passage["section"] == _FLAG_SECTION]
    by_entity: dict[str, dict[str, StoredPicture]] = defaultdict(dict)
    for flag in flags:
        by_entity[flag.candidate.entity][flag.candidate.style] = flag
    for entity, styles in sorted(by_entity.items()):
        if FLAT not in styles or OUTLINED not in styles:
            continue
        flat, outlined = styles[FLAT], styles[OUTLINED]
        passage = seeded_choice(government, config.seed, "described", entity)
        name = seeded_choice(source.names, config.seed, "named", entity)
        facts = _rename(passage, name, source, held_out, config).partition(" Flag: ")[0]
        described = Item(f"{facts} Flag: {shorten(flat.candidate.names[0][1], FLAG_START)}.")
        yield _flag_question("starter-flag-question", passage, described, outlined, source, config)
        passage = seeded_choice(source.passages, config.seed, "beside", entity)
        illustrated = Item(_rename(passage, name, source, held_out, config), flat.image)
        yield _flag_question("starter-flag-question-illustrated", passage, illustrated, outlined, source, config)


def _flag_question(
    name: str,
    passage: Mapping[str, Any],
    positive: Item,
    flag: StoredPicture,
    source: TrainPassages,
    config: StarterDataConfig,
) -> Example:
    candidate = flag.candidate
    fact = seeded_choice(source.facts[passage["id"]], config.seed, "fact", name, candidate.entity)
    template = seeded_choice(source.deictic[fact["field"]], config.seed, "wording", name, candidate.entity)
    reference = seeded_choice(REFERENCES["train"], config.seed, "reference", name, candidate.entity)
    query, task_type = Item(template.format(reference=reference), flag.image), "IT->IT" if positive.image else "IT->T"
    return make_example(
        name, task_type, query, positive,
        candidate.entity_group, f"{fact['section']}/{fact['field']}",
        combine_licences(passage["licence"], source.name_licence, candidate.licence), None,
    )  # fmt: skip


def _rename(
    passage: Mapping[str, Any],
    name: str,
    source: TrainPassages,
    held_out: HeldOutEntities,
    config: StarterDataConfig,
) -> str:
    text = rename_place(passage["text"], passage["place_name"], name)
    neighbour = seeded_choice(source.names, config.seed, "neighbour", passage["id"], name)
    return held_out.replace_places(text, neighbour)
