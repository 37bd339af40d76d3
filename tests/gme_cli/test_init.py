"""`gme init` looks at a folder of data and writes a file that `gme pipeline` takes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.config import FilesPipeline, load_pipeline
from gme_cli.main import run
from gme_synthesis.corpus.survey import guess_columns, scripts_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "own-corpus"


def test_the_file_is_a_pipeline_over_the_data(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "flags.yaml"
    data = ["--passages", str(EXAMPLE / "passages.jsonl"), "--pictures", str(EXAMPLE / "pictures")]
    assert run(["init", "flags", *data, "--out", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "51 rows in 1 file" in shown
    assert "52 pictures" in shown
    config = load_pipeline(path)
    assert isinstance(config, FilesPipeline)
    assert config.corpus.columns == {"text": "body", "title": "name"}
    assert config.corpus.passages.resolve() == EXAMPLE / "passages.jsonl"
    assert config.synthesis.writer.kind == "rules"
    assert config.release.model_name == "gme-flags"
    assert run(["plan", "--config", str(path), "--workspace", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["reason"] == "never made"

    assert run(["init", "flags", *data, "--out", str(path)]) == 2
    assert "is there already" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["a: b", "ünder", "#", "on", "-x", 'quo"te', "line\nbreak: [", "nul\0", "*star", "null", "1e5"]
)
def test_columns_of_any_name_end_in_a_file_that_is_read_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({name: "A long text about something. " * 3, f"{name}2": "x"}))
    path = tmp_path / "own.yaml"
    code = run(["init", "on", "--passages", str(tmp_path / "p.jsonl"), "--out", str(path)])
    if "\0" in name:  # which no text of ours has
        assert code == 2
        assert "NUL" in capsys.readouterr().err
        assert not path.exists()
        return
    assert code == 0, capsys.readouterr().err
    config = load_pipeline(path)
    assert isinstance(config, FilesPipeline)
    assert config.corpus.columns == {"text": name}
    assert config.name == "on"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Flags"], "can't name a pipeline"),
        (["flags", "--encoding", "utf-9"], "Unknown encoding"),
        (["flags", "--pictures", "/none"], "no such folder"),
        (["flags", "--passages", "/none.jsonl"], "No such file"),
    ],
)
def test_what_can_not_be_looked_at_leaves_no_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    data = [] if "--passages" in arguments else ["--passages", str(EXAMPLE / "passages.jsonl")]
    assert run(["init", *arguments, *data, "--out", str(tmp_path / "x.yaml")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_table_without_texts_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "p.csv").write_text("a,b\n,\n")
    assert run(["init", "x", "--passages", str(tmp_path / "p.csv"), "--out", str(tmp_path / "x.yaml")]) == 2
    assert "no column holds texts. It has a, b." in capsys.readouterr().err


def test_the_likeliest_name_wins_and_the_longest_column_is_the_text() -> None:
    rows = [{"Body": "short", "content": "x" * 50, "NAME": "n", "other": "y" * 90}]
    assert guess_columns(list(rows[0]), rows) == {"text": "Body", "title": "NAME"}
    assert guess_columns(["u", "v"], [{"u": "ab", "v": "abc"}]) == {"text": "v"}
    assert scripts_of("Iris 菖蒲 Ирис") == [("LATIN", 0.4), ("CYRILLIC", 0.4), ("CJK", 0.2)]
