"""Nothing is computed twice, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_embedder.vectors import store as store_module
from gme_embedder.vectors.npy import open_npy
from gme_embedder.vectors.store import EmbeddingStore


class Encoder:
    """Vectors that tell their key; counts what it was asked for."""

    def __init__(self, keys, *, stop_after: int | None = None) -> None:
        self.keys, self.asked, self._stop_after = keys, [], stop_after

    def __call__(self, places):
        if self._stop_after is not None and len(self.asked) >= self._stop_after:
            raise KeyboardInterrupt
        self.asked += [self.keys[place] for place in places]
        return np.array([[float(self.keys[place]), 1.0] for place in places], np.float32)


def keys(*numbers):
    return [str(number) for number in numbers]


def test_only_what_is_missing_is_computed(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.encode("one", keys(1, 2, 3), Encoder(keys(1, 2, 3)))
    wanted = keys(3, 9, 1, 9, 8)
    encoder = Encoder(wanted)
    vectors = EmbeddingStore(tmp_path).encode("one", wanted, encoder)
    assert encoder.asked == keys(9, 8)
    assert vectors[:, 0].tolist() == [3, 9, 1, 9, 8]
    assert vectors.dtype == np.float32


def test_encoders_do_not_mix(tmp_path):
    store = EmbeddingStore(tmp_path)
    store.encode("one", keys(1), Encoder(keys(1)))
    other = Encoder(keys(1))
    store.encode("two", keys(1), other)
    assert other.asked == keys(1)


def test_an_interruption_costs_one_chunk(tmp_path):
    wanted = keys(*range(10))
    with pytest.raises(KeyboardInterrupt):
        EmbeddingStore(tmp_path, chunk=3).encode("one", wanted, Encoder(wanted, stop_after=6))
    encoder = Encoder(wanted)
    EmbeddingStore(tmp_path, chunk=3).encode("one", wanted, encoder)
    assert encoder.asked == keys(6, 7, 8, 9)


_KILLED = """
import sys, os, signal
import numpy as np
from pathlib import Path
from gme_embedder.vectors.store import EmbeddingStore
def compute(places):
    if places[0] >= 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return np.array([[p, 1] for p in places], np.float32)
EmbeddingStore(Path(sys.argv[1]), chunk=2).encode("one", [str(n) for n in range(9)], compute)
"""


def test_a_kill_costs_one_chunk(tmp_path):
    done = subprocess.run([sys.executable, "-c", _KILLED, str(tmp_path)], check=False, env=dict(os.environ))
    assert done.returncode == -signal.SIGKILL
    wanted = keys(*range(9))
    encoder = Encoder(wanted)
    vectors = EmbeddingStore(tmp_path).encode("one", wanted, encoder)
    assert encoder.asked == keys(4, 5, 6, 7, 8)
    assert vectors[:, 0].tolist() == list(range(9))


@pytest.mark.parametrize("ending", ["keys", "vectors"])
@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), id="emptied"),
        pytest.param(lambda path: path.unlink(), id="gone"),
        pytest.param(lambda path: path.write_bytes(b"PK\x03\x04" + bytes(200)), id="an archive"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes().replace(b"shape", b"sh('e")), id="torn header"),
        pytest.param(lambda path: np.save(path, np.ones(2)), id="of other numbers"),
        pytest.param(lambda path: np.save(path, np.array([{}, {}]), allow_pickle=True), id="of objects"),
    ],
)
def test_a_damaged_chunk_is_computed_again(tmp_path, ending, damage):
    wanted = keys(1, 2, 3)
    EmbeddingStore(tmp_path, chunk=2).encode("one", wanted, Encoder(wanted))
    damage(next(path for path in tmp_path.rglob(f"*.{ending}.npy") if len(np.load(path)) == 2))
    encoder = Encoder(wanted)
    assert EmbeddingStore(tmp_path).encode("one", wanted, encoder)[:, 0].tolist() == [1, 2, 3]
    assert encoder.asked == keys(1, 2)


def test_a_chunk_that_can_not_be_read_is_computed_again_and_left_alone(tmp_path, monkeypatch):
    wanted = keys(1, 2)
    EmbeddingStore(tmp_path).encode("one", wanted, Encoder(wanted))
    (path,) = tmp_path.rglob("*.keys.npy")
    refused = []

    def refuse_once(file):
        if not refused:
            refused.append(file)
            raise PermissionError(13, "Permission denied", str(file))
        return open_npy(file)

    monkeypatch.setattr(store_module, "open_npy", refuse_once)
    encoder = Encoder(wanted)
    assert EmbeddingStore(tmp_path).encode("one", wanted, encoder)[:, 0].tolist() == [1, 2]
    assert (encoder.asked, refused) == (wanted, [path])


def test_numbers_that_are_not_finite_are_neither_kept_nor_given_back(tmp_path):
    with pytest.raises(FoundryError, match="NaN or infinity in float16"):
        EmbeddingStore(tmp_path, dtype="float16").encode("one", keys(1), lambda places: np.full((1, 2), 1e9))
    assert not list(tmp_path.rglob("*.npy"))
    EmbeddingStore(tmp_path).encode("one", keys(1), Encoder(keys(1)))
    (path,) = tmp_path.rglob("*.vectors.npy")
    np.save(path, np.full((1, 2), np.nan, np.float32))
    with pytest.raises(FoundryError, match="damaged: not all of its numbers are finite"):
        EmbeddingStore(tmp_path).encode("one", keys(1), Encoder(keys(1)))


def test_half_precision_on_disk_is_what_comes_back_at_once(tmp_path):
    store = EmbeddingStore(tmp_path, dtype="float16")
    first, again = (store.encode("one", ["a"], lambda places: np.full((len(places), 3), 0.1)) for _ in range(2))
    assert first.dtype == np.float32
    assert first[0, 0] == np.float32(np.float16(0.1))
    np.testing.assert_array_equal(first, again)


def test_a_large_store_is_not_held_in_memory(tmp_path):
    """Of 64 MB of vectors, the few that are asked for are read, beside 32 bytes for each key."""
    many = [str(number) for number in range(64_000)]
    store = EmbeddingStore(tmp_path, chunk=8000)
    store.encode("one", many, lambda places: np.repeat(np.array(places, np.float32)[:, None], 256, axis=1))
    tracemalloc.start()
    found = store.encode("one", many[::1000], lambda places: pytest.fail(f"computed {places}"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found[:, 7].tolist() == list(range(0, 64_000, 1000))
    assert peak < 12e6


def test_no_keys(tmp_path):
    assert EmbeddingStore(tmp_path).encode("one", [], Encoder([])).shape == (0, 0)


def test_a_wrong_number_of_vectors_is_refused(tmp_path):
    with pytest.raises(FoundryError, match="asked for 2"):
        EmbeddingStore(tmp_path).encode("one", keys(1, 2), lambda places: np.ones((1, 2), np.float32))


def test_vectors_of_another_size_are_refused(tmp_path):
    EmbeddingStore(tmp_path).encode("one", keys(1), Encoder(keys(1)))
    with pytest.raises(FoundryError, match="different sizes"):
        EmbeddingStore(tmp_path).encode("one", keys(1, 2), lambda places: np.ones((len(places), 5), np.float32))
