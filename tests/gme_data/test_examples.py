"""Examples survive a round trip with the same bytes; a shard that is missing or damaged is named."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gme_data.errors import FoundryError
from gme_data.examples import SCHEMA, Example, read_examples, write_examples
from gme_data.items import Item
from gme_data.parquet import shard_paths, write_shards


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
