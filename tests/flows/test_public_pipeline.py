"""The paper's recipes go the whole way in miniature: their own files and sets, in upstream schemas, of tiny sizes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from support.small import GME, Small

from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.registry import public_set
from gme_synthesis.public.unpack import unpack_pictures
from gme_synthesis.public.url_pictures import fetch_url_pictures

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2


class Recipe(Small):
    """A workspace and the recipe's file made small in it."""

    def command(self, *arguments: str) -> list[str]:
        return [
            str(GME),
            *arguments,
            "--config",
            str(self.workspace / "small.yaml"),
            "--workspace",
            str(self.workspace),
        ]


def load_upstream() -> ModuleType:
    """The writer of sets in their upstream schemas, which lies beside the tests of the sets."""
    path = ROOT / "tests" / "gme_synthesis" / "public_upstream.py"
    spec = importlib.util.spec_from_file_location("public_upstream", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(raw: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """The recipe with its own sets, sources, stages and optimizers; its sizes, folders and judges are others."""
    raw["corpus"] |= {
        "data": "public",
        "examples": None,
        "shares": None,
        "benchmarks": None,
        "test": 0.4,
        "dev": 0,
        "seed": 3,
    }
    raw["corpus"]["accept_licences"] = sorted({public_set(one["name"]).licence for one in raw["corpus"]["sets"]})
    for choice in raw["corpus"]["sets"]:
        choice.update({"rows": 12} if choice["name"] == "laion" else {})
    for name in ("stage_1", "stage_2"):
        stage = raw[name]
        stage |= {"base": {"model": str(workspace / "model")}, "ranks": 2, "checkpoint_every": 2}
        (phase,) = stage["phases"]
        shares = [share for share in phase["mixture"] if share.get("task_type") in (None, "IT->T", "T->I")]
        phase |= {"steps": STEPS, "mixture": [{**share, "batch_size": 4} for share in shares]}
        for share in phase["mixture"]:
            share.update({"negatives": 1} if share.get("negatives") else {})
    raw["mining"] |= {"top_k": 8, "negatives": 1}
    raw["baselines"] = {"systems": ["random", "bm25"], "starter": None, "scoring": {"resamples": 100}}
    raw["evaluation"] = {"scoring": {"resamples": 100}}
    raw["release"] = {"promotion": "promotion.yaml"}
    return raw


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gme-2b", "gme-7b"])
def test_the_recipe_ends_with_a_registered_model(name: str, tmp_path: Path) -> None:
    upstream = load_upstream()
    raw = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    for one in raw["corpus"]["sets"]:
        upstream.put_set(tmp_path / "public", tmp_path / "hub", one["name"])
    unpack_pictures(SetChoice(name="m-beir"), tmp_path / "public")
    answers = {f"https://example.org/{number}.png": upstream.picture(600 + number) for number in range(12)}
    fetch_url_pictures(
        SetChoice(name="laion", rows=12), tmp_path / "public", 3, lambda urls: [answers[u] for u in urls]
    )
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "model")
    (tmp_path / "promotion.yaml").write_text("above_baselines: []\n")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(small(raw, tmp_path)))

    recipe = Recipe(tmp_path)
    made = recipe.json("pipeline")
    assert (made["model"], made["version"]) == (name, "1")
    assert list(made["steps"]) == [
        *("corpus", "baselines", "validate", "train-1", "mine", "train-2", "evaluate", "report"),
    ]
    assert {"T->T", "T->I", "T->VD"} <= set(made["types"])
    report = json.loads((tmp_path / "data" / "pipelines" / name / "public" / "sets.json").read_text())
    assert all(one["taken"] for one in report["sets"])
    manifest = json.loads((tmp_path / "checkpoints" / "pipelines" / name / "stage2" / "_manifest.json").read_text())
    assert manifest["counts"]["steps"] == STEPS
    assert manifest["config"]["zero_stage"] == raw["stage_2"]["zero_stage"]
    assert all(step["reused"] for step in recipe.json("pipeline")["steps"].values())
