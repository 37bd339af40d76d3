"""Vectors on disk by the digest of their content, so that no content is encoded twice, whichever tasks contain it.

A space holds all vectors of one encoder under one instruction. It is a folder of chunks: ``<name>.vectors.npy``, which
is memory-mapped, and ``<name>.keys.npy``, which is written second and whose presence says that the chunk is complete. A
chunk is named by the digests of its rows, so processes with the same rows share the work: each takes the next chunk
without a holder, by a lock that the kernel frees when its holder dies. A kill costs the chunk in work.

A vector takes 24 bytes of memory. Knows neither encoders nor items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from gme_data.digests import sha256_bytes, sha256_json
from gme_data.errors import FoundryError
from gme_data.locks import try_lock
from gme_embedder.vectors.npy import open_npy, write_npy
from umrb.data.sides import DIGEST, WINDOW, Digests, blocks

Vectors: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]
Compute: TypeAlias = Callable[[Rows], Vectors]
"""A function of rows [m] that returns their vectors [m, d]."""

_KEYS, _VECTORS = ".keys.npy", ".vectors.npy"


class VectorStore:
    """A folder of spaces.

    Args:
        folder: The folder; it is created by the first write.
        dtype: Precision of the vectors on disk. Each has spaces of its own, since rounding changes scores.
        chunk: Rows of a chunk.
    """

    def __init__(self, folder: Path, *, dtype: Literal["float16", "float32"] = "float32", chunk: int = WINDOW) -> None:
        self.dtype = np.dtype(dtype)
        self._folder, self._chunk = folder, chunk
        self._spaces: dict[str, VectorSpace] = {}

    def space(self, encoder: str, instruction: str | None) -> VectorSpace:
        """Return the space of an encoder, which its digest names, under an instruction."""
        name = sha256_json([encoder, instruction, str(self.dtype)])[:24]
        if name not in self._spaces:
            self._spaces[name] = VectorSpace(self._folder / name, self.dtype, self._chunk)
        return self._spaces[name]


class VectorSpace:
    """The vectors of one encoder under one instruction; see the module's docstring."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], chunk: int) -> None:
        self._folder, self._dtype, self._chunk = folder, dtype, chunk
        self._loaded_key_files: set[str] = set()
        # Paths, not open maps: a map holds a file descriptor, and there may be thousands of chunks.
        self._files: list[Path] = []
        self._width: int | None = None
        # Sorted keys, and for each the number of its file (upper 32 bits) and its row in it (lower 32 bits).
        self._keys, self._locations = np.zeros(0, DIGEST), np.zeros(0, np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Load the keys of chunks that were written since. A damaged chunk is deleted, and its rows count as missing.

        Raises:
            FoundryError: The chunks hold vectors of different dimensions.
        """
        new_files = [path for path in sorted(self._folder.glob(f"*{_KEYS}")) if path.name not in self._loaded_key_files]
        keys, locations = [self._keys], [self._locations]
        for path in new_files:
            chunk = _open(path)
            if chunk is None:
                continue
            if self._width not in (None, chunk[1].shape[1]):
                raise FoundryError(
                    f"{_vectors_of(path)} holds vectors of {chunk[1].shape[1]} numbers, other files of its folder of "
                    f"{self._width}: they are of different models.",
                    hint="Delete that folder: its vectors are made again.",
                )
            locations.append((np.int64(len(self._files)) << 32) + np.arange(len(chunk[0])))
            keys.append(chunk[0])
            self._width = chunk[1].shape[1]
            self._loaded_key_files.add(path.name)
            self._files.append(_vectors_of(path))
        if len(keys) > 1:
            all_keys = np.concatenate(keys)
            order = np.argsort(all_keys, kind="stable")
            self._keys, self._locations = all_keys[order], np.concatenate(locations)[order]

    def missing(self, keys: Digests) -> Rows:
        """Return the rows of `keys` [n] whose vectors are not stored: of each distinct key the first row, ascending."""
        self.refresh()
        distinct, first = np.unique(keys, return_index=True)
        # A key beyond the last one is not stored, but needs a valid index for the comparison.
        at = np.minimum(np.searchsorted(self._keys, distinct), max(len(self._keys) - 1, 0))
        stored = self._keys[at] == distinct if len(self._keys) else np.zeros(len(distinct), np.bool_)
        # In the order of the rows, which are read in windows.
        return np.sort(first[~stored])

    def fill(self, keys: Digests, compute: Compute) -> int:
        """Compute and store the vectors of `keys` [n] that are missing; returns how many this call computed.

        Raises:
            FoundryError: `compute` returned a wrong number of vectors, vectors of another dimension than those stored,
                or numbers that are not finite. Chunks that were written before remain.
        """
        rows = self.missing(keys)
        if not len(rows):
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        computed, at_other_processes = 0, []
        # Chunks are cut by row, not by what is missing: processes that started at different times cut them alike.
        cuts = np.searchsorted(rows, [block.stop for block in blocks(len(keys), self._chunk)])
        for chunk in filter(len, np.split(rows, cuts[:-1])):
            count = self._compute_chunk(keys, chunk, compute, wait=False)
            if count is None:
                at_other_processes.append(chunk)
            computed += count or 0
        # The others' chunks come last; one whose holder died meanwhile is computed here.
        for chunk in at_other_processes:
            computed += self._compute_chunk(keys, chunk, compute, wait=True) or 0
        self.refresh()
        return computed

    def take(self, keys: Digests) -> Vectors:
        """Return the vectors [n, d] of `keys`, all of which must be stored; [0, 0] for no keys.

        Raises:
            FoundryError: A vector is not stored, since its file was deleted.
        """
        if not len(keys):
            return np.zeros((0, 0), np.float32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if not len(self._keys) or (self._keys[at] != keys).any():
            raise FoundryError(f"{self._folder}: vectors were taken away.", hint="Run the same command again.")
        locations = self._locations[at]
        files = locations >> 32
        vectors = np.empty((len(keys), self._width or 0), np.float32)
        for file in np.unique(files):
            rows = np.flatnonzero(files == file)
            vectors[rows] = open_npy(self._files[file])[locations[rows] & 0xFFFFFFFF]
        return vectors

    def stream(self, keys: Digests) -> Iterator[Vectors]:
        """Iterate over the vectors of `keys`, a block [m, d] at a time; see `take`."""
        return (self.take(keys[block.start : block.stop]) for block in blocks(len(keys)))

    def _compute_chunk(self, keys: Digests, rows: Rows, compute: Compute, *, wait: bool) -> int | None:
        """Compute one chunk and return its rows; None if another process holds it, 0 if another one has written it."""
        name = sha256_bytes(keys[rows].tobytes())[:24]
        with try_lock(self._folder / f".{name}.lock", wait=wait) as is_ours:
            if not is_ours:
                return None
            if (self._folder / f"{name}{_KEYS}").exists():
                return 0
            vectors = self._validate(compute(rows), len(rows))
            # The keys come second: without them a chunk whose writing was interrupted does not exist.
            write_npy(self._folder / f"{name}{_VECTORS}", vectors)
            write_npy(self._folder / f"{name}{_KEYS}", keys[rows])
        return len(rows)

    def _validate(self, vectors: Vectors, count: int) -> NDArray[Any]:
        """Check `count` vectors and convert them to the precision of the store."""
        if vectors.ndim != 2 or len(vectors) != count:
            raise FoundryError(
                f"The model was asked for {count} vectors and returned an array of the shape {vectors.shape}.",
                hint="A model returns one vector for each item, [n, d].",
            )
        if self._width not in (None, vectors.shape[1]):
            raise FoundryError(
                f"The model returned vectors of {vectors.shape[1]} numbers; those kept in {self._folder} have "
                f"{self._width}.",
                hint="Name the model by all that changes its vectors, or delete that folder.",
            )
        # An overflow of half precision becomes infinity, which the check below reports.
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(vectors, dtype=self._dtype)
        bad = np.flatnonzero(~np.isfinite(converted).all(axis=1))
        if len(bad):
            raise FoundryError(
                f"The model returned NaN or infinity in {self._dtype} for {len(bad)} of {count} items; the first is "
                f"number {bad[0]}.",
                hint="Compute and store in bfloat16 or float32 instead of float16; finished work is kept.",
            )
        return converted


def _vectors_of(keys: Path) -> Path:
    return keys.with_name(keys.name.removesuffix(_KEYS) + _VECTORS)


def _open(path: Path) -> tuple[Digests, NDArray[Any]] | None:
    """Keys [m] and memory-mapped vectors [m, d] of a chunk; None for a damaged chunk, whose keys are deleted."""
    # Other errors of the system, such as too many open files, say nothing of the chunk and are raised.
    try:
        keys, vectors = np.array(open_npy(path)), open_npy(_vectors_of(path))
    except (FileNotFoundError, FoundryError):
        keys, vectors = np.zeros(0, DIGEST), np.zeros((1, 0))
    fit = keys.ndim == 1 and vectors.ndim == 2 and np.issubdtype(vectors.dtype, np.floating)
    if keys.dtype == DIGEST and fit and len(keys) == len(vectors):
        return keys, vectors
    path.unlink(missing_ok=True)
    return None
