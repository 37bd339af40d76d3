"""The terminal's manners: fast help, clear errors, exit codes, JSON alone on standard output."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
from cyclopts import App

from gme_cli.main import app, run

ROOT = Path(__file__).resolve().parents[2]
GME = Path(sys.executable).parent / "gme"
CONFIG = ROOT / "configs" / "tiny.yaml"
PIPELINE_OPTIONS = {"--config", "--set"}
SHARED_OPTIONS = {*PIPELINE_OPTIONS, "--workspace", "--json", "--dry-run"}
FEWER_OPTIONS: dict[str, set[str]] = {
    "plan": SHARED_OPTIONS - {"--dry-run"},
    "doctor": SHARED_OPTIONS - {"--dry-run"},
    "data verify": SHARED_OPTIONS - {"--dry-run"},
    "corpus fetch": SHARED_OPTIONS - {"--workspace"},
    "data plan": {*PIPELINE_OPTIONS, "--json"},
    "starter": {*PIPELINE_OPTIONS, "--workspace"},
    "study": {"--set", "--workspace"},
    "slots": {"--workspace", "--json"},
    "release verify": {"--workspace", "--json"},
    "dashboard": {"--workspace", "--dry-run"},
    "schedules": {"--workspace", "--dry-run"},
    "nearest": {"--json", "--dry-run"},
    "umrb fetch": {"--json", "--dry-run"},
    "atlas show": {"--workspace"},
    "init": {"--json"},
    "data list": {"--json"},
    "release diff": {"--json"},
    "umrb compare": {"--json"},
    "umrb list": {"--json"},
    "umrb plan": {"--json"},
    "umrb report": {"--json"},
    "umrb verify": {"--json"},
    "schema": set(),
    "release key": set(),
    "release publish": set(),
    "release reproduce": set(),
}
"""Which of the shared options a verb has, where it can't honour all of them."""


def verbs(group: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, App]]:
    """Every verb of the command, with those of its groups."""
    for name in group:
        if name.startswith("-"):
            continue
        if group[name].default_command:
            yield " ".join((*path, name)), group[name]
        else:
            yield from verbs(group[name], (*path, name))


VERBS = dict(verbs())


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
        assert f" {verb.partition(' ')[0]} " in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_the_options_that_it_honours(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*verb.split(), "--help"]) == 0
    assert f"gme {verb}" in capsys.readouterr().out
    names = {name for argument in VERBS[verb].assemble_argument_collection() for name in argument.names}
    assert names & SHARED_OPTIONS == FEWER_OPTIONS.get(verb, SHARED_OPTIONS)


@pytest.mark.parametrize(
    "command",
    [
        ("promote", "1"),
        ("rollback",),
        ("release", "create", "v1", "--key", "none.pem"),
        ("evaluate", "--suite", "umrb"),
        ("umrb", "fetch", "--dataset", "SciFact"),
        ("mine",),
        ("pipeline",),
    ],
    ids=" ".join,
)
def test_a_dry_run_prints_json_alone_and_does_nothing(command: tuple[str, ...], tmp_path: Path) -> None:
    options = [] if command[0] == "umrb" else ["--config", str(CONFIG), "--workspace", str(tmp_path)]
    completed = gme(*command, *options, "--dry-run", "--json")
    assert completed.returncode == 0, completed.stderr
    assert json.loads(completed.stdout)
    assert not list(tmp_path.iterdir())


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
