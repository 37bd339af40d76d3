"""The names of the files of a model folder, and which of them decide its vectors.

A torch-free module, so that a folder can be looked at before the slow imports.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, overload

from gme_data.errors import FoundryError

SETTINGS, CONFIG, INDEX, TOKENIZER = "gme.json", "config.json", "model.safetensors.index.json", "tokenizer.json"
PROCESSOR = "preprocessor_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_READ = frozenset({SETTINGS, CONFIG, INDEX, TOKENIZER, PROCESSOR, ADAPTER_CONFIG})


def deciding_files(folder: Path) -> list[Path]:
    """The files that `Embedder.load` reads, by name: configuration, settings, tokenizer and weights. Empty for none."""
    return sorted(path for path in folder.glob("*") if path.name in _READ or path.suffix == ".safetensors")


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds adapters instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()


@overload
def read_json(path: Path) -> dict[str, Any]: ...
@overload
def read_json(path: Path, kind: type[list[Any]]) -> list[Any]: ...
def read_json(path: Path, kind: type[dict[str, Any] | list[Any]] = dict) -> dict[str, Any] | list[Any]:
    """A JSON file that holds an object, or a list.

    Raises:
        FoundryError: It can't be read, is no JSON, or holds something else.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FoundryError(f"{path} is not valid JSON: {error}") from error
    except OSError as error:
        raise FoundryError(f"{path} can't be read: {error.strerror}") from error
    if not isinstance(raw, kind):
        expected = "list" if kind is list else "object"
        raise FoundryError(f"{path}: expected a JSON {expected}, found {type(raw).__name__}.")
    return raw
