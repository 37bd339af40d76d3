"""The starter: the shipped checkpoint of stage 0 for the tiny model, small enough to be shipped with the code.

This module has its path and its digest; `weights` reads and writes it. Its model card is in `shipped`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gme_data.digests import sha256_file

# The file is in a separate package, which the code digest of the modules that import this one does not cover: shipping
# the result of stage 0 must not change the key of stage 0. A step that starts from it has its sha256 in the config.
WEIGHTS = Path(__file__).parent / "shipped" / "weights.safetensors"


@cache
def shipped_digest() -> str:
    """Returns the sha256 of the shipped starter.

    Raises:
        FileNotFoundError: This installation has none.
    """
    return sha256_file(WEIGHTS)
