"""Stage 0 from data to the file that is shipped, and what is shipped now."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from support.shapes import make_examples
from support.small import CONFIG, Small

from flows.ship import LARGEST, ship
from flows.starter import StageZeroConfig, make_starter
from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.examples import write_examples
from gme_data.images import ImageStore, write_images
from gme_data.items import Item
from gme_data.settings import load_config
from gme_data.steps import StepContext
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.starter import WEIGHTS, shipped_digest
from gme_embedder.starter.shrink import SHRUNK
from gme_embedder.starter.weights import apply_starter

SMALL_MODEL = {"text_layers": 1, "tower": {"depth": 1, "width": 64, "heads": 2}}
RECIPE = {
    "corpus": yaml.safe_load(CONFIG.read_text())["corpus"],
    "synthesis": yaml.safe_load(CONFIG.read_text())["synthesis"],
    "stage_0": {
        "model": SMALL_MODEL,
        "ranks": 1,
        "lora": {"rank": 4},
        "phases": [
            {
                "name": "mix",
                "steps": 2,
                "distill": {},
                "mixture": [{"source": "shape", "batch_size": 8}, {"source": "place-question", "batch_size": 8}],
            }
        ],
    },
    "shrink": {"model": SMALL_MODEL, "rank": 4},
    "evaluation": {"scoring": {"tasks": ["flag-i2i"], "resamples": 100}},
}


def write_shapes(config: object, inputs: Mapping[str, Path], context: StepContext) -> dict[str, float]:
    """In place of the packages of the registries, which tests do not fetch."""
    examples, pictures = make_examples()
    write_images(context.staging / "images", pictures)
    write_examples(context.staging / "train", examples)
    (context.staging / "ATTRIBUTION.md").write_text("# Whom to name\n* Shapes, by the tests. CC0-1.0.\n")
    return {"examples": len(examples), "pictures": len(pictures), "refused": 7}


@pytest.mark.xdist_group("pipeline")
@pytest.mark.slow
def test_stage_0_ends_in_a_file_that_makes_a_fresh_model_the_trained_one(
    finished: tuple[Small, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    finished[0].copy(tmp_path, "data/atlas", "data/synthetic")  # the same recipe makes the same data
    monkeypatch.setattr("atlas.starter.step.run", write_shapes)
    config = StageZeroConfig.model_validate(RECIPE)
    made = make_starter(config, tmp_path, tmp_path / "downloads")
    package = tmp_path / "package"
    package.mkdir()
    path = ship(made, config, package)
    fresh = Embedder.fresh(ModelConfig.model_validate(SMALL_MODEL), seed=99)
    apply_starter(fresh.model.qwen, sha256_file(path), path)
    items = [Item("red circle"), Item(image=make_examples()[1][0].id)]
    images = ImageStore([made.extra.folder / "images"])
    found = fresh.encode(items, None, images)
    assert abs(found - Embedder.load(made.trained.folder).encode(items, None, images)).max() < 5e-3
    assert abs(found - Embedder.load(made.starter.folder).encode(items, None, images)).max() < 1e-5
    card = (package / "README.md").read_text()
    assert sha256_file(path) in card
    assert "| I->I | flag-i2i |" in card
    assert "Shapes, by the tests" in card
    assert load_config(package / "recipe.yaml", StageZeroConfig) == config

    again = make_starter(config, tmp_path, tmp_path / "downloads")
    assert all(one.reused for one in (again.extra, again.trained, again.starter, again.scores))

    monkeypatch.setattr("flows.ship.LARGEST", 1000)
    with pytest.raises(FoundryError, match="may be shipped"):
        ship(made, config, package)
    shutil.copy(package / "README.md", tmp_path)
    (made.starter.folder / SHRUNK).write_bytes(b"other")
    with pytest.raises(FoundryError, match="not the starter"):
        apply_starter(fresh.model.qwen, sha256_file(path), made.starter.folder / SHRUNK)


def test_the_shipped_starter_is_the_one_of_its_card_and_recipe():
    package = WEIGHTS.parent
    assert WEIGHTS.stat().st_size <= LARGEST
    assert shipped_digest() in (package / "README.md").read_text()
    recipe = load_config(package / "recipe.yaml", StageZeroConfig)
    assert recipe == load_config(Path("configs/starter.yaml"), StageZeroConfig)
    model = Embedder.fresh(ModelConfig(starter="shipped"), seed=5)
    assert model.encode([Item("a red apple")], None, None).shape == (1, model.dimension)
