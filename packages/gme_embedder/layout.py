"""The names of the files of a model folder, and which of them decide its vectors.

A torch-free module, so that a folder can be looked at before the slow imports.
"""

from __future__ import annotations

from pathlib import Path

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
