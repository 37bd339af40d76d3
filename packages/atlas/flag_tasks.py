"""Retrieval tasks about flags: the other drawing (I->I), the description (T->I, I->T), the map (IT->I).

All places are searched; a dev pool leaves the test places out. Where several places fly a flag, all of them answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from atlas.benchmark import Asked, TaskPlan, make_task
from atlas.choice import rank
from atlas.config import AtlasConfig
from atlas.drawings import OUTLINED, PLAIN
from atlas.edits import wish
from atlas.licences import combine
from atlas.world import PlaceRow, World
from gme_data.items import Item
from gme_data.tasks import Document, RetrievalTask

_METRIC = "hit_rate_at_5"
_RELEVANCE = "Every document of a place that flies this flag, in whichever drawing."


def flag_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """The flag tasks of ``dev`` or ``test``."""
    wall = _Wall(world, split)
    own = [place for place in wall.places if place.split == split]
    trained_maps = [place for place in wall.places if place.split == "train" and place.map]

    def task(plan: TaskPlan, corpus: list[Document], asked: list[Asked]) -> RetrievalTask:
        return make_task(plan, corpus, asked, config, split)

    outlined = wall.documents(lambda place: Item(image=place.flag_openmoji), OUTLINED)
    plain = wall.documents(lambda place: Item(image=place.flag_twemoji), PLAIN)
    descriptions = wall.documents(lambda place: Item(place.flag_description) if place.flag_description else None)
    maps = wall.documents(lambda place: Item(image=place.map) if place.map else None)
    yield task(
        TaskPlan(
            "flag-i2i", "I->I", _METRIC, "flag", "unseen",
            "A flat drawing of a flag; the outlined drawing of the same flag.", _RELEVANCE,
        ),
        outlined,
        [wall.ask(place, Item(image=place.flag_twemoji), outlined) for place in own],
    )  # fmt: skip
    yield task(
        TaskPlan(
            "flag-description-t2i", "T->I", _METRIC, "flag-description", "unseen",
            "What a flag looks like, in words; its drawings in two styles.", _RELEVANCE,
        ),
        plain + outlined,
        [wall.ask(p, Item(p.flag_description), plain + outlined) for p in own if p.flag_description],
    )  # fmt: skip
    yield task(
        TaskPlan(
            "flag-description-i2t", "I->T", _METRIC, "flag-description", "unseen",
            "A flat drawing of a flag; its description.", _RELEVANCE,
        ),
        descriptions,
        [wall.ask(place, Item(image=place.flag_twemoji), descriptions) for place in own],
    )  # fmt: skip
    yield task(
        TaskPlan(
            "flag-map-seen-it2i", "IT->I", _METRIC, "flag-map", "seen",
            "An outlined flag and the wish for a map; the outline of the country.", _RELEVANCE,
        ),
        maps,
        [
            wall.ask(p, Item(wish("map", split, "", rank(config.seed, "map", p.place_id)), p.flag_openmoji), maps)
            for p in trained_maps
        ],
    )  # fmt: skip


class _Wall:
    """The places whose flags hang in one benchmark split."""

    def __init__(self, world: World, split: str) -> None:
        self.places = [place for place in world.places if split == "test" or place.split != "test"]
        self._licences = world.picture_licences

    def documents(self, item_of: Callable[[PlaceRow], Item | None], suffix: str = "") -> list[Document]:
        """One document per place that has the item."""
        return [
            Document("-".join(filter(None, (p.place_id, suffix))), item, p.entity_group, self._licence(p, item))
            for p in self.places
            if (item := item_of(p))
        ]

    def ask(self, place: PlaceRow, item: Item, corpus: list[Document]) -> Asked:
        """Every document of the place's group answers, and of any group that is described in the very words asked."""
        groups = {
            place.entity_group,
            *(p.entity_group for p in self.places if item.text and item.text == p.flag_description),
        }
        relevant = frozenset(doc.id for doc in corpus if doc.entity_group in groups)
        return Asked(place.place_id, item, place.entity_group, place.region, self._licence(place, item), relevant)

    def _licence(self, place: PlaceRow, item: Item) -> str:
        parts = [place.licence] if item.text else []
        parts += [self._licences[item.image]] if item.image else []
        return combine(*parts)
