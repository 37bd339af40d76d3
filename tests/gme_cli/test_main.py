"""The terminal's manners: fast help, clear errors, exit codes, JSON alone on standard output."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from gme_cli.main import run

ROOT = Path(__file__).resolve().parents[2]
GME = Path(sys.executable).parent / "gme"
CONFIG = ROOT / "configs" / "tiny.yaml"
VERBS = [
    "pipeline",
    "plan",
    "atlas",
    "synthesize",
    "validate",
    "train",
    "mine",
    "baselines",
    "embed",
    "export",
    "nearest",
    "serve",
    "evaluate",
    "report",
    "register",
    "search",
    "dashboard",
    "doctor",
    "schema",
]


def gme(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What the command says and ends with; in this process, since the start of another takes seconds."""
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as errors:
        try:
            status = run(list(arguments))
        except SystemExit as exit_:
            status = int(exit_.code or 0)
    return subprocess.CompletedProcess(arguments, status, out.getvalue(), errors.getvalue())


def test_the_command_ends_with_the_status_of_its_error(tmp_path: Path) -> None:
    command = [GME, "plan", "--json", "--config", tmp_path / "none.yaml"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.yaml" in json.loads(done.stdout)["error"]
    assert "none.yaml" in done.stderr


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from gme_cli.main import run; run(['--help'])\n"
        "heavy = {'torch', 'prefect', 'mlflow', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported for --help: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in VERBS:
        assert f" {verb} " in done.stdout


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb != "atlas"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([verb, "--help"]) == 0
    assert "--config" in capsys.readouterr().out or verb == "schema"


def test_typos_are_corrected() -> None:
    done = gme("pipelin")
    assert done.returncode != 0
    assert "pipeline" in done.stdout + done.stderr
    done = gme("evaluate", "--confg", "x")
    assert done.returncode != 0
    assert "--config" in done.stdout + done.stderr


def test_config_typo_is_named_with_a_suggestion(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(CONFIG.read_text().replace("stage_2:", "stage2:"))
    done = gme("plan", "--config", str(path))
    assert done.returncode == 2
    assert "stage2: unknown field. Did you mean 'stage_2'?" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_step_without_its_input_says_what_to_run(tmp_path: Path) -> None:
    done = gme("synthesize", "--config", str(CONFIG), "--workspace", str(tmp_path))
    assert done.returncode == 2
    assert "data/atlas has not been made" in done.stderr
    assert "gme atlas build" in done.stderr


def test_plan_of_an_empty_workspace(tmp_path: Path) -> None:
    done = gme("plan", "--json", "--config", str(CONFIG), "--workspace", str(tmp_path))
    assert done.returncode == 0, done.stderr
    planned = json.loads(done.stdout)
    assert [item["name"] for item in planned][:2] == ["corpus", "synthesize"]
    assert {item["state"] for item in planned} == {"run"}


def test_errors_are_json_too_when_asked(tmp_path: Path) -> None:
    done = gme("plan", "--json", "--config", str(tmp_path / "none.yaml"))
    assert done.returncode == 2
    assert "none.yaml" in json.loads(done.stdout)["error"]


def test_unwritable_workspace_is_refused_before_any_work() -> None:
    done = gme("pipeline", "--config", str(CONFIG), "--workspace", "/proc/nowhere")
    assert done.returncode == 1
    assert "can't be written" in done.stderr
    assert "Traceback" not in done.stderr


def test_missing_package_names_the_extra(tmp_path: Path) -> None:
    code = "import sys; sys.modules['flows.config'] = None\nfrom gme_cli.main import run; sys.exit(run(['plan']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "is not installed" in done.stderr
    assert "make setup" in done.stderr


def test_search_without_a_query_is_refused() -> None:
    done = gme("search")
    assert done.returncode == 2
    assert "Nothing to search for" in done.stderr


def test_doctor_speaks_json(tmp_path: Path) -> None:
    done = gme("doctor", "--json", "--workspace", str(tmp_path))
    findings = {finding["what"]: finding for finding in json.loads(done.stdout)}
    assert findings["packages"]["state"] == "ok", findings["packages"]
    assert findings["workspace"]["state"] == "ok"
    assert done.returncode == 0


def test_doctor_fails_on_an_unwritable_workspace() -> None:
    done = gme("doctor", "--workspace", "/proc/nowhere")
    assert done.returncode == 1
    assert "✗ workspace" in done.stdout
