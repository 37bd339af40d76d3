"""Stage 0 from data to the file that is shipped, and what is shipped now."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from support.shapes import make_examples
from support.small import CONFIG

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
from research.starter.chain import StageZeroConfig, make_starter
from research.starter.ship import MAX_BYTES, ship

ROOT = Path(__file__).resolve().parents[3]
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


@pytest.mark.slow
def test_stage_0_ends_in_a_file_that_makes_a_fresh_model_the_trained_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("research.starter.step.run", write_shapes)
    config = StageZeroConfig.model_validate(RECIPE)
    outcomes = make_starter(config, tmp_path, tmp_path / "downloads")
    package = tmp_path / "package"
    package.mkdir()
    path = ship(outcomes, config, package)
    fresh = Embedder.fresh(ModelConfig.model_validate(SMALL_MODEL), seed=99)
    apply_starter(fresh.model.qwen, sha256_file(path), path)
    items = [Item("red circle"), Item(image=make_examples()[1][0].id)]
    images = ImageStore([outcomes.extra.folder / "images"])
    vectors = fresh.encode(items, None, images)
    assert abs(vectors - Embedder.load(outcomes.trained.folder).encode(items, None, images)).max() < 5e-3
    assert abs(vectors - Embedder.load(outcomes.starter.folder).encode(items, None, images)).max() < 1e-5
    card = (package / "README.md").read_text()
    assert sha256_file(path) in card
    assert "| I->I | flag-i2i |" in card
    assert "Shapes, by the tests" in card
    assert load_config(package / "recipe.yaml", StageZeroConfig) == config

    repeated = make_starter(config, tmp_path, tmp_path / "downloads")
    assert all(o.reused for o in (repeated.extra, repeated.trained, repeated.starter, repeated.scores))

    monkeypatch.setattr("research.starter.ship.MAX_BYTES", 1000)
    with pytest.raises(FoundryError, match="may be shipped"):
        ship(outcomes, config, package)
    shutil.copy(package / "README.md", tmp_path)
    (outcomes.starter.folder / SHRUNK).write_bytes(b"other")
    with pytest.raises(FoundryError, match="not the starter"):
        apply_starter(fresh.model.qwen, sha256_file(path), outcomes.starter.folder / SHRUNK)


def test_the_shipped_starter_is_the_one_of_its_card_and_recipe():
    package = WEIGHTS.parent
    assert WEIGHTS.stat().st_size <= MAX_BYTES
    assert shipped_digest() in (package / "README.md").read_text()
    recipe = load_config(package / "recipe.yaml", StageZeroConfig)
    assert recipe == load_config(ROOT / "research" / "starter.yaml", StageZeroConfig)
    model = Embedder.fresh(ModelConfig(starter="shipped"), seed=5)
    assert model.encode([Item("a red apple")], None, None).shape == (1, model.dimension)


def test_a_dry_run_lists_the_steps_and_runs_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "research.starter", "--dry-run", "--workspace", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    steps = [line.split()[1] for line in done.stdout.splitlines()]
    assert steps == ["corpus", "synthesize", "starter-data", "train-0", "starter", "starter-scores"]
    assert list(tmp_path.iterdir()) == []
