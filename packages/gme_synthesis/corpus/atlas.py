"""Atlas as a corpus for the steps over any corpus: passages with their structured fields, flags as the picture bank.

The fields are gold: what a language model writes over these passages can be judged by them.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path

from gme_data.steps import Counts, StepContext
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.store import IMAGES, Caption, write_captions, write_passages
from gme_synthesis.value_config import AtlasPassagesConfig
from gme_synthesis.world import World, read_world


def import_atlas(config: AtlasPassagesConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write a split of the input `atlas` as a corpus; see `gme_synthesis.corpus.store`.

    Raises:
        FoundryError: The input is no Atlas.
    """
    world = read_world(inputs["atlas"], config.split)
    passages = list(passages_of(world))
    write_passages(context.staging, passages)
    write_captions(context.staging, sorted(captions_of(world), key=attrgetter("image")))
    shutil.copytree(inputs["atlas"] / "images", context.staging / IMAGES, dirs_exist_ok=True)
    return {"passages": len(passages)}


def passages_of(world: World) -> Iterator[Candidate]:
    """Every passage with the fields that stand in it."""
    facts: dict[str, dict[str, str]] = {}
    for fact in world.facts.values():
        facts.setdefault(fact.passage_id, {})[fact.field] = fact.value
    for id_ in sorted(world.passages):
        passage = world.passages[id_]
        place = world.places[passage.place_id]
        page = passage.page if passage.page in world.picture_licences else None
        yield Candidate(
            id=id_,
            text=passage.text,
            title=place.name,
            aliases=place.aliases,
            kind="country",
            domain="place",
            entity_group=place.entity_group,
            facts=facts.get(id_, {}),
            picture=passage.illustration or "",
            page=page or "",
            licence=passage.licence,
            source="atlas",
        )


def captions_of(world: World) -> Iterator[Caption]:
    """The flags by the names of their places."""
    for place in world.places.values():
        for image in place.flags.values():
            yield Caption(image, place.name, place.entity_group, world.picture_licences[image])
