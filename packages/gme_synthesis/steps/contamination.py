"""Step 8, decontamination: no example asks or shows what will judge the model.

Of tasks that the corpus brings along, only the queries count, each as a whole: their documents are those of the corpus,
and two entities can be called the same ("train", the railway carriage and the locomotive), one of them held out. With
any other benchmark no example shares a long run of words or a picture; its short queries count as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from gme_data.examples import Example
from gme_data.items import Item
from gme_data.parquet import read_rows
from gme_data.tasks import QUERIES_SCHEMA
from gme_synthesis.stages import Reject
from gme_synthesis.steps.benchmark_tables import Compared, benchmark_tasks, contents_of
from gme_synthesis.steps.near_duplicates import NearPictures

_SHORTEST = 4
"""Queries of fewer words are anybody's."""


class AskedQueries:
    """The queries of the tasks that a corpus brings along. Reads nothing else of them: neither pools nor answers.

    Raises:
        FoundryError: The folder has no tasks.
    """

    def __init__(self, folder: Path) -> None:
        tables = (task / "queries.parquet" for task in benchmark_tasks(folder))
        rows = (row for table in tables for row in read_rows(table, QUERIES_SCHEMA))
        self._asked = {_query(row["text"], row["image"]) for row in rows}

    def reject(self, example: Example) -> Reject | None:
        """The example as a reject if one of the tasks asks its query."""
        query = example.query
        if _query(query.text, query.image) not in self._asked:
            return None
        return Reject("decontaminate", "query-of-a-benchmark", example.id, query.text or str(query.image))


def _query(text: str | None, image: str | None) -> tuple[str, str | None]:
    return " ".join(_words(text)), image


class Benchmarks:
    """What the tasks below some folders contain.

    Args:
        folders: Each holds tasks at any depth.
        ngram: Words in a row that must not be shared.
        distance: Bits in which two pictures differ at most to be the same.
        compared: Queries alone, also the documents that answer them, or all that is searched.

    Attributes:
        tasks: Folders of the tasks.

    Raises:
        FoundryError: A folder has no tasks.
    """

    def __init__(self, folders: Sequence[Path], ngram: int, distance: int, compared: Compared = "pools") -> None:
        self._ngram = ngram
        self._runs: set[int] = set()
        self._whole: set[str] = set()
        self._ids: set[str] = set()
        looks: set[int] = set()
        self.tasks = tuple(task for folder in folders for task in benchmark_tasks(folder))
        for task in self.tasks:
            for content in contents_of(task, compared):
                self._add(content.text, content.image, whole=content.is_query)
                looks |= {content.look} if content.look is not None else set()
        self._near = NearPictures(sorted(looks), distance)

    def _add(self, text: str | None, image: str | None, *, whole: bool) -> None:
        words = _words(text)
        self._runs.update(_ngrams(words, self._ngram))
        if whole and len(words) >= _SHORTEST:
            self._whole.add(" ".join(words))
        if image:
            self._ids.add(image)

    def reject(self, example: Example, look: Callable[[str], int]) -> Reject | None:
        """The example as a reject if one of its sides stands in a benchmark.

        Args:
            example: What would be trained on.
            look: Difference hash of a picture by its id.
        """
        reason = self._spoils(example.query, look) or self._spoils(example.positive, look)
        text = example.query.text or str(example.query.image)
        return Reject("decontaminate", reason, example.id, text) if reason else None

    def _spoils(self, item: Item, look: Callable[[str], int]) -> str:
        words = _words(item.text)
        if " ".join(words) in self._whole:
            return "query-of-a-benchmark"
        if any(run in self._runs for run in _ngrams(words, self._ngram)):
            return f"{self._ngram}-words-of-a-benchmark"
        if item.image and (item.image in self._ids or self._near.has(look(item.image))):
            return "picture-of-a-benchmark"
        return ""


def _words(text: str | None) -> list[str]:
    return re.findall(r"\w+", (text or "").casefold())


def _ngrams(words: Sequence[str], length: int) -> Iterator[int]:
    return (hash(tuple(words[start : start + length])) for start in range(len(words) - length + 1))
