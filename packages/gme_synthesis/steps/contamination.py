"""Step 8, decontamination: no example repeats a query, text or picture that the model will be evaluated on.

Of the corpus' own tasks only the queries are compared, as complete texts: their documents are those of the corpus, and
two entities can have one name ("train", the railway carriage and the locomotive), one of them held out. Of any other
benchmark no example shares an n-gram of words or a picture, nor, since queries may be shorter than that, a query.
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
from gme_synthesis.steps.near_duplicates import PictureHashIndex

_MIN_QUERY_WORDS = 4
"""Shorter queries of a benchmark are not compared: many unrelated texts equal them."""


class HeldOutQueries:
    """The queries of the tasks that a corpus holds out. Reads neither their pools nor their judgements.

    Raises:
        FoundryError: The folder has no tasks.
    """

    def __init__(self, folder: Path) -> None:
        tables = (task / "queries.parquet" for task in benchmark_tasks(folder))
        rows = (row for table in tables for row in read_rows(table, QUERIES_SCHEMA))
        self._queries = {_query(row["text"], row["image"]) for row in rows}

    def reject(self, example: Example) -> Reject | None:
        """Returns the example as a reject if its query is one of the tasks; else None."""
        query = example.query
        if _query(query.text, query.image) not in self._queries:
            return None
        return Reject("decontaminate", "query-of-a-benchmark", example.id, query.text or str(query.image))


def _query(text: str | None, image: str | None) -> tuple[str, str | None]:
    return " ".join(_words(text)), image


class BenchmarkIndex:
    """The contents of the tasks below some folders: n-grams of words, queries, image ids and difference hashes.

    Args:
        folders: Folders of tasks at any depth.
        ngram: Number of words in a row that must not be shared.
        distance: Most bits in which the hashes of two pictures may differ that count as the same.
        compared: Queries alone, also the documents that answer them, or all documents.

    Attributes:
        tasks: Folders of the tasks.

    Raises:
        FoundryError: A folder has no tasks.
    """

    def __init__(self, folders: Sequence[Path], ngram: int, distance: int, compared: Compared = "pools") -> None:
        self._ngram_length = ngram
        self._ngrams: set[int] = set()
        self._queries: set[str] = set()
        self._image_ids: set[str] = set()
        picture_hashes: set[int] = set()
        self.tasks = tuple(task for folder in folders for task in benchmark_tasks(folder))
        for task in self.tasks:
            for content in contents_of(task, compared):
                words = _words(content.text)
                self._ngrams.update(_hash_ngrams(words, self._ngram_length))
                if content.is_query and len(words) >= _MIN_QUERY_WORDS:
                    self._queries.add(" ".join(words))
                if content.image:
                    self._image_ids.add(content.image)
                if content.picture_hash is not None:
                    picture_hashes.add(content.picture_hash)
        self._pictures = PictureHashIndex(sorted(picture_hashes), distance)

    def reject(self, example: Example, picture_hash: Callable[[str], int]) -> Reject | None:
        """Returns the example as a reject if a benchmark contains its query or its positive; else None.

        Args:
            example: The training example.
            picture_hash: Returns the difference hash of a picture by its id.
        """
        reason = self._overlap(example.query, picture_hash) or self._overlap(example.positive, picture_hash)
        text = example.query.text or str(example.query.image)
        return Reject("decontaminate", reason, example.id, text) if reason else None

    def _overlap(self, item: Item, picture_hash: Callable[[str], int]) -> str:
        """Returns the reason why an item may not be trained on; empty if there is none."""
        words = _words(item.text)
        if " ".join(words) in self._queries:
            return "query-of-a-benchmark"
        if any(ngram in self._ngrams for ngram in _hash_ngrams(words, self._ngram_length)):
            return f"{self._ngram_length}-words-of-a-benchmark"
        # The id first: it is free, while the hash of a picture takes decoding it.
        if item.image and (item.image in self._image_ids or self._pictures.contains_near(picture_hash(item.image))):
            return "picture-of-a-benchmark"
        return ""


def _words(text: str | None) -> list[str]:
    return re.findall(r"\w+", (text or "").casefold())


def _hash_ngrams(words: Sequence[str], length: int) -> Iterator[int]:
    # Hashes, which take a fraction of the memory of texts. They differ between processes and are never stored.
    return (hash(tuple(words[start : start + length])) for start in range(len(words) - length + 1))
