"""Names are the field's terms, comments say why, and a function fits on a screen."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for room in ("packages", "flows", "research") for path in (ROOT / room).rglob("*.py"))
# fmt: off
EVERYDAY_WORDS = frozenset({
    "one", "ones", "found", "kept", "told", "given", "said", "asked", "made", "drawn", "hidden", "brought",
    "own", "here", "there", "everything", "something", "whole", "rest", "taken", "wanted", "left", "worth",
    "sight", "sights", "crown", "settle", "settled", "trouble", "opinion", "summit", "wish", "heeded",
    "stretch", "again", "crowd", "mine",
})
# fmt: on
"""Words that name nothing: where a reader meets one as a name, the thing behind it has a better one."""
MOST_EVERYDAY_NAMES = 2 / 1000
"""Names of that kind for each line of code."""
COMMENTS = (0.02, 0.04)
"""Least and greatest share of lines with a comment."""
LONGEST_FUNCTION = 80
"""Lines without the docstring, which is the help text of a verb with its flags."""


def defined_names(tree: ast.AST) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno


def comments_of(path: Path) -> int:
    directives = ("# noqa", "# type:", "#!", "# fmt:", "# pragma:")
    with path.open("rb") as handle:
        tokens = list(tokenize.tokenize(handle.readline))
    return sum(token.type == tokenize.COMMENT and not token.string.startswith(directives) for token in tokens)


def lines_of(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n")


def test_names_are_the_terms_of_the_field() -> None:
    everyday = [
        f"{path.relative_to(ROOT)}:{line} {name}"
        for path in SOURCES
        for name, line in defined_names(ast.parse(path.read_text(encoding="utf-8")))
        if name.strip("_").lower() in EVERYDAY_WORDS
    ]
    most = MOST_EVERYDAY_NAMES * sum(map(lines_of, SOURCES))
    assert len(everyday) < most, "\n".join(everyday)


def test_comments_are_neither_missing_nor_chatter() -> None:
    share = sum(map(comments_of, SOURCES)) / sum(map(lines_of, SOURCES))
    assert COMMENTS[0] <= share <= COMMENTS[1], f"{share:.1%} of the lines have a comment"


def code_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno
    docstring = first.end_lineno - first.lineno + 1 if documented and first.end_lineno else 0
    return (function.end_lineno or function.lineno) - function.lineno + 1 - docstring


def test_no_function_is_longer_than_a_screen() -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {code_lines(node)} lines"
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and code_lines(node) > LONGEST_FUNCTION
    ]
    assert not long, "\n".join(long)
