"""The starter: what our own stage 0 taught the tiny model, small enough to be shipped with the code.

Here is where it lies and how it is named; `weights` reads and writes it. See its model card in `shipped`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from gme_data.digests import sha256_file

# In a package of their own, which the code digest of who imports this one does not cover: stage 0 must not be another
# stage 0 because its result was shipped. Who starts from the starter has its sha256 in the config.
WEIGHTS = Path(__file__).parent / "shipped" / "weights.safetensors"


@cache
def shipped_digest() -> str:
    """Its sha256.

    Raises:
        FileNotFoundError: This installation has none.
    """
    return sha256_file(WEIGHTS)
