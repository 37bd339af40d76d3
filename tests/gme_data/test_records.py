"""Items, examples, tasks and pictures survive a round trip; what is damaged is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from gme_data import images
from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA, Example, read_examples, write_examples
from gme_data.images import ImageRecord, ImageStore, decode_rgb, open_image, write_images
from gme_data.items import Item, Modality
from gme_data.parquet import shard_paths, write_shards
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, list_tasks, load_task, save_task

texts = st.none() | st.text(max_size=20)
items = st.builds(Item, texts, st.none() | st.text("0123456789abcdef", min_size=4, max_size=8)).filter(lambda i: i)


def example(number: int = 0, **changes: object) -> Example:
    fields = {
        "id": f"e{number}",
        "task_type": "IT->T",
        "source": "flag-question",
        "instruction": "Answer.",
        "query": Item("What is the capital?", "ab" * 32),
        "positive": Item("Paris."),
        "negatives": (Item("Rome."), Item(None, "cd" * 32)),
        "entity_group": "fr",
        "batch_key": "Government",
        "answer": None,
        "licence": "public domain",
        "split": "train",
    }
    return Example(**{**fields, **changes})  # type: ignore[arg-type]


def png(size: tuple[int, int] = (8, 6), mode: str = "RGB", color: object = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, "PNG")  # type: ignore[arg-type]
    return buffer.getvalue()


def test_item_needs_something() -> None:
    assert Item("a").modality is Modality.TEXT
    assert Item("", "x").modality is Modality.FUSED
    assert Item(None, "x").modality is Modality.IMAGE
    with pytest.raises(ValueError, match="text, an image, or both"):
        Item()


@given(st.text(max_size=30), st.none() | st.text(max_size=10), st.lists(st.text(max_size=5), max_size=3))
def test_example_row_round_trip(text: str, answer: str | None, negatives: list[str]) -> None:
    original = example(query=Item(text), answer=answer, negatives=tuple(Item(n) for n in negatives))
    assert Example.from_row(original.to_row()) == original
    assert set(original.to_row()) == set(SCHEMA.names)


def test_examples_on_disk_are_deterministic(tmp_path: Path) -> None:
    original = [example(number) for number in range(50)]
    write_examples(tmp_path / "a", original)
    write_examples(tmp_path / "b", original)
    assert read_examples(tmp_path / "a") == original
    name = "examples-00000-of-00001.parquet"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_missing_shard_is_noticed(tmp_path: Path) -> None:
    rows = (example(number).to_row() for number in range(100))
    paths = write_shards(tmp_path, "examples", rows, SCHEMA, shard_bytes=2000)
    assert len(paths) > 3
    assert len(read_examples(tmp_path)) == 100
    paths[1].unlink()
    with pytest.raises(FoundryError, match=f"{len(paths) - 1} of {len(paths)}"):
        shard_paths(tmp_path, "examples")


def test_a_corrupt_shard_is_named(tmp_path: Path) -> None:
    (path,) = write_examples(tmp_path, [example()])
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FoundryError, match=path.name):
        read_examples(tmp_path)


def test_images_round_trip_once_each(tmp_path: Path) -> None:
    records = [ImageRecord.from_bytes(png(color=c), source="s", licence="l") for c in ("red", "blue", "red")]
    write_images(tmp_path, records)
    store = ImageStore([tmp_path])
    assert len(store) == 2
    assert store.read(records[1].id) == records[1].bytes
    assert store.load(records[0].id).getpixel((0, 0)) == (255, 0, 0)
    assert store.size(records[0].id) == (records[0].width, records[0].height)
    assert records[1].id in store
    assert "nope" not in store
    assert None not in store
    with pytest.raises(FoundryError, match="No picture with id nope"):
        store.read("nope")


def test_pictures_are_found_in_every_shard_and_row_group(tmp_path: Path) -> None:
    records = [
        ImageRecord.from_bytes(png(size=(2 + n % 7, 3 + n), color=(n, 0, 0)), source="s", licence="l")
        for n in range(200)
    ]
    write_images(tmp_path / "one", records[:150])  # two row groups
    write_images(tmp_path / "other", records[100:])
    store = ImageStore([tmp_path / "one", tmp_path / "other"])
    assert len(store) == 200
    for record in records:
        assert store.read(record.id) == record.bytes
        assert store.size(record.id) == (record.width, record.height)
    assert len(ImageStore([])) == 0
    assert records[0].id not in ImageStore([])


def test_transparency_is_laid_on_white() -> None:
    assert decode_rgb(png(mode="RGBA", color=(0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_bad_pictures_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FoundryError, match="not a readable picture"):
        open_image(b"<html>404</html>", "photo.jpg")
    with pytest.raises(FoundryError, match="damaged"):
        decode_rgb(png((64, 64), color="green")[:-30], "cut.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 40)
    with pytest.raises(FoundryError, match="8x6 pixels"):
        open_image(png(), "bomb.png")


def test_task_round_trip(tmp_path: Path) -> None:
    card = TaskCard(
        name="t",
        task_type="T->I",
        metric="hit_rate_at_5",
        instruction=None,
        split="test",
        subset="unseen",
        description="d",
        relevance="r",
        licences=("x",),
        images="../images",
        queries=2,
        pool=2,
    )
    task = RetrievalTask(
        card,
        corpus=(Document("b", Item(None, "i1"), "g1", "x"), Document("a", Item(None, "i2"), "g2", "x")),
        queries=(Query("q2", Item("two"), "g2", "en", "x"), Query("q1", Item("one"), "g1", "en", "x")),
        qrels={"q2": {"a": 1}, "q1": {"b": 1, "a": 1}},
    )
    save_task(tmp_path / "t", task)
    loaded = load_task(tmp_path / "t")
    assert loaded.card == card
    assert [doc.id for doc in loaded.corpus] == ["a", "b"]
    assert loaded.qrels == task.qrels
    assert list_tasks(tmp_path) == [tmp_path / "t"]
    with pytest.raises(FoundryError, match="No tasks in"):
        list_tasks(tmp_path / "t")
