"""The page on one's own corpus, run as a stranger would: the example, from a folder of files to a scored model."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from bad_server import asked_for, serve
from signal_flags import write

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
    pipeline, *steps = commands("own-corpus.md")[:4]
    assert pipeline[0] == "pipeline"
    assert [step[:2] for step in steps] == [["corpus", "import"], ["synthesize", "--config"], ["validate", "--config"]]
    for step in steps:
        assert run(step) == 0, capsys.readouterr().err
    assert "51 passages, 52 pictures" in capsys.readouterr().out
    assert run([*steps[1], "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["reused"] is True
    assert run([*pipeline, "--dry-run", "--json"]) == 0
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


def test_after_a_change_the_writer_is_asked_for_the_changed_passages_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One passage of 20 is changed, one is new and comes first, one is gone: three requests instead of forty."""
    example, passages = tmp_path / "own.yaml", tmp_path / "passages.jsonl"
    shutil.copytree(ROOT / "examples" / "own-corpus", tmp_path, dirs_exist_ok=True)
    rows = [json.loads(line) for line in passages.read_text(encoding="utf-8").splitlines()][2:22]
    passages.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    with serve(write) as stub:
        endpoint = json.dumps({"url": f"{stub.url}/v1", "model": "stub"})
        flags = ["--config", str(example), "--workspace", str(tmp_path / "work"), "--json"]
        flags += [
            "--set",
            "synthesis.render_pages=false",
            "--set",
            "synthesis.writer.kind=endpoint",
            "--set",
            f"synthesis.writer.endpoint={endpoint}",
        ]
        first = _synthesized(flags, capsys)
        requests = len(stub.asked)
        assert requests > 30
        changed = next(row for row in rows if row["id"] == "K-look")
        changed["body"] = "The signal flag Kilo is grey and pink. It was painted anew by a sailor with little time."
        body = "The signal flag Omega is purple and gold. No ship has ever hoisted it, as the code has no such letter."
        new = {"id": "new", "body": body, "name": "signal flag Omega", "kind": "signal flag", "entity_group": "Omega"}
        rows = [new, *(row for row in rows if row["id"] != "B-look")]
        passages.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        second = _synthesized(flags, capsys)
        texts = {asked_for(request) for request in stub.asked[requests:]}
    assert second["content"] != first["content"]
    about = sorted(next(name for name in ("Kilo", "Omega") if name in text) for text in texts)
    # Of both the passage, and the question about the new flag; that about the old one reads as it did.
    assert (len(stub.asked) - requests, about) == (3, ["Kilo", "Omega", "Omega"])


def _synthesized(flags: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    for step in (["corpus", "import"], ["synthesize"]):
        assert run([*step, *flags]) == 0, capsys.readouterr().err
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert not result["reused"]
    return result


def test_the_code_on_the_page_about_synthesis_runs() -> None:
    text = (ROOT / "docs" / "synthesis.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    names: dict[str, object] = {}
    exec(compile(block, "docs/synthesis.md", "exec"), names)  # noqa: S102 - our own page
    (fused,) = names["fused"]  # type: ignore[misc]
    assert "this plant" in fused
    assert "Iris" not in fused
