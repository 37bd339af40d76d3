"""The page on one's own corpus, run as a stranger would: the example, from a folder of files to a scored model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from gme_cli.main import run
from gme_embedder.embedder import Embedder

ROOT = Path(__file__).parents[2]


def commands(page: str) -> list[list[str]]:
    """The `gme` lines of the page's shell blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("gme ")]


def test_the_commands_of_the_page_lead_to_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    said = commands("own-corpus.md")
    assert [line[:2] for line in said[:3]] == [["corpus", verb] for verb in ("import", "synthesize", "train")]
    for line in said[:3]:
        assert run(line) == 0, capsys.readouterr().err
    shown = capsys.readouterr().out
    assert "51 passages, 52 pictures" in shown
    assert re.search(r"picture-question-it2t +hit_rate_at_5 +0\.\d{3}", shown)
    vectors = Embedder.load(tmp_path / "work" / "checkpoints" / "own").encode(["Which flag is red?"])
    assert vectors.shape[0] == 1
    assert run([*said[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] is True
    for line, steps in ((said[1], ["synthesize-corpus"]), (said[2], ["own-train-1", "own-evaluate"])):
        assert run([*line, "--dry-run", "--json"]) == 0
        planned = json.loads(capsys.readouterr().out)
        assert {one["state"] for one in planned} == {"done"}
        assert [one["name"] for one in planned if one["name"] in steps] == steps


def test_mistakes_of_a_stranger_end_in_clear_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = str(ROOT / "examples" / "own-corpus" / "own.yaml")
    work = ["--workspace", str(tmp_path)]
    assert run(["corpus", "synthesize", "--config", own, *work]) == 2
    assert "gme corpus import" in capsys.readouterr().err
    assert run(["corpus", "import", "--config", own, "--passages", str(tmp_path / "x.jsonl"), *work]) == 2
    assert "No such file" in capsys.readouterr().err
    assert run(["corpus", "import", "--config", own, "--set", "synthesis.writer.kind=endpoint", *work]) == 2
    assert "needs a section `endpoint`" in capsys.readouterr().err
    assert run(["corpus", "import", "--config", own, "--set", "synthesis.serach.by=none", *work]) == 2
    assert "Did you mean 'search'" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = str(ROOT / "examples" / "own-corpus" / "own.yaml")
    assert run(["corpus", "import", "--config", own, "--workspace", str(tmp_path), "--dry-run"]) == 0
    assert re.search(r"corpus-import +run +never made", capsys.readouterr().out)
    assert not list(tmp_path.iterdir())


def test_the_code_on_the_page_about_synthesis_runs() -> None:
    text = (ROOT / "docs" / "synthesis.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(block, "docs/synthesis.md", "exec"), names)  # noqa: S102 - our own page
    (fused,) = names["fused"]  # type: ignore[misc]
    assert "this plant" in fused
    assert "Iris" not in fused
