"""The README is short, its Python runs, and its tables are those that `make readme` writes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TASKS = [
    {"name": "a-t2i", "task_type": "T->I", "value": 0.5, "baselines": {"starter": 0.6, "BM25": 0.1}},
    {"name": "b-t2i", "task_type": "T->I", "value": 0.7, "baselines": {"starter": 0.4}},
    {"name": "c-t2vd", "task_type": "T->VD", "value": 0.2, "baselines": {"starter": 0.2}},
]


def test_it_is_short() -> None:
    assert len(README.split()) < 800


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(tmp_path / "checkpoints" / "stage2")
    Image.new("RGB", (60, 60), "red").save(tmp_path / "photo.png")
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own page
    printed = capsys.readouterr().out
    assert len(re.findall(r"-?\d\.\d+", printed)) == 2, printed


def test_make_readme_writes_both_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import update_readme as module

    pages = {"README.md": "types", "docs/results.md": "scores"}
    for page in pages:
        (tmp_path / page).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / page, tmp_path / page)
    (tmp_path / "scores.json").write_text(json.dumps({"tasks": [whole(task) for task in TASKS]}))
    monkeypatch.setattr(module, "SCORES", tmp_path / "scores.json")
    monkeypatch.setattr(module, "TABLE_OF_TYPES", (tmp_path / "README.md", "types"))
    monkeypatch.setattr(module, "TABLE_OF_TASKS", (tmp_path / "docs" / "results.md", "scores"))
    assert module.main() == 0
    types, tasks = (table(tmp_path / page, name) for page, name in pages.items())
    assert types == [
        ["T→I", "2", "20", "**0.600**", "starter 0.500"],  # BM25 has no score of the other task
        ["T→VD", "1", "10", "0.200", "**starter 0.200**"],
    ]
    assert [row[1:4] for row in tasks] == [
        ["a-t2i", "R@5", "0.500 [0.40, 0.60]"],
        ["b-t2i", "R@5", "**0.700 [0.40, 0.60]**"],
        ["c-t2vd", "R@5", "0.200 [0.40, 0.60]"],
    ]
    for page in pages:
        assert outside(tmp_path / page) == outside(ROOT / page)


def whole(task: dict[str, Any]) -> dict[str, Any]:
    scores = {"hit_rate_at_1": 0.1, "hit_rate_at_10": 0.9}
    return {**task, "metric": "hit_rate_at_5", "interval": [0.4, 0.6], "scores": scores, "queries": 10, "pool": 20}


def table(page: Path, name: str) -> list[list[str]]:
    text = page.read_text(encoding="utf-8").split(f"<!-- {name}: begin -->")[1].split(f"<!-- {name}: end -->")[0]
    return [[cell.strip() for cell in line.strip("| ").split("|")] for line in text.strip().splitlines()[2:]]


def outside(page: Path) -> list[str]:
    """The text before the table and behind it."""
    return re.split(r"<!-- \w+: begin -->.*<!-- \w+: end -->", page.read_text(encoding="utf-8"), flags=re.DOTALL)
