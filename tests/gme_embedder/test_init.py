"""`from gme_embedder import Embedder` works, and torch is imported only then."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import gme_embedder
from gme_embedder.embedder import Embedder

_CODE = Path(gme_embedder.__file__).parents[1]


def test_the_embedder_is_the_one_of_its_module() -> None:
    assert gme_embedder.Embedder is Embedder
    assert gme_embedder.__all__ == ["Embedder"]
    with pytest.raises(AttributeError, match="Embeder"):
        _ = gme_embedder.Embeder  # type: ignore[attr-defined]


def test_torch_comes_with_the_first_use() -> None:
    code = (
        "import sys, gme_embedder; assert not {'torch', 'transformers'} & set(sys.modules)\n"
        "from gme_embedder import Embedder; assert 'torch' in sys.modules and Embedder.load"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_our_code_names_the_module() -> None:
    """A step that took the model from the package's name would not have its code in its key."""
    for path in [*_CODE.rglob("*.py"), *(_CODE.parent / "flows").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module == "gme_embedder":
                assert "Embedder" not in {alias.name for alias in node.names}, path
