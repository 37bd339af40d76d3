"""The training examples that Atlas writes itself: drawings, names, flag descriptions and edits.

Questions about facts are not here: they are synthesised from the tables.
"""

from __future__ import annotations

from collections.abc import Iterator

from atlas.choice import rank
from atlas.config import AtlasConfig
from atlas.drawings import STYLES
from atlas.edits import WISHES, pictograph_edits, wish
from atlas.instructions import INSTRUCTIONS
from atlas.licences import combine
from atlas.world import PictographRow, PlaceRow, World
from gme_data.examples import Example
from gme_data.items import Item

_WISHES_PER_TRAINED_FLAG = 4


def native_examples(world: World, config: AtlasConfig, split: str) -> list[Example]:
    """Examples of ``train`` or ``dev``, sorted by id."""
    maker = _Maker(world, config, split)
    examples = [*maker.pictographs(), *maker.pictograph_names(), *maker.edits(), *maker.flags(), *maker.flag_maps()]
    return sorted(examples, key=lambda example: example.id)


class _Maker:
    def __init__(self, world: World, config: AtlasConfig, split: str) -> None:
        self._world, self._config, self._split = world, config, split
        self._places = [place for place in world.places if place.split == split]
        self._pictographs = [row for row in world.pictographs if row.split == split]

    def pictographs(self) -> Iterator[Example]:
        """Both drawings of a thing, and of each of its skin tones, in both directions (I->I)."""
        for row in self._pictographs:
            for query, positive in (STYLES, STYLES[::-1]):
                yield self._example(
                    f"pictograph-{row.id}-{query}", "I->I", "pictograph", row,
                    Item(image=row.picture(query)), Item(image=row.picture(positive)), row.family,
                )  # fmt: skip

    def pictograph_names(self) -> Iterator[Example]:
        """Names, aliases and names in the trained languages; T->I to one drawing each, I->T from the English name."""
        for row in self._pictographs:
            if row.variant != "base":
                continue
            for number, (label, text) in enumerate(self._names_of(row)):
                styles = STYLES if label == "en" else (STYLES[(number + rank(self._config.seed, row.id)) % 2],)
                for style in styles:
                    yield self._example(
                        f"pictograph-name-t2i-{row.id}-{label}-{style}", "T->I", "pictograph-name", row,
                        Item(text), Item(image=row.picture(style)), label,
                    )  # fmt: skip
            for style in STYLES:
                yield self._example(
                    f"pictograph-name-i2t-{row.id}-{style}", "I->T", "pictograph-name", row,
                    Item(image=row.picture(style)), Item(row.name), "en",
                )  # fmt: skip

    def _names_of(self, row: PictographRow) -> list[tuple[str, str]]:
        names = {entry["lang"]: entry["name"] for entry in row.names}
        labelled = [("en", row.name)]
        labelled += [(f"alias{number}", alias) for number, alias in enumerate(row.aliases)]
        labelled += [(language, names[language]) for language in self._config.train_languages if language in names]
        return labelled

    def edits(self) -> Iterator[Example]:
        """Every wish once, tones in both styles; the other tones are the negatives (IT->I)."""
        for edit in pictograph_edits(self._pictographs):
            text = wish(edit.kind, self._split, edit.value, rank(self._config.seed, "wish", edit.id))
            yield self._example(
                f"pictograph-edit-{edit.id}", "IT->I", "pictograph-edit", edit.before,
                Item(text, edit.image), Item(image=edit.target), edit.before.base_id,
                tuple(Item(image=decoy) for decoy in edit.decoys),
            )  # fmt: skip

    def flags(self) -> Iterator[Example]:
        """Both drawings in both directions (I->I); description and each drawing in both directions (T->I, I->T)."""
        for place in self._places:
            pictures = dict(zip(STYLES, (place.flag_twemoji, place.flag_openmoji), strict=True))
            for query, positive in (STYLES, STYLES[::-1]):
                yield self._example(
                    f"flag-{place.place_id}-{query}", "I->I", "flag", place,
                    Item(image=pictures[query]), Item(image=pictures[positive]), place.region,
                )  # fmt: skip
            if not place.flag_description:
                continue
            text = Item(place.flag_description)
            for style, picture in pictures.items():
                name = f"flag-description-{{}}-{place.place_id}-{style}"
                yield self._example(
                    name.format("t2i"), "T->I", "flag-description", place, text, Item(image=picture), place.region
                )
                yield self._example(
                    name.format("i2t"), "I->T", "flag-description", place, Item(image=picture), text, place.region
                )

    def flag_maps(self) -> Iterator[Example]:
        """A flat flag and the wish for a map, in several wordings (IT->I)."""
        templates = WISHES["map"][self._split]
        for place in self._places:
            if place.map is None:
                continue
            start = rank(self._config.seed, "map", place.place_id)
            for number in range(min(_WISHES_PER_TRAINED_FLAG, len(templates))):
                text = wish("map", self._split, "", start + number)
                yield self._example(
                    f"flag-map-{place.place_id}-{number}", "IT->I", "flag-map", place,
                    Item(text, place.flag_twemoji), Item(image=place.map), place.region,
                )  # fmt: skip

    def _example(
        self,
        id_: str,
        task_type: str,
        source: str,
        entity: PlaceRow | PictographRow,
        query: Item,
        positive: Item,
        batch_key: str,
        negatives: tuple[Item, ...] = (),
    ) -> Example:
        items = (query, positive, *negatives)
        licences = [self._world.picture_licences[item.image] for item in items if item.image]
        licences += [entity.licence] if any(item.text for item in items) else []
        return Example(
            id=id_,
            task_type=task_type,
            source=source,
            instruction=INSTRUCTIONS[source],
            query=query,
            positive=positive,
            negatives=negatives,
            entity_group=entity.entity_group,
            batch_key=batch_key,
            answer=None,
            licence=combine(*licences),
            split=self._split,
        )
