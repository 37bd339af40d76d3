"""The store: nothing is computed twice, nothing that was written is lost, nothing that is no vector gets in."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import numpy as np
import pytest

from gme_data.errors import FoundryError, explain_os_error
from gme_data.items import Item
from gme_embedder.vectors import npy
from umrb.data.sides import as_digests, digest
from umrb.systems import vectors
from umrb.systems.vectors import VectorStore


def keys(names: range) -> np.ndarray:
    return as_digests([digest([Item(str(name))]) for name in names])


def of(rows: np.ndarray) -> np.ndarray:
    return np.stack([rows, rows + 0.5], axis=1).astype(np.float32)


class Compute:
    """Vectors that tell their row, and how many were asked for."""

    def __init__(self, offset: int = 0) -> None:
        self.rows: list[int] = []
        self.offset = offset

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.rows += rows.tolist()
        return of(rows + self.offset)


def test_distinct_contents_are_computed_once_and_come_back_in_any_order(tmp_path: Path) -> None:
    space = VectorStore(tmp_path, chunk=10).space("model", None)
    requested = keys(range(25))[np.array([*range(25), 3, 3, 24])]
    compute = Compute()
    assert space.fill(requested, compute) == 25
    assert compute.rows == list(range(25))
    reopened = VectorStore(tmp_path, chunk=10).space("model", None)
    assert reopened.fill(keys(range(20, 30)), Compute(offset=20)) == 5
    order = np.random.default_rng(0).permutation(30)
    np.testing.assert_array_equal(reopened.take(keys(range(30))[order]), of(order))
    np.testing.assert_array_equal(np.concatenate(list(reopened.stream(keys(range(30))))), of(np.arange(30)))
    assert len(VectorStore(tmp_path).space("model", "find").missing(keys(range(3)))) == 3
    assert len(VectorStore(tmp_path).space("other", None).missing(keys(range(3)))) == 3


def test_half_precision_on_disk(tmp_path: Path) -> None:
    space = VectorStore(tmp_path, dtype="float16").space("model", None)
    space.fill(keys(range(3)), Compute())
    assert space.take(keys(range(3))).dtype == np.float32
    assert np.load(next(tmp_path.rglob("*.vectors.npy"))).dtype == np.float16


def test_precisions_on_disk_do_not_share_vectors(tmp_path: Path) -> None:
    """Else a score under one would be made of vectors of the other."""
    VectorStore(tmp_path, dtype="float32").space("model", None).fill(keys(range(3)), Compute())
    assert len(VectorStore(tmp_path, dtype="float16").space("model", None).missing(keys(range(3)))) == 3


def test_vectors_that_were_taken_away_or_are_of_another_model(tmp_path: Path) -> None:
    space = VectorStore(tmp_path, chunk=5).space("model", None)
    space.fill(keys(range(5)), Compute())
    with pytest.raises(FoundryError, match="vectors were taken away"):
        space.take(keys(range(6)))
    other = VectorStore(tmp_path / "other", chunk=5).space("model", None)
    other.fill(keys(range(5, 10)), lambda rows: np.hstack([of(rows), of(rows)]))
    (folder,) = (path for path in tmp_path.iterdir() if path.name != "other")
    for path in (tmp_path / "other").rglob("*.npy"):
        path.rename(folder / path.name)
    with pytest.raises(FoundryError, match="of different models"):
        VectorStore(tmp_path, chunk=5).space("model", None)


def test_a_damaged_chunk_is_computed_again(tmp_path: Path) -> None:
    VectorStore(tmp_path, chunk=4).space("model", None).fill(keys(range(12)), Compute())
    sorted(tmp_path.rglob("*.vectors.npy"))[0].write_bytes(b"torn")
    compute = Compute()
    space = VectorStore(tmp_path, chunk=4).space("model", None)
    assert space.fill(keys(range(12)), compute) == 4
    np.testing.assert_array_equal(space.take(keys(range(12))), of(np.arange(12)))


def test_more_chunks_than_a_process_may_open_files(tmp_path: Path) -> None:
    """Forty million documents are five thousand chunks; a thousand files is what a process usually may open."""
    space = VectorStore(tmp_path, chunk=2).space("model", None)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 20, hard))
    try:
        space.fill(keys(range(100)), Compute())
        reopened = VectorStore(tmp_path, chunk=2).space("model", None)
        np.testing.assert_array_equal(reopened.take(keys(range(100))), of(np.arange(100)))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_an_error_of_the_system_takes_no_chunk_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    VectorStore(tmp_path, chunk=4).space("model", None).fill(keys(range(8)), Compute())

    def no_more_files(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as broken, pytest.raises(OSError, match="Too many open files"):
        broken.setattr(vectors, "open_npy", no_more_files)
        VectorStore(tmp_path, chunk=4).space("model", None)
    assert len(VectorStore(tmp_path, chunk=4).space("model", None).missing(keys(range(8)))) == 0


def test_what_half_precision_can_not_hold_is_refused(tmp_path: Path) -> None:
    space = VectorStore(tmp_path, dtype="float16").space("model", None)
    with pytest.raises(FoundryError, match="infinity in float16"):
        space.fill(keys(range(3)), lambda rows: of(rows) + 1e5)


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        (lambda rows: of(rows)[1:], "asked for 5 vectors and returned an array of the shape"),
        (lambda rows: of(rows)[:, 0], "returned an array of the shape"),
        (
            lambda rows: np.where(rows[:, None] == 7, np.nan, of(rows)),
            "NaN or infinity in float32 for 1 of 5 items.*number 2",
        ),
        (lambda rows: np.hstack([of(rows), of(rows)]), "vectors of 4 numbers; those kept in"),
    ],
)
def test_what_is_no_vector_is_refused_and_what_was_written_stays(compute, message: str, tmp_path: Path) -> None:
    space = VectorStore(tmp_path, chunk=5).space("model", None)
    space.fill(keys(range(5)), Compute())
    with pytest.raises(FoundryError, match=message):
        space.fill(keys(range(10)), compute)
    remaining = Compute()
    assert VectorStore(tmp_path, chunk=5).space("model", None).fill(keys(range(10)), remaining) == 5
    assert remaining.rows == [5, 6, 7, 8, 9]


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = 0
    real = npy.atomic_write

    def fills_up(path: Path, data: bytes) -> None:
        nonlocal written
        written += 1
        if written > 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        real(path, data)

    monkeypatch.setattr(npy, "atomic_write", fills_up)
    with pytest.raises(OSError, match="No space left") as caught:
        VectorStore(tmp_path, chunk=3).space("model", None).fill(keys(range(12)), Compute())
    assert "finished work is kept" in (explain_os_error(caught.value).hint or "")
    monkeypatch.setattr(npy, "atomic_write", real)
    remaining = Compute()
    space = VectorStore(tmp_path, chunk=3).space("model", None)
    assert space.fill(keys(range(12)), remaining) == 6  # two chunks were whole, the third had its vectors but no keys
    np.testing.assert_array_equal(space.take(keys(range(12))), of(np.arange(12)))
