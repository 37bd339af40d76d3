"""The names of the files of a model folder, and which of them decide its vectors. Imports no torch."""

from __future__ import annotations

from pathlib import Path

SETTINGS, CONFIG, INDEX, TOKENIZER = "gme.json", "config.json", "model.safetensors.index.json", "tokenizer.json"
WEIGHTS, PROCESSOR = "model.safetensors", "preprocessor_config.json"
ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

READ = (ADAPTER_CONFIG, CONFIG, SETTINGS, INDEX, PROCESSOR, TOKENIZER)
"""The files that are read besides the weights, if they exist."""

NO_LIMIT = 10**31
"""The bound of integers in these files, since transformers writes 10**30, rounded, for a tokenizer without a limit."""


def is_adapter(folder: Path) -> bool:
    """Tells whether the folder holds adapters instead of a complete model."""
    return (folder / ADAPTER_CONFIG).is_file()
