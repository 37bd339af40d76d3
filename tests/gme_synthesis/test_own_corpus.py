"""The page on one's own corpus, run as a stranger would: the example, from a folder of files to a scored model."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from gme_cli.main import run

ROOT = Path(__file__).parents[2]


def commands(page: str) -> list[list[str]]:
    """The `gme` lines of the page's shell blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("gme ")]


def own(workspace: Path) -> list[str]:
    return ["--config", str(ROOT / "examples" / "own-corpus" / "own.yaml"), "--workspace", str(workspace)]


def test_the_steps_of_the_page_run_alone_and_are_found_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    whole, *steps = commands("own-corpus.md")[:4]
    assert whole[0] == "pipeline"
    assert [step[:2] for step in steps] == [["corpus", "import"], ["synthesize", "--config"], ["validate", "--config"]]
    for step in steps:
        assert run(step) == 0, capsys.readouterr().err
    assert "51 passages, 52 pictures" in capsys.readouterr().out
    assert run([*steps[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] is True
    assert run([*whole, "--dry-run", "--json"]) == 0
    states = {state["name"]: state["state"] for state in json.loads(capsys.readouterr().out)}
    assert {name for name, state in states.items() if state == "done"} == {"corpus", "synthesize", "validate"}


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["synthesize"], "gme corpus import"),
        (["corpus", "import", "--set", "corpus.passages=/none/x.jsonl"], "No such file"),
        (["corpus", "import", "--set", "synthesis.writer.kind=endpoint"], "needs a section `endpoint`"),
        (["pipeline", "--set", "synthesis.serach.by=none"], "Did you mean 'search'"),
        (["corpus", "import", "--set", "corpus.kind=atlas"], "corpus.passages: unknown field"),
    ],
)
def test_mistakes_of_a_stranger_end_in_clear_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str], message: str
) -> None:
    assert run([*command, *own(tmp_path)]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "data").exists()


def test_the_default_world_is_not_imported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["corpus", "import", "--workspace", str(tmp_path)]) == 2
    assert "expected data of your own" in capsys.readouterr().err


def test_a_corpus_of_which_nothing_is_held_out_is_refused_before_it_is_trained_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    none = [*own(tmp_path), "--set", "synthesis.test=0", "--set", "synthesis.dev=0"]
    for step in (["corpus", "import"], ["synthesize"]):
        assert run([*step, *none]) == 0, capsys.readouterr().err
    assert run(["validate", *none]) == 2
    assert "no task was held out for test" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done_and_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["corpus", "import", *own(tmp_path), "--dry-run"]) == 0
    assert "corpus: run (never made)" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_the_code_on_the_page_about_synthesis_runs() -> None:
    text = (ROOT / "docs" / "synthesis.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(block, "docs/synthesis.md", "exec"), names)  # noqa: S102 - our own page
    (fused,) = names["fused"]  # type: ignore[misc]
    assert "this plant" in fused
    assert "Iris" not in fused
