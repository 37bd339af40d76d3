"""A finished workspace in miniature: real manifests, a real safetensors model, scores in the report's format."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import yaml
from safetensors.numpy import save_file

from gme_data.digests import sha256_json
from gme_data.manifest import Manifest, content_digest, list_files, read_manifest, write_manifest
from gme_release.dvc.tracked_folders import TrackedFolder, VersionedOutputs
from gme_release.run_facts import RunFacts

OUTPUTS = {
    "corpus": "data/atlas",
    "synthesize": "data/synthetic",
    "train-2": "checkpoints/stage2",
    "evaluate": "runs/evaluation",
    "report": "runs/report",
}
RULES = {"above_baselines": ["untrained"], "min_type_queries": 20}
"""Of any pipeline."""
POLICY = {
    **RULES,
    "required_tasks": ["flag-i2i", "place-question-t2t"],
    "floors": [{"task": "place-question-t2t", "metric": "hit_rate_at_10", "min": 0.5}],
}
"""With what holds of one."""


def task_score(name: str, task_type: str, metric: str, value: float) -> dict[str, object]:
    return {
        "name": name,
        "task_type": task_type,
        "metric": metric,
        "value": value,
        "interval": [value - 0.1, value + 0.1],
        "scores": {"hit_rate_at_5": value, "hit_rate_at_10": value + 0.1},
        "queries": 20,
        "pool": 100,
        "baselines": {"untrained": 0.05, "random": 0.01},
    }


def good_scores() -> dict[str, object]:
    return {
        "model": "0" * 64,
        "tasks": [
            task_score("place-question-t2t", "T->T", "ndcg_at_10", 0.6),
            task_score("flag-i2i", "I->I", "hit_rate_at_5", 0.8),
        ],
        "types": {"T->T": 0.6, "I->I": 0.8},
        "overall": 0.7,
    }


def load_facts(root: Path) -> RunFacts:
    """The facts of a workspace that is there already."""
    manifests = {step: read_manifest(root / path) for step, path in OUTPUTS.items()}
    return facts_of(root, {step: manifest for step, manifest in manifests.items() if manifest})


def seal(folder: Path, step: str, inputs: dict[str, str] | None = None) -> Manifest:
    files = list_files(folder)
    manifest = Manifest(
        step=step,
        key=sha256_json([step, content_digest(files)]),
        config={},
        code="0" * 64,
        inputs=inputs or {},
        files=files,
        content=content_digest(files),
        counts={},
        seconds=1.0,
    )
    write_manifest(folder, manifest)
    return manifest


def write_model(folder: Path, seed: int) -> None:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "qwen2_vl", "text_config": {"hidden_size": 8}}))
    weights = np.random.default_rng(seed).standard_normal((64, 8)).astype(np.float32)
    save_file({"embed.weight": weights}, str(folder / "model-00001-of-00001.safetensors"))
    points = [{"stage": 2, "phase": "mix", "source": "flag", "step": n, "loss": 3.0 / n} for n in range(1, 6)]
    (folder / "curves.json").write_text(json.dumps({"series": points}))


def build_workspace(root: Path, seed: int = 0, scores: dict[str, object] | None = None) -> RunFacts:
    """All outputs of a finished run below `root`; equal arguments give equal bytes."""
    for path in OUTPUTS.values():
        shutil.rmtree(root / path, ignore_errors=True)
    manifests: dict[str, Manifest] = {}
    for step in ("corpus", "synthesize"):
        folder = root / OUTPUTS[step]
        folder.mkdir(parents=True)
        (folder / "examples.parquet.txt").write_bytes(np.random.default_rng(7).bytes(50_000))
        (folder / "README.md").write_text(f"{step}\n")
        manifests[step] = seal(folder, step)
    write_model(root / OUTPUTS["train-2"], seed)
    manifests["train-2"] = seal(root / OUTPUTS["train-2"], "train-2")
    (root / OUTPUTS["evaluate"]).mkdir(parents=True)
    (root / OUTPUTS["evaluate"] / "scores.json").write_text(json.dumps({"seed": seed}))
    model = manifests["train-2"].content
    manifests["evaluate"] = seal(root / OUTPUTS["evaluate"], "evaluate", {"model": model})
    report = root / OUTPUTS["report"]
    (report / "plots").mkdir(parents=True)
    (report / "report.html").write_text("<h1>Report</h1>")
    (report / "plots" / "loss.csv").write_text("step,loss\n1,3\n2,1.5\n")
    (report / "scores.json").write_text(json.dumps(scores or good_scores()))
    manifests["report"] = seal(report, "report", {"evaluation": manifests["evaluate"].content, "model": model})
    policy = root / "mlflow" / "promotion.yaml"
    policy.parent.mkdir(exist_ok=True)
    policy.write_text(yaml.safe_dump(RULES))
    return facts_of(root, manifests)


def facts_of(root: Path, manifests: dict[str, Manifest]) -> RunFacts:
    folders = (TrackedFolder("data", "a" * 32 + ".dir", 10, 2), TrackedFolder("checkpoints", "b" * 32 + ".dir", 10, 1))
    return RunFacts(
        name="tiny",
        config={"corpus": {"seed": 1}, "stage_2": {"lora": {"rank": 8}, "sources": ["flag"]}},
        manifests=manifests,
        outputs=OUTPUTS,
        workspace=root,
        versions=VersionedOutputs(folders, "../dvc-store"),
        tasks=("flag-i2i", "place-question-t2t"),
    )


def register_and_die(workspace: Path, method: str, when: str) -> None:
    """Register, but die by SIGKILL at the first call of a method of MLflow's client; what came before is done."""
    from mlflow import MlflowClient

    from gme_release.config import ReleaseConfig
    from gme_release.registry.registration import register

    original = getattr(MlflowClient, method)

    def dying(*args: object, **kwargs: object) -> None:
        if when == "after":
            original(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(MlflowClient, method, dying)
    register(workspace, ReleaseConfig(), load_facts(workspace))
