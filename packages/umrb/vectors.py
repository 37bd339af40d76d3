"""Vectors on disk by what they are vectors of, so that no content is encoded twice, in whichever task it stands.

A space is all vectors of one encoder under one instruction: a folder of chunks, ``<name>.vectors.npy``, read through
the file system's memory map, and then ``<name>.keys.npy``, whose presence says that the chunk is whole. A chunk is
named by the rows that it was made for, so processes that are given the same rows share the work: each takes the next
chunk that nobody has, by a lock that the kernel frees when its holder dies. A kill costs the chunk in work.

In memory are 24 bytes a vector. Knows neither encoders nor items.
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
from umrb.sides import DIGEST, WINDOW, Digests, blocks

Vectors: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]
Compute: TypeAlias = Callable[[Rows], Vectors]
"""Vectors [m, d] of the given rows."""

_KEYS, _VECTORS = ".keys.npy", ".vectors.npy"


class VectorStore:
    """A folder of spaces.

    Args:
        folder: Made when first written.
        dtype: Of vectors on disk; each has spaces of its own, for rounding changes scores.
        chunk: Rows of a chunk.
    """

    def __init__(self, folder: Path, *, dtype: Literal["float16", "float32"] = "float32", chunk: int = WINDOW) -> None:
        self.dtype = np.dtype(dtype)
        self._folder, self._chunk = folder, chunk
        self._spaces: dict[str, Space] = {}

    def space(self, encoder: str, instruction: str | None) -> Space:
        """The vectors of an encoder, named by its digest, under an instruction."""
        name = sha256_json([encoder, instruction, str(self.dtype)])[:24]
        if name not in self._spaces:
            self._spaces[name] = Space(self._folder / name, self.dtype, self._chunk)
        return self._spaces[name]


class Space:
    """The vectors of one encoder under one instruction; see the module's docstring."""

    def __init__(self, folder: Path, dtype: np.dtype[Any], chunk: int) -> None:
        self._folder, self._dtype, self._chunk = folder, dtype, chunk
        self._read: set[str] = set()  # names of files of keys that were taken in
        self._files: list[Path] = []  # not kept open: a map holds a file descriptor, and there are thousands of chunks
        self._width: int | None = None
        self._keys, self._places = np.zeros(0, DIGEST), np.zeros(0, np.int64)
        self.refresh()

    def refresh(self) -> None:
        """Take in chunks that were written since. A damaged one is taken away: its rows are computed again."""
        fresh = [path for path in sorted(self._folder.glob(f"*{_KEYS}")) if path.name not in self._read]
        keys, places = [self._keys], [self._places]
        for path in fresh:
            chunk = _open(path)
            if chunk is None:
                continue
            if self._width not in (None, chunk[1].shape[1]):
                raise FoundryError(
                    f"{_vectors_of(path)} holds vectors of {chunk[1].shape[1]} numbers, other files of its folder of "
                    f"{self._width}: they are of different models.",
                    hint="Delete that folder: its vectors are made again.",
                )
            places.append((np.int64(len(self._files)) << 32) + np.arange(len(chunk[0])))
            keys.append(chunk[0])
            self._width = chunk[1].shape[1]
            self._read.add(path.name)
            self._files.append(_vectors_of(path))
        if len(keys) > 1:
            every = np.concatenate(keys)
            order = np.argsort(every, kind="stable")
            self._keys, self._places = every[order], np.concatenate(places)[order]

    def missing(self, keys: Digests) -> Rows:
        """Rows of `keys` [n] whose vectors are not kept, each distinct key by its first row, rising."""
        self.refresh()
        distinct, first = np.unique(keys, return_index=True)
        at = np.minimum(np.searchsorted(self._keys, distinct), max(len(self._keys) - 1, 0))
        known = self._keys[at] == distinct if len(self._keys) else np.zeros(len(distinct), np.bool_)
        return np.sort(first[~known])

    def fill(self, keys: Digests, compute: Compute) -> int:
        """Bring the vectors of all of `keys` [n] to disk; the number of those that this call computed.

        Raises:
            FoundryError: `compute` returned another number of vectors than asked for, of another size than kept, or
                numbers that are not finite. What was written before stays.
        """
        rows = self.missing(keys)
        if not len(rows):
            return 0
        self._folder.mkdir(parents=True, exist_ok=True)
        made, held = 0, []
        # Blocks are cut by row, not by what is missing: processes that started at different times cut them alike.
        cuts = np.searchsorted(rows, [block.stop for block in blocks(len(keys), self._chunk)])
        for part in filter(len, np.split(rows, cuts[:-1])):
            done = self._make(keys, part, compute, wait=False)
            held += [part] if done is None else []
            made += done or 0
        for part in held:
            made += self._make(keys, part, compute, wait=True) or 0
        self.refresh()
        return made

    def take(self, keys: Digests) -> Vectors:
        """Vectors [n, d] of `keys`, all of which are kept; [0, 0] for none.

        Raises:
            FoundryError: One is not kept: its file was taken away since.
        """
        if not len(keys):
            return np.zeros((0, 0), np.float32)
        at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
        if not len(self._keys) or (self._keys[at] != keys).any():
            raise FoundryError(f"{self._folder}: vectors were taken away.", hint="Run the same command again.")
        places = self._places[at]
        chunks = places >> 32
        found = np.empty((len(keys), self._width or 0), np.float32)
        for chunk in np.unique(chunks):
            wanted = np.flatnonzero(chunks == chunk)
            found[wanted] = open_npy(self._files[chunk])[places[wanted] & 0xFFFFFFFF]
        return found

    def stream(self, keys: Digests) -> Iterator[Vectors]:
        """As `take`, a block [m, d] at a time."""
        return (self.take(keys[block.start : block.stop]) for block in blocks(len(keys)))

    def _make(self, keys: Digests, rows: Rows, compute: Compute, *, wait: bool) -> int | None:
        """Compute one chunk; None if another process is at it, 0 if it was there when this one's turn came."""
        name = sha256_bytes(keys[rows].tobytes())[:24]
        with try_lock(self._folder / f".{name}.lock", wait=wait) as mine:
            if not mine:
                return None
            if (self._folder / f"{name}{_KEYS}").exists():
                return 0
            vectors = self._checked(compute(rows), len(rows))
            write_npy(self._folder / f"{name}{_VECTORS}", vectors)
            write_npy(self._folder / f"{name}{_KEYS}", keys[rows])
        return len(rows)

    def _checked(self, vectors: Vectors, wanted: int) -> NDArray[Any]:
        if vectors.ndim != 2 or len(vectors) != wanted:
            raise FoundryError(
                f"The model was asked for {wanted} vectors and returned an array of the shape {vectors.shape}.",
                hint="A model returns one vector for each item, [n, d].",
            )
        if self._width not in (None, vectors.shape[1]):
            raise FoundryError(
                f"The model returned vectors of {vectors.shape[1]} numbers; those kept in {self._folder} have "
                f"{self._width}.",
                hint="Name the model by all that changes its vectors, or delete that folder.",
            )
        with np.errstate(over="ignore"):
            kept = np.ascontiguousarray(vectors, dtype=self._dtype)
        bad = np.flatnonzero(~np.isfinite(kept).all(axis=1))
        if len(bad):
            raise FoundryError(
                f"The model returned NaN or infinity in {self._dtype} for {len(bad)} of {wanted} items; the first is "
                f"number {bad[0]}.",
                hint="Compute and store in bfloat16 or float32 instead of float16; finished work is kept.",
            )
        return kept


def _vectors_of(keys: Path) -> Path:
    return keys.with_name(keys.name.removesuffix(_KEYS) + _VECTORS)


def _open(path: Path) -> tuple[Digests, NDArray[Any]] | None:
    """Keys [m] and mapped vectors [m, d] of a chunk; None for a damaged one, whose keys go.

    An error of the system says nothing of the chunk, and is raised.
    """
    try:
        keys, vectors = np.array(open_npy(path)), open_npy(_vectors_of(path))
    except (FileNotFoundError, FoundryError):
        keys, vectors = np.zeros(0, DIGEST), np.zeros((1, 0))
    fit = keys.ndim == 1 and vectors.ndim == 2 and np.issubdtype(vectors.dtype, np.floating)
    if keys.dtype == DIGEST and fit and len(keys) == len(vectors):
        return keys, vectors
    path.unlink(missing_ok=True)
    return None
