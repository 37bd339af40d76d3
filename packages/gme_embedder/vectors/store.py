"""Vectors stored by a key of what they encode, so that nothing is encoded twice.

There is a folder for each encoder, to which chunks are only ever added: ``<name>.vectors.npy``, memory-mapped when
read, and after it ``<name>.keys.npy``, whose presence says that the chunk is complete. A kill loses only the chunk in
work; two writers of one chunk write the same bytes. Knows neither encoders nor items, only their names and keys.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_embedder.processing.inputs import check_unicode
from gme_embedder.vectors.npy import open_npy, write_npy

_log = logging.getLogger(__name__)

Vectors = NDArray[np.float32]
Compute = Callable[[list[int]], Vectors]
"""A function from indices of keys to their vectors [m, d]."""

_CHUNK = 1024
"""A chunk has this many keys by default, which is the most that a kill can cost."""
_KEYS, _VECTORS = ".keys.npy", ".vectors.npy"
_DIGEST = np.dtype("S32")


class EmbeddingStore:
    """A folder of vectors.

    Args:
        folder: It is made when first written, and has a subfolder for each encoder.
        chunk: Keys computed between two writes.
        dtype: The type of new vectors on disk; stored ones are read in theirs.
    """

    def __init__(self, folder: Path, *, chunk: int = _CHUNK, dtype: Literal["float16", "float32"] = "float32") -> None:
        self._folder, self._chunk, self._dtype = folder, chunk, np.dtype(dtype)

    def encode(self, encoder_name: str, keys: Sequence[str], compute: Compute) -> Vectors:
        """Returns the vectors of `keys`, and computes only those that are not stored yet.

        Args:
            encoder_name: Names the model and all its settings, e.g. with the digest of its folder.
            keys: What each vector encodes, e.g. instruction, text and image id in one string; may repeat.
            compute: Called with indices into `keys`, each distinct missing key once, in order of first appearance.

        Returns:
            float32 [len(keys), d], as they are on disk; [0, 0] for no keys.

        Raises:
            FoundryError: `keys` is no list of texts that UTF-8 can hold; `compute` returned another number of vectors
                than requested, of another size than stored, or numbers that are not finite in the store's dtype; a
                chunk was removed or damaged meanwhile.
        """
        keys = _checked(keys)
        if not keys:
            return np.zeros((0, 0), np.float32)
        folder = self._folder / sha256_bytes(encoder_name.encode())[:16]
        digests = np.array([bytes.fromhex(sha256_bytes(key.encode())) for key in keys], _DIGEST)
        distinct, first = np.unique(digests, return_index=True)
        stored = np.concatenate([np.zeros(0, _DIGEST), *(keys for keys, _ in _chunks(folder))])
        missing = np.sort(first[~np.isin(distinct, stored)])
        for start in range(0, len(missing), self._chunk):
            indices = missing[start : start + self._chunk]
            with np.errstate(over="ignore"):  # an overflow of float16 is reported below, as infinity
                vectors = np.ascontiguousarray(compute(indices.tolist()), dtype=self._dtype)
            if vectors.ndim != 2 or len(vectors) != len(indices):
                raise FoundryError(f"{encoder_name}: asked for {len(indices)} vectors, got the shape {vectors.shape}.")
            if not np.isfinite(vectors).all():
                raise FoundryError(
                    f"{encoder_name}: NaN or infinity in {self._dtype} among {len(indices)} vectors.",
                    hint="Compute and store in bfloat16 or float32 instead of float16; finished work is kept.",
                )
            _write(folder, digests[indices], vectors)
        return _gather(encoder_name, folder, digests)


def _checked(keys: object) -> list[str]:
    """Returns the keys as a list; refuses one string, which would give its letters."""
    if isinstance(keys, str | bytes | Mapping) or not isinstance(keys, Iterable):
        raise FoundryError(
            f"Expected a list of keys, found {type(keys).__name__}.", hint="For one vector give a list of one key."
        )
    listed = list(keys)
    for row, key in enumerate(listed):
        if not isinstance(key, str):
            raise FoundryError(f"Key {row} must be a string, found {type(key).__name__}.")
        check_unicode(key, f"Key {row}")
    return listed


def _gather(encoder_name: str, folder: Path, digests: NDArray[Any]) -> Vectors:
    """Reads the vectors of `digests`, all of which are stored, [n, d]. Only their rows are read from disk."""
    chunks = list(_chunks(folder))
    stored = np.concatenate([keys for keys, _ in chunks])
    starts = np.cumsum([0, *(len(keys) for keys, _ in chunks)])
    order = stored.argsort()
    rows = order[np.searchsorted(stored, digests, sorter=order)]  # of each digest in all chunks laid end to end
    chunk_numbers = np.searchsorted(starts, rows, side="right") - 1
    gathered: Vectors | None = None
    for indices in np.split(chunk_numbers.argsort(kind="stable"), np.cumsum(np.bincount(chunk_numbers))[:-1]):
        if not len(indices):
            continue
        number = chunk_numbers[indices[0]]
        path = chunks[number][1]
        try:
            vectors = open_npy(path)
        except OSError as error:
            raise FoundryError(f"{path} can't be read: {error.strerror}", hint="Run the command again.") from error
        gathered = np.zeros((len(digests), vectors.shape[1]), np.float32) if gathered is None else gathered
        if gathered.shape[1] != vectors.shape[1]:
            raise FoundryError(
                f"{encoder_name}: vectors of different sizes are kept in {folder}: "
                f"{sorted((gathered.shape[1], vectors.shape[1]))}.",
                hint="Delete that folder, or name the encoder by its settings.",
            )
        gathered[indices] = vectors[rows[indices] - starts[number]]
        if not np.isfinite(gathered[indices]).all():
            raise FoundryError(f"{path} is damaged: not all of its numbers are finite.", hint=f"Delete {path}.")
    assert gathered is not None  # noqa: S101 - there is at least one digest
    return gathered


def _write(folder: Path, keys: NDArray[Any], vectors: NDArray[Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    # A chunk is named by its keys, so that two writers of the same chunk write the same files.
    name = sha256_bytes(keys.tobytes())[:16]
    write_npy(folder / f"{name}{_VECTORS}", vectors)
    write_npy(folder / f"{name}{_KEYS}", keys)


def _chunks(folder: Path) -> Iterator[tuple[NDArray[Any], Path]]:
    """Yields the keys [m] and the file of vectors of each complete chunk.

    A damaged one is dropped and one that can't be read is left alone; the vectors of both are computed again.
    """
    for path in sorted(folder.glob(f"*{_KEYS}")):
        vectors_path = path.with_name(path.name.removesuffix(_KEYS) + _VECTORS)
        try:
            keys, vectors = np.array(open_npy(path)), open_npy(vectors_path)
            if keys.dtype != _DIGEST or keys.ndim != 1:
                raise FoundryError(f"{path} is damaged: it holds {keys.dtype} {list(keys.shape)}, expected digests.")
            if not np.issubdtype(vectors.dtype, np.floating) or vectors.ndim != 2 or len(vectors) != len(keys):
                what = f"{vectors.dtype} {list(vectors.shape)} for {len(keys)} keys"
                raise FoundryError(f"{vectors_path} is damaged: it holds {what}.")
        except (FileNotFoundError, FoundryError) as error:
            _log.warning("dropping a damaged chunk of the embedding store: %s", error)
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("passing over a chunk of the embedding store that can't be read: %s", error)
        else:
            yield keys, vectors_path
