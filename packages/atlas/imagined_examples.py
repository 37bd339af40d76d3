"""Training examples about imagined places: their flags, and passages of real places under their names and flags.

Their sources have names of their own (``imagined-...``), so that a mixture can weigh them against those of real places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from atlas.choice import T, seeded_choice
from atlas.config import AtlasConfig
from atlas.factbook import shorten
from atlas.fields import FLAG_START
from atlas.imagined import rename_place
from atlas.instructions import INSTRUCTIONS
from atlas.wordings import REFERENCES, Kind
from atlas.world import FactRow, ImaginedRow, PassageRow, World
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.licences import combine_licences

_FLAG_SECTION = "Government"
"""The section whose passages end with the description of the flag."""
_FLAG_LINE = " Flag: "


def imagined_examples(world: World, config: AtlasConfig) -> list[Example]:
    """Returns examples about every imagined place, sorted by id; all of them are of ``train``."""
    builder = _ImaginedExamples(world, config)
    examples = (example for place in world.imagined for example in builder.examples(place))
    return sorted(examples, key=lambda example: example.id)


class _ImaginedExamples:
    """Builds the examples of one place at a time, with passages and templates of the train split."""

    def __init__(self, world: World, config: AtlasConfig) -> None:
        self._licences, self._seed = world.picture_licences, config.seed
        self._passages = [passage for passage in world.passages if passage.split == "train"]
        self._government = [passage for passage in self._passages if passage.section == _FLAG_SECTION]
        self._illustrated = [passage for passage in self._passages if passage.section in config.illustrated_sections]
        self._facts: dict[str, list[FactRow]] = defaultdict(list)
        for fact in world.facts:
            self._facts[fact.passage_id].append(fact)
        self._templates: dict[tuple[str, Kind], list[str]] = defaultdict(list)
        for wording in world.wordings:
            if wording.split == "train":
                self._templates[wording.field, wording.kind].append(wording.template)

    def examples(self, place: ImaginedRow) -> Iterator[Example]:
        flat, outlined = Item(image=place.flag_flat), Item(image=place.flag_outlined)
        yield self._example("imagined-flag", "I->I", place, flat, outlined)
        yield self._example("imagined-flag-description", "T->I", place, Item(place.flag_description), flat, "flat")
        yield self._example(
            "imagined-flag-description", "T->I", place, Item(place.flag_description), outlined, "outlined"
        )
        yield self._flag_question(place)
        yield self._flag_question_illustrated(place)
        yield self._illustrated_question(place)

    def _flag_question(self, place: ImaginedRow) -> Example:
        """Returns an example whose passage only the flag identifies, since it describes the flag (IT->T)."""
        passage = self._choose(self._government, place, "described")
        facts = rename_place(passage.text, passage.place_name, place.name).partition(_FLAG_LINE)[0]
        text = f"{facts}{_FLAG_LINE}{shorten(place.flag_description, FLAG_START)}."
        return self._question("imagined-flag-question", "IT->T", place, passage, Item(text))

    def _flag_question_illustrated(self, place: ImaginedRow) -> Example:
        """Returns an example with any passage, beside the flag in the other style (IT->IT)."""
        passage = self._choose(self._passages, place, "beside")
        positive = Item(rename_place(passage.text, passage.place_name, place.name), place.flag_flat)
        return self._question("imagined-flag-question-illustrated", "IT->IT", place, passage, positive)

    def _illustrated_question(self, place: ImaginedRow) -> Example:
        """Returns an example whose document the name and the section identify, not its picture (T->IT)."""
        passage = self._choose(self._illustrated, place, "illustrated")
        picture = place.flag_flat if passage.section == _FLAG_SECTION else passage.illustration or place.flag_flat
        positive = Item(rename_place(passage.text, passage.place_name, place.name), picture)
        return self._question("imagined-illustrated-question", "T->IT", place, passage, positive)

    def _question(
        self, source: str, task_type: str, place: ImaginedRow, passage: PassageRow, positive: Item
    ) -> Example:
        fact = self._choose(self._facts[passage.id], place, "fact", source)
        kind: Kind = "named" if task_type.startswith("T->") else "deictic"
        template = self._choose(self._templates[fact.field, kind], place, "wording", source)
        if kind == "named":
            query = Item(template.replace("{place}", place.name))
        else:
            reference = self._choose(REFERENCES["train"], place, "reference", source)
            query = Item(template.replace("{reference}", reference), place.flag_outlined)
        key = f"{fact.section}/{fact.field}"
        example = self._example(source, task_type, place, query, positive, batch_key=key)
        return replace(example, answer=fact.value, licence=combine_licences(example.licence, passage.licence))

    def _choose(self, options: Sequence[T], place: ImaginedRow, *purpose: str) -> T:
        return seeded_choice(options, self._seed, *purpose, place.place_id)

    def _example(
        self,
        source: str,
        task_type: str,
        place: ImaginedRow,
        query: Item,
        positive: Item,
        suffix: str = "",
        *,
        batch_key: str = "imagined",
    ) -> Example:
        pictures = [self._licences[item.image] for item in (query, positive) if item.image]
        return Example(
            id="-".join(filter(None, (source, place.place_id, suffix))),
            task_type=task_type,
            source=source,
            instruction=INSTRUCTIONS[source],
            query=query,
            positive=positive,
            negatives=(),
            entity_group=place.entity_group,
            batch_key=batch_key,
            answer=None,
            licence=combine_licences(place.licence, *pictures),
            split="train",
        )
