"""The house stands as the design draws it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = {
    "atlas",
    "gme_cli",
    "gme_data",
    "gme_embedder",
    "gme_release",
    "gme_serve",
    "gme_synthesis",
    "gme_training",
    "gme_validation",
    "umrb",
}
SOURCES = sorted([*(ROOT / "packages").rglob("*.py"), *(ROOT / "flows").rglob("*.py")])
MAX_LINES = 500


def test_the_rooms_are_there() -> None:
    assert {
        path.name for path in (ROOT / "packages").iterdir() if path.is_dir() and path.name != "__pycache__"
    } == PACKAGES
    for name in ("configs", "flows", "mlflow", "tests", "benchmarks", "docs/decisions"):
        assert (ROOT / name).is_dir(), name
    for name in ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", "requirements.txt", "data.dvc", "dvc.yaml"):
        assert (ROOT / name).is_file(), name


def test_mlflow_folder_holds_no_python() -> None:
    # A Python file there could shadow the library of the same name.
    assert not list((ROOT / "mlflow").rglob("*.py"))


def test_distribution_ships_every_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    shipped = project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert {Path(path).name for path in shipped} == {*PACKAGES, "flows"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_source_files_are_small_and_say_what_they_are(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_LINES
    assert ast.get_docstring(ast.parse(text)), "a module opens with what it does"


def test_every_pin_is_exact_and_names_no_host() -> None:
    lines = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if not line.startswith("#")]
    assert len(lines) > 200
    for line in lines:
        assert "==" in line, line
        assert "/" not in line, line


def test_make_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "pipeline", "test", "test-slow", "check", "bench", "dashboard", "clean"):
        assert f"\n{target} " in f"\n{shown}", target


def test_dvc_yaml_has_no_stages() -> None:
    import yaml

    assert "stages" not in yaml.safe_load((ROOT / "dvc.yaml").read_text())


def test_ci_calls_make_test() -> None:
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_no_torch_with_the_data_contracts() -> None:
    code = "import gme_data.tasks, gme_data.examples, gme_data.steps, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
