"""Vectors kept by what they are vectors of, so that nothing is ever encoded twice.

Append-only safetensors files, each written whole by a rename: a kill loses the chunk in work and nothing else. Knows
neither encoders nor items, only their names and keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.journal import atomic_write

_log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Compute = Callable[[list[int]], Vectors]
"""Vectors [m, d] of the keys at the given places."""

_CHUNK = 1024
"""Keys computed between two writes; the most that a kill can cost."""
_DIGEST = 32


class EmbeddingStore:
    """A folder of vectors.

    Args:
        folder: Made when first written; one subfolder per encoder.
        chunk: Keys computed between two writes.
    """

    def __init__(self, folder: Path, *, chunk: int = _CHUNK) -> None:
        self._folder, self._chunk = folder, chunk

    def encode(self, encoder_name: str, keys: Sequence[str], compute: Compute) -> Vectors:
        """Vectors of `keys`, computing only those that are not kept yet.

        Args:
            encoder_name: Names the model and all its settings, e.g. with the digest of its folder.
            keys: What each vector is of, e.g. instruction, text and image id in one string; may repeat.
            compute: Called with places in `keys`, each distinct missing key once, in order of first appearance.

        Returns:
            float32 [len(keys), d]; [0, 0] for no keys.

        Raises:
            FoundryError: `compute` returned another number of vectors than asked for, or of another size than kept.
        """
        if not keys:
            return np.zeros((0, 0), np.float32)
        folder = self._folder / sha256_bytes(encoder_name.encode())[:16]
        digests = [bytes.fromhex(sha256_bytes(key.encode())) for key in keys]
        kept = _read(folder)
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        missing = sorted(place for digest, place in first.items() if digest not in kept)
        for start in range(0, len(missing), self._chunk):
            places = missing[start : start + self._chunk]
            vectors = np.ascontiguousarray(compute(places), dtype=np.float32)
            if vectors.ndim != 2 or len(vectors) != len(places):
                raise FoundryError(f"{encoder_name}: asked for {len(places)} vectors, got the shape {vectors.shape}.")
            names = [digests[place] for place in places]
            _write(folder, names, vectors)
            kept.update(zip(names, vectors, strict=True))
        sizes = {kept[digest].shape for digest in digests}
        if len(sizes) > 1:
            raise FoundryError(
                f"{encoder_name}: vectors of different sizes are kept in {folder}: {sorted(sizes)}.",
                hint="Delete that folder, or name the encoder by its settings.",
            )
        return np.stack([kept[digest] for digest in digests])


def _write(folder: Path, digests: list[bytes], vectors: Vectors) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    keys = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, _DIGEST)
    # Named by its keys: two writers of the same chunk write the same file.
    name = sha256_bytes(keys.tobytes())[:16]
    atomic_write(folder / f"{name}.safetensors", save({"keys": keys, "vectors": vectors}))


def _read(folder: Path) -> dict[bytes, Vectors]:
    """All vectors of an encoder by key digest. A damaged file is dropped: its vectors are computed again."""
    kept: dict[bytes, Vectors] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            tensors = load_file(path)
            digests = [row.tobytes() for row in tensors["keys"]]
            kept.update(zip(digests, tensors["vectors"], strict=True))
        except (SafetensorError, KeyError, ValueError) as error:
            _log.warning("dropping a damaged file of the embedding store: %s: %s", path, error)
            path.unlink()
    return kept
