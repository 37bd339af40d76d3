"""What travels with a registered model besides its weights: our code that runs it, and the exact packages it needs.

So a model loads where this project is not installed. Knows no registry.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

PACKAGES = ("gme_data", "gme_embedder")
NEEDED = (
    "mlflow",
    "filelock",
    "numpy",
    "pandas",
    "pillow",
    "pyarrow",
    "pydantic",
    "pyyaml",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
)
"""Distributions that loading and predicting import."""
_HOME = Path(__file__).resolve().parents[1]


def requirements() -> list[str]:
    """`NEEDED`, each pinned to the version that runs here; without the local part (``+cpu``), which names a build."""
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in NEEDED]


def copy_code(target: Path) -> list[str]:
    """Copy the source of `PACKAGES` below `target`, without weights and caches; returns the packages' folders."""
    for name in PACKAGES:
        shutil.copytree(_HOME / name, target / name, ignore=_only_source)
    return [str(target / name) for name in PACKAGES]


def _only_source(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name == "__pycache__" or ((Path(folder) / name).is_file() and not name.endswith(".py"))
    }
