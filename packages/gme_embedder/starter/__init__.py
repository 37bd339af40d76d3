"""The starter: what our own stage 0 taught the tiny model, small enough to be shipped with the code.

Here is where it lies and how it is named; `weights` reads and writes it. See the model card beside it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gme_data.digests import sha256_file

WEIGHTS = Path(__file__).parent / "weights.safetensors"


@cache
def shipped_digest() -> str:
    """Its sha256.

    Raises:
        FileNotFoundError: This installation has none.
    """
    return sha256_file(WEIGHTS)
