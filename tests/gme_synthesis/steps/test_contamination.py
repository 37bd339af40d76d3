"""Nothing of a benchmark is trained on."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.images import ImageRecord, write_images
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.steps.contamination import BenchmarkIndex
from gme_synthesis.steps.near_duplicates import difference_hash

LONG = " ".join(f"word{n % 37} goes{n % 11} on{n}" for n in range(60))


def scene(seed: int, size: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def record(picture: Image.Image) -> ImageRecord:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="t", licence="CC0-1.0")


def example(query: Item, positive: Item) -> Example:
    return Example("x", "T->T", "s", None, query, positive, (), "g", "b", None, "CC0-1.0", "train")


@pytest.fixture
def benchmark(tmp_path: Path) -> tuple[Path, ImageRecord]:
    picture = record(scene(1))
    write_images(tmp_path / "images", [picture])
    card = TaskCard(
        name="t", task_type="IT->T", metric="ndcg_at_10", instruction=None, split="test", subset="unseen",
        description="", relevance="", licences=("CC0-1.0",), images="../../images", queries=1, pool=1,
    )  # fmt: skip
    query = Query("q", Item("how tall is this bridge", picture.id), "g", "s", "CC0-1.0")
    task = RetrievalTask(card, (Document("d", Item(LONG), "g", "CC0-1.0"),), (query,), {"q": {"d": 1}})
    save_task(tmp_path / "test" / "t", task)
    return tmp_path, picture


def test_contamination(benchmark: tuple[Path, ImageRecord]) -> None:
    folder, picture = benchmark
    index = BenchmarkIndex([folder], ngram=13, distance=4)
    resized = record(scene(1, 128))
    hashes = {picture.id: 0, resized.id: difference_hash(scene(1, 128)), "other": difference_hash(scene(2))}
    cases: Sequence[tuple[Item, str | None]] = [
        (Item("How tall is THIS bridge?"), "query-of-a-benchmark"),
        (Item("and so " + " ".join(LONG.split()[20:33])), "13-words-of-a-benchmark"),
        (Item("and so " + " ".join(LONG.split()[20:32])), None),
        (Item(image=picture.id), "picture-of-a-benchmark"),
        (Item(image=resized.id), "picture-of-a-benchmark"),
        (Item("fine", "other"), None),
    ]
    for item, reason in cases:
        for one in (example(item, Item("ok")), example(Item("ok"), item)):
            refused = index.reject(one, hashes.__getitem__)
            assert (refused.reason if refused else None) == reason


def test_a_folder_without_tasks_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="no evaluation tasks"):
        BenchmarkIndex([tmp_path], 13, 4)
