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

from gme_data.scores import read_report_scores
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.registry import public_set
from gme_synthesis.public.unpack import unpack_pictures
from gme_synthesis.public.url_pictures import fetch_url_pictures

ROOT = Path(__file__).resolve().parents[2]
STEPS = 2
FLAGS = ROOT / "examples" / "own-corpus"
JUDGES = ("SciFact", "VisualNewsT2IRetrieval")


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


def load_upstream(path: str) -> ModuleType:
    """The writer of data in their upstream schemas, which lies beside other tests."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / "tests" / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def small(raw: dict[str, Any], workspace: Path) -> dict[str, Any]:
    """The recipe with its own sets, sources, stages and optimizers; its sizes, folders and judges are others."""
    public, wiki = (raw["corpora"][name]["corpus"] for name in ("public", "wiki"))
    public |= {
        "data": "public",
        "examples": None,
        "shares": None,
        "benchmarks": None,
        "test": 0.4,
        "dev": 0,
        "seed": 3,
    }
    public["accept_licences"] = sorted({public_set(one["name"]).licence for one in public["sets"]})
    for choice in public["sets"]:
        choice.update({"rows": 12} if choice["name"] == "laion" else {})
    own = yaml.safe_load((ROOT / "examples" / "own-corpus" / "own.yaml").read_text())
    wiki |= {**own["corpus"], "passages": str(FLAGS / "passages.jsonl"), "pictures": str(FLAGS / "pictures")}
    raw["corpora"]["wiki"]["synthesis"] = own["synthesis"]
    raw["join"] = {}
    for name in ("stage_1", "stage_2"):
        stage = raw[name]
        stage |= {"base": {"model": str(workspace / "model")}, "ranks": 2, "checkpoint_every": 2}
        (phase,) = stage["phases"]
        shares = [share for share in phase["mixture"] if share.get("task_type") in (None, "IT->T", "T->I")]
        phase |= {"steps": STEPS, "mixture": [{**share, "batch_size": 4} for share in shares]}
        for share in phase["mixture"]:
            share.update({"num_negatives": 1} if share.get("num_negatives") else {})
    raw["mining"] |= {"range_max": 8, "num_negatives": 1}
    raw["baselines"] |= {"starter": None}
    (suite,) = raw["evaluation"]["suites"]
    judges = {**suite, "datasets": list(JUDGES), "data": str(workspace / "umrb")}
    scoring = {"resamples": 100, "allow_defects": True}  # far too small for what the registry says of them
    raw["evaluation"] |= {"suites": ["held-out", judges], "scoring": scoring, "device": "cpu"}
    raw["release"] = {"promotion": "promotion.yaml"}
    return raw


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gme-2b", "gme-7b"])
def test_the_recipe_ends_with_a_registered_model(name: str, tmp_path: Path) -> None:
    upstream = load_upstream("gme_synthesis/public_upstream.py")
    raw = yaml.safe_load((ROOT / "configs" / f"{name}.yaml").read_text())
    for task in JUDGES:
        load_upstream("umrb/upstream.py").write_task(tmp_path / "umrb", task)
    for one in raw["corpora"]["public"]["corpus"]["sets"]:
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
        *("public.corpus", "wiki.corpus", "wiki.synthesize", "wiki.validate", "corpus"),
        *("baselines", "validate", "train-1", "mine", "train-2", "evaluate", "report"),
    ]
    scores = read_report_scores(tmp_path / "reports" / "latest")
    assert {task.name for task in scores.tasks if task.suite == "umrb"} == set(JUDGES)
    assert all("untrained" in task.baselines for task in scores.tasks), "the base model is what is untrained"
    (table,) = scores.suites
    assert (table.suite, len(table.datasets), table.complete) == ("umrb", 47, False)
    home = tmp_path / "data" / "pipelines" / name
    assert all(one["taken"] for one in json.loads((home / "public" / "sets.json").read_text())["sets"])
    joined = json.loads((home / "joined" / "_manifest.json").read_text())["counts"]
    assert joined["examples of public"] / joined["examples of wiki"] == pytest.approx(4.9 / 1.1, rel=0.1)
    manifest = json.loads((tmp_path / "checkpoints" / "pipelines" / name / "stage2" / "_manifest.json").read_text())
    assert manifest["counts"]["steps"] == STEPS
    assert manifest["config"]["zero_stage"] == raw["stage_2"]["zero_stage"]
    assert all(step["reused"] for step in recipe.json("pipeline")["steps"].values())
