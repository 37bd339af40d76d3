"""Step 8, decontamination: no training query is a query of a benchmark task that the corpus brings along.

Two entities can be called the same ("train", the railway carriage and the locomotive), one trained on and one held out.
Reads the queries of the tasks and nothing else of them: neither pools nor answers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from gme_data.examples import Example
from gme_data.items import Item
from gme_data.parquet import read_rows
from gme_data.tasks import QUERIES_SCHEMA, list_tasks
from gme_synthesis.records import Reject

Said = tuple[str, str | None]
"""A query as words in lower case and image id."""


def benchmark_queries(tasks: Path) -> frozenset[Said]:
    """The queries of all tasks in ``<tasks>/dev`` and ``<tasks>/test``.

    Raises:
        FoundryError: There are no tasks.
    """
    folders = [folder for split in ("dev", "test") for folder in list_tasks(tasks / split)]
    rows = [row for folder in folders for row in read_rows(folder / "queries.parquet", QUERIES_SCHEMA)]
    return frozenset(_said(row["text"], row["image"]) for row in rows)


def decontaminate(examples: Sequence[Example], benchmark: frozenset[Said]) -> tuple[list[Example], list[Reject]]:
    """The examples whose query is none of `benchmark`, and the others as rejects."""
    kept: list[Example] = []
    rejects: list[Reject] = []
    for example in examples:
        if _said(example.query.text, example.query.image) in benchmark:
            rejects.append(Reject("decontaminate", "query-of-a-benchmark", example.id, _shown(example.query)))
        else:
            kept.append(example)
    return kept, rejects


def _said(text: str | None, image: str | None) -> Said:
    return " ".join(re.findall(r"\w+", (text or "").casefold())), image


def _shown(item: Item) -> str:
    return item.text or f"image {item.image}"
