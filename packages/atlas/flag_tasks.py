"""Retrieval tasks about flags: the other drawing (I->I), the description (T->I, I->T), the map (IT->I).

A test pool has all places, a dev pool all but the test places. Where several places fly a flag, all of them are
relevant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from atlas.benchmark import BenchmarkQuery, TaskSpec, make_task
from atlas.choice import seeded_hash
from atlas.config import AtlasConfig
from atlas.drawings import OUTLINED, PLAIN
from atlas.edits import edit_text
from atlas.world import PlaceRow, World
from gme_data.items import Item
from gme_data.licences import combine_licences
from gme_data.tasks import Document, RetrievalTask

_METRIC = "hit_rate_at_5"
_RELEVANCE = "Every document of a place that flies this flag, in whichever drawing."


def flag_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """Yields the flag tasks of ``dev`` or ``test``."""
    builder = _FlagTaskBuilder(world, split)
    held_out = [place for place in builder.places if place.split == split]
    trained = [place for place in builder.places if place.split == "train"]
    outlined = builder.documents(lambda place: Item(image=place.flag_openmoji), OUTLINED)
    plain = builder.documents(lambda place: Item(image=place.flag_twemoji), PLAIN)
    descriptions = builder.documents(lambda place: Item(place.flag_description) if place.flag_description else None)
    maps = builder.documents(lambda place: Item(image=place.map) if place.map else None)
    yield make_task(
        TaskSpec(
            "flag-i2i", "I->I", _METRIC, "flag", "unseen",
            "A flat drawing of a flag; the outlined drawing of the same flag.", _RELEVANCE,
        ),
        outlined,
        [builder.query(place, Item(image=place.flag_twemoji), outlined) for place in held_out],
        config,
        split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "flag-description-t2i", "T->I", _METRIC, "flag-description", "unseen",
            "What a flag looks like, in words; its drawings in two styles.", _RELEVANCE,
        ),
        plain + outlined,
        [builder.query(p, Item(p.flag_description), plain + outlined) for p in held_out if p.flag_description],
        config,
        split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "flag-description-i2t", "I->T", _METRIC, "flag-description", "unseen",
            "A flat drawing of a flag; its description.", _RELEVANCE,
        ),
        descriptions,
        [builder.query(place, Item(image=place.flag_twemoji), descriptions) for place in held_out],
        config,
        split,
    )  # fmt: skip
    yield make_task(
        TaskSpec(
            "flag-map-seen-it2i", "IT->I", _METRIC, "flag-map", "seen",
            "An outlined flag and the wish for a map; the outline of the country.", _RELEVANCE,
        ),
        maps,
        [builder.map_query(place, maps, config.seed) for place in trained if place.map],
        config,
        split,
    )  # fmt: skip


class _FlagTaskBuilder:
    """Makes the documents and queries of one split."""

    def __init__(self, world: World, split: str) -> None:
        self._split = split
        self.places = [place for place in world.places if split == "test" or place.split != "test"]
        self._licences = world.picture_licences

    def documents(self, item_of: Callable[[PlaceRow], Item | None], suffix: str = "") -> list[Document]:
        """Returns one document per place for which `item_of` returns an item."""
        return [
            Document("-".join(filter(None, (p.place_id, suffix))), item, p.entity_group, self._licence(p, item))
            for p in self.places
            if (item := item_of(p))
        ]

    def query(self, place: PlaceRow, item: Item, corpus: list[Document]) -> BenchmarkQuery:
        """Returns a query about a place; the documents of its group are relevant.

        So are those of any group whose flag is described in the same words as the query.
        """
        groups = {
            place.entity_group,
            *(p.entity_group for p in self.places if item.text and item.text == p.flag_description),
        }
        relevant = frozenset(doc.id for doc in corpus if doc.entity_group in groups)
        licence = self._licence(place, item)
        return BenchmarkQuery(place.place_id, item, place.entity_group, place.region, licence, relevant)

    def map_query(self, place: PlaceRow, corpus: list[Document], seed: int) -> BenchmarkQuery:
        """Returns a query for the map of a place: an outlined flag and a text in the words of the split."""
        text = edit_text("map", self._split, "", seeded_hash(seed, "map", place.place_id))
        return self.query(place, Item(text, place.flag_openmoji), corpus)

    def _licence(self, place: PlaceRow, item: Item) -> str:
        licences = [place.licence] if item.text else []
        licences += [self._licences[item.image]] if item.image else []
        return combine_licences(*licences)
