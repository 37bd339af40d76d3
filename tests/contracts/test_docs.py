"""The code in the documentation runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gme_cli.main import run
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

DOCS = Path(__file__).resolve().parents[2] / "docs"


def blocks(page: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def test_the_page_on_the_embedder_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "model")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "flag.png")
    monkeypatch.chdir(tmp_path)
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["Santiago", "Lima"]}), "corpus.parquet")
    (tmp_path / "mlflow-model").mkdir()
    shutil.copytree(tmp_path / "model", tmp_path / "mlflow-model" / "stage2")
    described = "flavors: {python_function: {artifacts: {model: {path: stage2}}}}"
    (tmp_path / "mlflow-model" / "MLmodel").write_text(described)
    assert run(["embed", "--input", "corpus.parquet", "--output", "vectors", "--model", "./model"]) == 0
    names: dict[str, object] = {}
    found = blocks("embedder.md")
    assert len(found) == 8
    for block in found:
        exec(compile(block, "docs/embedder.md", "exec"), names)  # noqa: S102 - our own page
    assert names["rows"].shape == (1, 2)  # type: ignore[attr-defined]
    expected = names["embedder"].encode([{"text": "Lima"}])  # type: ignore[attr-defined]
    np.testing.assert_allclose(names["documents_there"][:1], expected, atol=1e-5)  # type: ignore[index]
    np.testing.assert_allclose(names["queries_there"], names["queries"], atol=1e-5)


def test_the_page_on_training_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "model")
    (tmp_path / "photos").mkdir()
    for number, colour in enumerate(("red", "green", "blue", "white", "black", "orange", "pink", "brown")):
        Image.new("RGB", (60, 60), colour).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks("training.md"):
        exec(compile(block, "docs/training.md", "exec"), names)  # noqa: S102 - our own page
    assert names["counts"]["steps"] == 3  # type: ignore[index]
    assert Embedder.load(tmp_path / "stage1").encode(["x"]).shape[0] == 1
    events = (tmp_path / "logs" / "events.jsonl").read_text().splitlines()
    assert len(events) == 4


def test_the_way_to_the_first_loss_is_short_and_each_file_leads_to_the_next() -> None:
    page = (DOCS / "concepts.md").read_text(encoding="utf-8").partition("## From `gme pipeline` to the first loss")[2]
    files = re.findall(r"^\d+\. `([a-z_/]+\.py)`", page, re.MULTILINE)
    assert 10 < len(files) <= 14
    modules = [path.removesuffix(".py").replace("/", ".") for path in files]
    homes = [DOCS.parent / ("" if path.startswith("flows/") else "packages") for path in files]
    texts = [(home / path).read_text(encoding="utf-8") for home, path in zip(homes, files, strict=True)]
    for place, module in enumerate(modules[1:], start=1):
        leads = re.compile(rf"(from|import) {module}\b|\"{module}[:\"]")
        assert any(leads.search(text) for text in texts[:place]), f"no file before {module} leads to it"
