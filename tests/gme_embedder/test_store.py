"""Nothing is computed twice, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from gme_data.errors import FoundryError
from gme_embedder.store import EmbeddingStore


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
from gme_embedder.store import EmbeddingStore
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


def test_a_damaged_file_is_computed_again(tmp_path):
    EmbeddingStore(tmp_path).encode("one", keys(1, 2), Encoder(keys(1, 2)))
    (path,) = tmp_path.rglob("*.safetensors")
    path.write_bytes(path.read_bytes()[:40])
    encoder = Encoder(keys(1, 2))
    assert EmbeddingStore(tmp_path).encode("one", keys(1, 2), encoder)[:, 0].tolist() == [1, 2]
    assert encoder.asked == keys(1, 2)


def test_no_keys(tmp_path):
    assert EmbeddingStore(tmp_path).encode("one", [], Encoder([])).shape == (0, 0)


def test_a_wrong_number_of_vectors_is_refused(tmp_path):
    with pytest.raises(FoundryError, match="asked for 2"):
        EmbeddingStore(tmp_path).encode("one", keys(1, 2), lambda places: np.ones((1, 2), np.float32))


def test_vectors_of_another_size_are_refused(tmp_path):
    EmbeddingStore(tmp_path).encode("one", keys(1), Encoder(keys(1)))
    with pytest.raises(FoundryError, match="different sizes"):
        EmbeddingStore(tmp_path).encode("one", keys(1, 2), lambda places: np.ones((len(places), 5), np.float32))
