"""Memory of a synthesis over any corpus: of a passage more, no more than its id and its signature stays in memory."""

from __future__ import annotations

import re
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gme_data.images import write_images
from gme_data.parquet import write_shards
from gme_data.steps import StepContext
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus import resources, run
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.run import synthesize
from gme_synthesis.corpus.store import IMAGES, write_captions, write_passages
from gme_synthesis.encoders import TextEncoder

_MOST = 800
"""Bytes a passage: less than its text. Its id is in a few sets; room for signatures is dealt by the thousand."""


def passages(count: int) -> Iterator[Candidate]:
    for number in range(count):
        words = " ".join(f"w{n}" for n in np.random.default_rng(number).integers(0, 5000, 160))
        name = f"Place {number}"
        text = f"{name} is a town. Its mayor is Mayor {number}. {words}."
        facts = {"mayor": f"Mayor {number}"}
        yield Candidate(str(number), text, title=name, kind="town", entity_group=name, facts=facts, licence="CC0-1.0")


def by_place(texts: Sequence[str]) -> NDArray[np.float32]:
    """An encoder to which a text is the place that it names first, as a random direction."""
    numbers = [int(match[1]) if (match := re.search(r"Place (\d+)", text)) else 0 for text in texts]
    vectors = np.array([np.random.default_rng(number).normal(size=16) for number in numbers], np.float32).reshape(
        -1, 16
    )
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def peak(count: int, home: Path) -> int:
    """Most bytes that Python and NumPy held while `count` passages were worked on."""
    corpus = home / "corpus"
    write_passages(corpus, passages(count))
    write_captions(corpus, [])
    write_images(corpus / IMAGES, [])
    for folder in ("staging", "log"):
        (home / folder).mkdir(parents=True)
    config = SynthesisConfig(shard=50, render_pages=False)
    tracemalloc.start()
    try:
        counts = synthesize(config, {"corpus": corpus}, StepContext(home / "staging", "key", home / "log"))
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert counts["passages"] == count
    assert counts["examples"] + counts["held_out"] >= count  # a question of each
    return most


@pytest.mark.slow
def test_memory_hardly_grows_with_the_passages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "load_encoder", lambda *_: TextEncoder("by-place", by_place, by_place))
    # Shards and tasks are gathered in memory up to a size which no small corpus reaches.
    monkeypatch.setitem(write_shards.__kwdefaults__ or {}, "shard_bytes", 100_000)
    monkeypatch.setattr(run, "_TASK_POOL", 20)
    peak(60, tmp_path / "warm")
    few, many = (peak(count, tmp_path / str(count)) for count in (200, 500))
    assert (many - few) / 300 < _MOST
