"""Digests: of bytes, files and JSON-like values, and of the source code a step depends on."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from gme_data.errors import FoundryError

FIRST_PARTY = frozenset(
    {
        "atlas",
        "flows",
        "gme_cli",
        "gme_data",
        "gme_embedder",
        "gme_release",
        "gme_serve",
        "gme_synthesis",
        "gme_training",
        "gme_validation",
        "research",
        "umrb",
    }
)


def sha256_bytes(data: bytes) -> str:
    """Returns the hex sha256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """Returns the hex sha256 of a file, read in blocks."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def canonical_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Returns the one text of a value: sorted keys, no spaces, NaN refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256_json(value: Any) -> str:  # noqa: ANN401 - any JSON value
    """Returns the hex sha256 of the canonical JSON of `value`.

    Raises:
        FoundryError: It holds a text or a number that JSON has not, as a file name that is not UTF-8.
    """
    try:
        return sha256_bytes(canonical_json(value).encode())
    except ValueError as error:
        raise FoundryError(
            f"A value can't be put on record: {error}",
            hint="Numbers must be finite, and names of files and all texts valid UTF-8.",
        ) from error


def code_digest(roots: Iterable[str]) -> str:
    """Returns the digest of the source of the modules `roots` and of every module of ours they import, at any depth.

    Imports are read from the syntax tree, so that a lazy import inside a function counts; so do the data files of a
    package, such as templates. Comments count too, since a rare needless rebuild costs less than to tell them apart.
    """
    closure = sorted(_import_closure(frozenset(roots)))
    return sha256_json([[name, sha256_bytes(_source_of(name)[0]), _data_files(name)] for name in closure])


# These are cached for the life of a process: an edit of the source while it runs does not change the code that runs.
@cache
def _import_closure(roots: frozenset[str]) -> frozenset[str]:
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo.extend(_imports_of(name))
    return frozenset(seen)


@cache
def _source_of(module: str) -> tuple[bytes, bool]:
    """Returns the source of a module and whether it is a package."""
    spec = _spec_of(module)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"no source for module {module}")
    return Path(spec.origin).read_bytes(), spec.submodule_search_locations is not None


@cache
def _data_files(module: str) -> list[list[str]]:
    """Returns name and digest of the files of a package that are no Python, without those of packages inside it."""
    spec = _spec_of(module)
    if spec is None or spec.origin is None or spec.submodule_search_locations is None:
        return []
    home = Path(spec.origin).parent
    inner = [path.parent for path in home.rglob("*/__init__.py")]
    files = (path for path in home.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"})
    data_files = sorted(path for path in files if not any(path.is_relative_to(package) for package in inner))
    return [[path.relative_to(home).as_posix(), sha256_file(path)] for path in data_files]


@cache
def _imports_of(module: str) -> frozenset[str]:
    # The package around a module is imported with it.
    imported: set[str] = {module.rpartition(".")[0]} - {""}
    for node in _nodes_that_run(ast.parse(_source_of(module)[0])):
        if isinstance(node, ast.Import):
            imported.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            imported.add(node.module)
            imported.update(f"{node.module}.{alias.name}" for alias in node.names)
    return frozenset(name for name in imported if name.partition(".")[0] in FIRST_PARTY and _is_module(name))


def _nodes_that_run(tree: ast.AST) -> Iterator[ast.AST]:
    """Yields all nodes below `tree`, but for what stands under ``if TYPE_CHECKING``: it is never executed."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for other in node.orelse:
                yield other
                yield from _nodes_that_run(other)
            continue
        yield node
        yield from _nodes_that_run(node)


@cache
def _is_module(name: str) -> bool:
    """Tells whether `name` is a module and not a function or class inside one."""
    spec = _spec_of(name)
    return spec is not None and spec.origin is not None


@cache
def _spec_of(module: str) -> ModuleSpec | None:
    """Returns where a module is; None for no module."""
    # Not by `importlib.util.find_spec` alone, which imports the packages around a module, and torch with them.
    parent = module.rpartition(".")[0]
    if not parent:
        return importlib.util.find_spec(module)
    above = _spec_of(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, above.submodule_search_locations)
