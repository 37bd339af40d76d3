"""A small real Atlas, built once, and small made-up records."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
from support.shared import build_once

from atlas.build import build
from atlas.config import AtlasConfig
from gme_synthesis.records import Fact, Passage, Place
from gme_synthesis.world import World

# Helpers lie beside the tests, and the import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def small_atlas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_once(tmp_path_factory, "synthesis-atlas", partial(build, AtlasConfig(places=16, families=24)))


@pytest.fixture
def tiny_world() -> World:
    """Two places, a passage and a fact of each."""
    names = {"no": ("Norway", ("Kingdom of Norway",)), "gm": ("The Gambia", ("Gambia",))}
    places = {
        id_: Place(id_, name, aliases, f"place:{id_}", {"twemoji": f"{id_}-t", "openmoji": f"{id_}-o"}, "MIT")
        for id_, (name, aliases) in names.items()
    }
    capitals = {"no": "Oslo", "gm": "Banjul"}
    return World(
        places=places,
        passages={
            f"{id_}-p": Passage(
                f"{id_}-p", id_, "Government", f"{places[id_].name}. Capital: {city}.", f"{id_}-page", None, "CC0-1.0"
            )
            for id_, city in capitals.items()
        },
        facts={
            f"{id_}-f": Fact(f"{id_}-f", id_, "Government", "capital", city, f"{id_}-p", f"place:{id_}")
            for id_, city in capitals.items()
        },
        templates={"capital": ("What is the capital of {place}?", "{place}: capital?")},
        picture_licences={f"{id_}-{kind}": "CC-BY-4.0" for id_ in names for kind in ("t", "o", "page")},
    )
