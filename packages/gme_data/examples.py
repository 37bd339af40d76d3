"""Training examples: one query, its positive, its negatives, and where they come from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from gme_data.errors import FoundryError
from gme_data.items import Item
from gme_data.parquet import read_shards, write_shards

_ITEM = pa.struct([pa.field("text", pa.string()), pa.field("image", pa.string())])

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("task_type", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("instruction", pa.string()),
        pa.field("query", _ITEM, nullable=False),
        pa.field("positive", _ITEM, nullable=False),
        pa.field("negatives", pa.list_(_ITEM), nullable=False),
        pa.field("entity_group", pa.string(), nullable=False),
        pa.field("batch_key", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("licence", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True, slots=True)
class Example:
    """One contrastive training example.

    Attributes:
        source: The data set within the task type, e.g. ``flag`` or ``pictograph-tone``; batches hold one source.
        entity_group: What the example is about; splits and false-negative masks go by it.
        batch_key: Examples with the same key are hard in-batch negatives for each other (the same section of different
            places, all tones of one pictograph).
        answer: The short answer to the query, where one is known.
        split: ``train``, ``dev`` or ``test``.
    """

    id: str
    task_type: str
    source: str
    instruction: str | None
    query: Item
    positive: Item
    negatives: tuple[Item, ...]
    entity_group: str
    batch_key: str
    answer: str | None
    licence: str
    split: str

    def to_row(self) -> dict[str, Any]:
        """Returns the parquet row of `SCHEMA`."""
        row: dict[str, Any] = {name: getattr(self, name) for name in SCHEMA.names}
        row["query"], row["positive"] = _pack(self.query), _pack(self.positive)
        row["negatives"] = [_pack(item) for item in self.negatives]
        return row

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Example:
        """Inverse of `to_row`."""
        fields = {name: row[name] for name in SCHEMA.names}
        fields["query"], fields["positive"] = Item(**row["query"]), Item(**row["positive"])
        fields["negatives"] = tuple(Item(**item) for item in row["negatives"])
        return cls(**fields)


def write_examples(folder: Path, examples: Iterable[Example]) -> list[Path]:
    """Writes ``examples-*.parquet`` shards in the order given."""
    return write_shards(folder, "examples", (example.to_row() for example in examples), SCHEMA)


def read_examples(folder: Path) -> list[Example]:
    """Reads all ``examples-*.parquet`` shards of a folder.

    Raises:
        FoundryError: No shards, a shard missing or corrupt, a column missing or of another type, or an example with an
            item of nothing.
    """
    return [_read(row, folder) for row in read_shards(folder, "examples", SCHEMA)]


def _read(row: dict[str, Any], folder: Path) -> Example:
    try:
        return Example.from_row(row)
    except (TypeError, ValueError) as error:
        raise FoundryError(
            f"{folder}: example {row['id']!r} has an item with neither text nor image.",
            hint="Run the step that makes the examples again.",
        ) from error


def _pack(item: Item) -> dict[str, str | None]:
    return {"text": item.text, "image": item.image}
