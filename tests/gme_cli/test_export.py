"""`gme export` on a real folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gme_cli.main import run
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(folder)
    return folder


def test_a_folder_for_sentence_transformers(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert run(["export", "--model", str(model), "--output", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == "sentence-transformers"
    assert (output / "modules.json").is_file()
    assert run(["export", "--model", str(model), "--output", str(output)]) == 2
    assert "exists already" in capsys.readouterr().err


def test_adapters_need_their_base(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ["--output", str(tmp_path / "out")]
    assert run(["export", "--model", str(model), "--format", "adapter", *output]) == 2
    assert "--base and --rank" in capsys.readouterr().err
    assert run(["export", "--model", str(model), "--format", "adapter", "--base", str(model), "--rank", "8", *output])
    assert "nothing to adapt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_plan_alone(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["export", "--model", str(model), "--output", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "Would write" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
