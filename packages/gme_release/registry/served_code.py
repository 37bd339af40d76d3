"""What is logged with a registered model besides its weights: our code that runs it, and the pinned packages it needs.

With them a model loads where this project is not installed. Knows no registry.
"""

from __future__ import annotations

import importlib.metadata
import shutil
from pathlib import Path

PACKAGES = ("gme_data", "gme_embedder")
"""Our packages that a model imports."""
DISTRIBUTIONS = (
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
_PACKAGES_FOLDER = Path(__file__).resolve().parents[2]


def requirements() -> list[str]:
    """Returns `DISTRIBUTIONS`, each pinned to the installed version.

    The local part of a version (``+cpu``) is left out: it names a build that an index need not have.
    """
    return [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in DISTRIBUTIONS]


def copy_code(target: Path) -> list[str]:
    """Copies the source of `PACKAGES` below `target`, without weights and caches, and returns the packages' folders."""
    # Source alone: shipped weights in a package would go with every version.
    for name in PACKAGES:
        shutil.copytree(_PACKAGES_FOLDER / name, target / name, ignore=_names_besides_source)
    return [str(target / name) for name in PACKAGES]


def _names_besides_source(folder: str, names: list[str]) -> set[str]:
    return {
        name
        for name in names
        if name == "__pycache__" or ((Path(folder) / name).is_file() and not name.endswith(".py"))
    }
