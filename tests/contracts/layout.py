"""The house stands as the design draws it; run as a script, for `make check`, it lists what does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import TypeGuard

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

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
FOLDERS = ("configs", "flows", "research", "mlflow", "tests", "benchmarks", "docs/decisions")
SOURCES = ("packages", "flows", "research")
"""Folders of code; research is in the checkout alone, not in the wheel."""
PINNED_IN = {"EXTRAS": "requirements.txt", "SLOW_EXTRAS": "requirements-slow.txt"}
FILES = ("README.md", "CHANGELOG.md", "Makefile", "pyproject.toml", *PINNED_IN.values(), "data.dvc", "dvc.yaml")
MAX_LINES = 500
READER = "packages/gme_data/structured.py"
OTHER_READERS = {"json.load", "json.loads", "pydantic_core.from_json", "yaml.load", "yaml.safe_load"}
"""They take what is not strict: no bound, NaN, a key twice."""


def violations(root: Path) -> Iterator[str]:
    """What is wrong with the checkout at `root`, one line each."""
    yield from _rooms(root)
    yield from _distribution(root)
    for path in sorted(path for folder in SOURCES for path in (root / folder).rglob("*.py")):
        yield from _source(path, str(path.relative_to(root)))
    yield from _pins(root)
    yield from _extras(root)
    if "stages" in yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8")):
        yield "dvc.yaml: has stages; the chain is the pipeline's"
    if "make test" not in (root / ".ci" / "run").read_text(encoding="utf-8"):
        yield ".ci/run: does not call `make test`"


def _rooms(root: Path) -> Iterator[str]:
    there = {path.name for path in (root / "packages").iterdir() if path.is_dir() and path.name != "__pycache__"}
    yield from (f"packages/{name}: is missing" for name in sorted(PACKAGES - there))
    yield from (f"packages/{name}: is not one of the packages of the design" for name in sorted(there - PACKAGES))
    yield from (f"{name}: is missing" for name in FOLDERS if not (root / name).is_dir())
    yield from (f"{name}: is missing" for name in FILES if not (root / name).is_file())
    for path in sorted((root / "mlflow").rglob("*.py")):
        yield f"{path.relative_to(root)}: a Python file here could shadow the library of the same name"


def _distribution(root: Path) -> Iterator[str]:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    shipped = {Path(path).name for path in project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]}
    for name in sorted(shipped ^ {*PACKAGES, "flows"}):
        yield f"pyproject.toml: the wheel {'has' if name in shipped else 'lacks'} {name}"


def _source(path: Path, name: str) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    if (lines := text.count("\n")) > MAX_LINES:
        yield f"{name}: {lines} lines, more than {MAX_LINES}"
    tree = ast.parse(text)
    if not ast.get_docstring(tree):
        yield f"{name}: a module opens with a docstring that says what it is"
    if name != READER:
        for node in ast.walk(tree):
            if _is_other_reader(node):
                yield f"{name}:{node.lineno}: reads with {ast.unparse(node)}, and not by the door in {READER}"


def _is_other_reader(node: ast.AST) -> TypeGuard[ast.Attribute]:
    return isinstance(node, ast.Attribute) and (
        node.attr in ("model_validate_json", "validate_json") or ast.unparse(node) in OTHER_READERS
    )


def _pins(root: Path) -> Iterator[str]:
    for file in PINNED_IN.values():
        for number, line in enumerate((root / file).read_text(encoding="utf-8").splitlines(), 1):
            if line.startswith("#"):
                continue
            if "==" not in line:
                yield f"{file}:{number}: '{line}' is no exact version"
            if "/" in line:
                yield f"{file}:{number}: '{line}' names a host or a path"


def _extras(root: Path) -> Iterator[str]:
    """Extras that the Makefile names: every package that they name is pinned, in the file of those who need them."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras: dict[str, list[str]] = project["optional-dependencies"]
    for variable, file in PINNED_IN.items():
        named = re.search(rf"^{variable} := (.+)$", (root / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        if named is None:
            yield f"Makefile: names no {variable}"
            continue
        pins = {line.partition("==")[0] for line in (root / file).read_text(encoding="utf-8").splitlines()}
        for extra in named[1].split():
            if extra not in extras:
                yield f"Makefile: {variable} names {extra}, which pyproject.toml has not"
            for requirement in extras.get(extra, []):
                name = canonicalize_name(Requirement(requirement).name)
                if name not in pins:
                    yield f"{file}: lacks {name} of the extra {extra}: make requirements"


if __name__ == "__main__":
    found = list(violations(ROOT))
    sys.stdout.write("".join(f"{line}\n" for line in found) or "The layout is as it should be.\n")
    sys.exit(bool(found))
