"""Training examples made from the tables alone: drawings, names, flag descriptions and edits.

Questions about facts are synthesised later, from the same tables, by `gme_synthesis`.
"""

from __future__ import annotations

from collections.abc import Iterator

from atlas.choice import seeded_hash
from atlas.config import AtlasConfig
from atlas.drawings import STYLES
from atlas.edits import EDIT_TEMPLATES, edit_text, pictograph_edits
from atlas.instructions import INSTRUCTIONS
from atlas.world import PictographRow, PlaceRow, World
from gme_data.examples import Example
from gme_data.items import Item
from gme_data.licences import combine_licences

_TEMPLATES_PER_FLAG = 4
"""Examples of flag and map per place, each with a template of its own."""


def native_examples(world: World, config: AtlasConfig, split: str) -> list[Example]:
    """Returns the examples of ``train`` or ``dev``, sorted by id."""
    builder = _NativeExamples(world, config, split)
    examples = [
        *builder.pictographs(),
        *builder.pictograph_names(),
        *builder.edits(),
        *builder.flags(),
        *builder.flag_maps(),
    ]
    return sorted(examples, key=lambda example: example.id)


class _NativeExamples:
    """Builds the examples of one split, one method per kind of source."""

    def __init__(self, world: World, config: AtlasConfig, split: str) -> None:
        self._world, self._config, self._split = world, config, split
        self._places = [place for place in world.places if place.split == split]
        self._pictographs = [row for row in world.pictographs if row.split == split]

    def pictographs(self) -> Iterator[Example]:
        """Yields each style as the query for the other, for every pictograph and skin tone (I->I)."""
        for row in self._pictographs:
            for query, positive in (STYLES, STYLES[::-1]):
                yield self._example(
                    f"pictograph-{row.id}-{query}", "I->I", "pictograph", row,
                    Item(image=row.picture(query)), Item(image=row.picture(positive)), row.family,
                )  # fmt: skip

    def pictograph_names(self) -> Iterator[Example]:
        """Yields names as queries for drawings (T->I) and drawings as queries for the English name (I->T).

        The English name is paired with both styles, an alias or a name in another language with one of them.
        """
        for row in self._pictographs:
            if row.variant != "base":
                continue
            for number, (label, text) in enumerate(self._names_of(row)):
                # Alternating styles, so that neither style has all aliases or all names in other languages.
                styles = STYLES if label == "en" else (STYLES[(number + seeded_hash(self._config.seed, row.id)) % 2],)
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
        """Yields every edit once, tones in both styles; the other tones are the negatives (IT->I)."""
        for edit in pictograph_edits(self._pictographs):
            # The names that are hashed are part of the data: another word than "wish" would change every text.
            text = edit_text(edit.kind, self._split, edit.value, seeded_hash(self._config.seed, "wish", edit.id))
            yield self._example(
                f"pictograph-edit-{edit.id}", "IT->I", "pictograph-edit", edit.before,
                Item(text, edit.image), Item(image=edit.target), edit.before.base_id,
                tuple(Item(image=decoy) for decoy in edit.decoys),
            )  # fmt: skip

    def flags(self) -> Iterator[Example]:
        """Yields both drawings in both directions (I->I), and the description with each drawing (T->I and I->T)."""
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
                id_ = f"flag-description-{{}}-{place.place_id}-{style}"
                yield self._example(
                    id_.format("t2i"), "T->I", "flag-description", place, text, Item(image=picture), place.region
                )
                yield self._example(
                    id_.format("i2t"), "I->T", "flag-description", place, Item(image=picture), text, place.region
                )

    def flag_maps(self) -> Iterator[Example]:
        """Yields a flat flag with a text that asks for the map, in several wordings (IT->I)."""
        templates = EDIT_TEMPLATES["map"][self._split]
        for place in self._places:
            if place.map is None:
                continue
            start = seeded_hash(self._config.seed, "map", place.place_id)
            for number in range(min(_TEMPLATES_PER_FLAG, len(templates))):
                text = edit_text("map", self._split, "", start + number)
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
            licence=combine_licences(*licences),
            split=self._split,
        )
