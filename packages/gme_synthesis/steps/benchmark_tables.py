"""Reads queries and documents of benchmark tasks: tasks in the layout of `gme_data.tasks`, and fetched repositories.

A fetched repository has tables of queries, documents and judgements, each a file or a folder, with pictures in their
rows. Knows tables; `gme_synthesis.steps.contamination` compares examples with them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from gme_data.cells import CellError, picture_cell, text_cell
from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.images import ImageStore, decode_rgb
from gme_data.parquet import read_rows
from gme_data.tables import Row, open_table
from gme_data.task_tables import relevance_cell
from gme_data.tasks import CARD, CORPUS_SCHEMA, QRELS_SCHEMA, QUERIES_SCHEMA, image_folders
from gme_synthesis.steps.near_duplicates import difference_hash

Compared = Literal["queries", "answers", "pools"]
_TABLE_NAMES = ("quer", "corpus", "qrels")
_SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz", ".tsv")
_IDS = {"quer": ("_id", "id", "query-id"), "corpus": ("_id", "id", "corpus-id")}
_TEXTS = ("title", "text", "query")


class Content(NamedTuple):
    """A query or a document of a task.

    Attributes:
        text: The text; empty without one.
        image: Image id; None without a picture.
        picture_hash: Difference hash of the picture; None without one, or where the picture can't be read.
        is_query: Whether it is a query.
    """

    text: str
    image: str | None
    picture_hash: int | None
    is_query: bool


def benchmark_tasks(folder: Path) -> list[Path]:
    """Returns the folders of the tasks at any depth below a folder.

    Raises:
        FoundryError: There are no tasks.
    """
    with_card = sorted(path.parent for path in folder.rglob(CARD))
    fetched = sorted(path for path in folder.glob("*") if path.is_dir() and _tables(path, "quer"))
    # A task with a card has a table of queries as well, and must not count twice.
    tasks = with_card + [path for path in fetched if not any(task.is_relative_to(path) for task in with_card)]
    if not tasks:
        raise FoundryError(
            f"{folder}: no evaluation tasks to keep apart from.",
            hint="Give folders with task.yaml files, or one that `gme umrb fetch` filled.",
        )
    return tasks


def contents_of(task: Path, compared: Compared) -> Iterator[Content]:
    """Yields the queries of a task, and those documents that are compared with.

    Raises:
        FoundryError: A table can't be read.
    """
    reader = _contents_with_card if (task / CARD).is_file() else _contents_of_fetched
    return reader(task, compared)


def table_files(task: Path) -> list[Path]:
    """Returns the files that make up a task."""
    if (task / CARD).is_file():
        return sorted(task.glob("*.parquet"))
    return [path for stem in _TABLE_NAMES for path in _tables(task, stem)]


def _contents_with_card(task: Path, compared: Compared) -> Iterator[Content]:
    store = ImageStore([folder for folder in image_folders([task]) if folder.is_dir()])

    def content(row: dict[str, Any], *, is_query: bool) -> Content:
        image = row["image"]
        picture_hash = difference_hash(store.load(image)) if image and image in store else None
        return Content(row["text"] or "", image, picture_hash, is_query)

    for row in read_rows(task / "queries.parquet", QUERIES_SCHEMA):
        yield content(row, is_query=True)
    if compared == "queries":
        return
    answers = None
    if compared == "answers":
        judgements = read_rows(task / "qrels.parquet", QRELS_SCHEMA)
        answers = {row["doc_id"] for row in judgements if row["relevance"] > 0}
    for row in read_rows(task / "corpus.parquet", CORPUS_SCHEMA):
        if answers is None or row["id"] in answers:
            yield content(row, is_query=False)


def _contents_of_fetched(task: Path, compared: Compared) -> Iterator[Content]:
    queries, answers = _judged_ids(task)
    for row in _rows(task, "quer"):
        if not queries or str(_first(row, _IDS["quer"])) in queries:
            yield _content(row, is_query=True)
    if compared == "queries":
        return
    for row in _rows(task, "corpus"):
        if compared == "pools" or str(_first(row, _IDS["corpus"])) in answers:
            yield _content(row, is_query=False)


def _judged_ids(task: Path) -> tuple[set[str], set[str]]:
    """Returns the ids of judged queries and of the documents that answer them, in all splits but that for training.

    A repository of BEIR has the queries of all splits in one table, and the judgements of each split in a file of a
    folder that may have any name, such as ``default``.
    """
    queries: set[str] = set()
    answers: set[str] = set()
    for path in sorted(task.rglob("*")):
        if (
            not path.is_file()
            or not path.name.endswith(_SUFFIXES)
            or _is_named_after(path, task, "quer", "corpus", "train")
        ):
            continue
        for row in open_table(path).rows():
            if not isinstance(row, Row) or not {"query-id", "corpus-id"} <= row.values.keys():
                continue
            queries.add(str(row.values["query-id"]))
            try:
                is_relevant = relevance_cell(row.values.get("score")) > 0
            except CellError:
                is_relevant = True  # a pair without a grade is in the table because it belongs together
            if is_relevant:
                answers.add(str(row.values["corpus-id"]))
    return queries, answers


def _rows(task: Path, stem: str) -> Iterator[Row]:
    for path in _tables(task, stem):
        for row in open_table(path).rows():
            if not isinstance(row, Row):
                raise FoundryError(f"{path.parent / row.location}: {row.message}", hint="Run `gme umrb verify`.")
            yield row


def _content(row: Row, *, is_query: bool) -> Content:
    try:
        text = " ".join(filter(None, (text_cell(row.values.get(name)) for name in _TEXTS)))
        picture = picture_cell(row.values.get("image"))
    except CellError as error:
        raise FoundryError(f"{row.location}: {error}", hint="Run `gme umrb verify`.") from error
    if not isinstance(picture, bytes):
        return Content(text, picture, None, is_query)
    return Content(text, sha256_bytes(picture), difference_hash(decode_rgb(picture, row.location)), is_query)


def _first(row: Row, names: tuple[str, ...]) -> object:
    return next((row.values[name] for name in names if name in row.values), None)


def _tables(task: Path, stem: str) -> list[Path]:
    paths = (path for path in task.rglob("*") if path.is_file() and path.name.endswith(_SUFFIXES))
    return sorted(path for path in paths if _is_named_after(path, task, stem))


def _is_named_after(path: Path, task: Path, *stems: str) -> bool:
    """Says whether the name of the file, or of a folder that it is in, begins with one of the stems."""
    return any(part.startswith(stem) for part in path.relative_to(task).parts for stem in stems)
