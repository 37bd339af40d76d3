"""The names of the files of a model folder, and which of them decide its vectors.

A torch-free module, so that a folder can be looked at before the slow imports.
"""

from __future__ import annotations

from pathlib import Path

SETTINGS, CONFIG, INDEX, TOKENIZER = "gme.json", "config.json", "model.safetensors.index.json", "tokenizer.json"
WEIGHTS, PROCESSOR = "model.safetensors", "preprocessor_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

READ = (ADAPTER_CONFIG, CONFIG, SETTINGS, INDEX, PROCESSOR, TOKENIZER)
"""What is read beside the weights, where it is there."""

NO_LIMIT = 10**31
"""Of whole numbers in these files: transformers writes 10**30, rounded, for a tokenizer without a limit."""


def is_adapter(folder: Path) -> bool:
    """Whether the folder holds adapters instead of a whole model."""
    return (folder / ADAPTER_CONFIG).is_file()
