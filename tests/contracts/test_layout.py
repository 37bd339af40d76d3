"""The checker of the layout finds what is planted, and the small contracts that it takes a process to see hold."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from contracts.layout import FILES, FOLDERS, MAX_LINES, PACKAGES, ROOT, violations


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """The least that the checker is content with."""
    for name in (*FOLDERS, ".ci", *(f"packages/{package}" for package in PACKAGES)):
        (tmp_path / name).mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / ".ci" / "run", tmp_path / ".ci")
    (tmp_path / "flows" / "chain.py").write_text('"""The chain."""\n')
    assert list(violations(tmp_path)) == []
    return tmp_path


def append(name: str, text: str) -> Callable[[Path], object]:
    def plant(house: Path) -> None:
        (house / name).write_text((house / name).read_text() + text if (house / name).exists() else text)

    return plant


def edit(name: str, old: str, new: str) -> Callable[[Path], object]:
    def plant(house: Path) -> None:
        assert old in (house / name).read_text()
        (house / name).write_text((house / name).read_text().replace(old, new, 1))

    return plant


@pytest.mark.parametrize(
    ("plant", "told"),
    [
        (lambda house: (house / "packages" / "umrb").rmdir(), "packages/umrb: is missing"),
        (lambda house: (house / "packages" / "helpers").mkdir(), "packages/helpers: is not one of the packages"),
        (lambda house: (house / "benchmarks").rmdir(), "benchmarks: is missing"),
        (lambda house: (house / "data.dvc").unlink(), "data.dvc: is missing"),
        (append("mlflow/entities.py", '"""Entities."""\n'), "mlflow/entities.py: a Python file here could shadow"),
        (append("flows/chain.py", "#\n" * MAX_LINES), f"flows/chain.py: {MAX_LINES + 1} lines, more than {MAX_LINES}"),
        (append("packages/atlas/world.py", "WORLD = 1\n"), "packages/atlas/world.py: a module opens with a docstring"),
        (append("research/recipe.py", "RECIPE = 1\n"), "research/recipe.py: a module opens with a docstring"),
        (
            append("flows/chain.py", "import json\nNOTHING = json.loads('{}')\n"),
            "flows/chain.py:3: reads with json.loads, and not by the door in packages/gme_data/structured.py",
        ),
        (append("flows/chain.py", "Kind.model_validate_json(text)\n"), "reads with Kind.model_validate_json"),
        (append("requirements.txt", "torch>=2\n"), "'torch>=2' is no exact version"),
        (append("requirements.txt", "torch==2 @ https://host/x\n"), "names a host or a path"),
        (append("dvc.yaml", "stages: {}\n"), "dvc.yaml: has stages"),
        (
            edit("Makefile", "EXTRAS := atlas", "EXTRAS := cloud atlas"),
            "EXTRAS names cloud, which pyproject.toml",
        ),
        (edit("Makefile", "EXTRAS :=", "OTHERS :="), "Makefile: names no EXTRAS"),
        (
            edit("requirements.txt", "diffusers==", "diffuser=="),
            "lacks diffusers of the extra synthesis: make requirements",
        ),
        (edit("pyproject.toml", '  "packages/umrb",\n', ""), "pyproject.toml: the wheel lacks umrb"),
        (lambda house: (house / ".ci" / "run").write_text("pytest\n"), ".ci/run: does not call `make test`"),
    ],
)
def test_what_is_planted_is_told(plant: Callable[[Path], object], told: str, house: Path) -> None:
    plant(house)
    assert [line for line in violations(house) if told in line], list(violations(house))
    assert len(list(violations(house))) == 1


def dry_run(target: str) -> str:
    """What make would do for it; also where these tests are run by a make of their own."""
    command = ["make", "--no-print-directory", "-n", target]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


def test_make_help_lists_the_targets() -> None:
    shown = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "pipeline", "test", "test-slow", "hardening", "check", "bench", "dashboard", "clean"):
        assert f"\n{target} " in f"\n{shown}", target


def test_make_check_runs_every_check_and_make_test_begins_with_it() -> None:
    check, test = dry_run("check"), dry_run("test")
    for command in ("ruff check .", "ruff format --check .", "mypy", "lint-imports", "tests/contracts/layout.py"):
        assert command in check, command
    assert check.strip().splitlines()[-1] in test
    assert "pytest" in test.strip().splitlines()[-1]


def test_no_torch_with_the_data_contracts() -> None:
    code = "import gme_data.tasks, gme_data.examples, gme_data.steps, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
