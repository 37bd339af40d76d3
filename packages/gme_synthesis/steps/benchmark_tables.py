"""What benchmark tasks hold, wherever they came from: tasks in the shape of `gme_data.tasks`, and fetched repositories.

A fetched repository has tables of queries, documents and judgements, each a file or a folder, with pictures in their
rows. Knows tables; what is compared with them is the business of `gme_synthesis.steps.contamination`.
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
        image: Image id; None without a picture.
        look: Difference hash of the picture.
    """

    text: str
    image: str | None
    look: int | None
    is_query: bool


def benchmark_tasks(folder: Path) -> list[Path]:
    """Folders of the tasks at any depth below a folder.

    Raises:
        FoundryError: There is none.
    """
    ours = sorted(path.parent for path in folder.rglob(CARD))
    fetched = sorted(path for path in folder.glob("*") if path.is_dir() and _tables(path, "quer"))
    # A task of ours has a table of queries as well.
    found = ours + [path for path in fetched if not any(task.is_relative_to(path) for task in ours)]
    if not found:
        raise FoundryError(
            f"{folder}: no evaluation tasks to keep apart from.",
            hint="Give folders with task.yaml files, or one that `gme umrb fetch` filled.",
        )
    return found


def contents_of(task: Path, compared: Compared) -> Iterator[Content]:
    """Queries of a task, and documents as far as they are compared.

    Raises:
        FoundryError: A table can't be read.
    """
    reader = _contents_of_ours if (task / CARD).is_file() else _contents_of_fetched
    return reader(task, compared)


def table_files(task: Path) -> list[Path]:
    """The files that make up a task."""
    if (task / CARD).is_file():
        return sorted(task.glob("*.parquet"))
    return [path for stem in _TABLE_NAMES for path in _tables(task, stem)]


def _contents_of_ours(task: Path, compared: Compared) -> Iterator[Content]:
    store = ImageStore([folder for folder in image_folders([task]) if folder.is_dir()])

    def content(row: dict[str, Any], *, is_query: bool) -> Content:
        image = row["image"]
        look = difference_hash(store.load(image)) if image and image in store else None
        return Content(row["text"] or "", image, look, is_query)

    for row in read_rows(task / "queries.parquet", QUERIES_SCHEMA):
        yield content(row, is_query=True)
    if compared == "queries":
        return
    answers = None
    if compared == "answers":
        judged = read_rows(task / "qrels.parquet", QRELS_SCHEMA)
        answers = {row["doc_id"] for row in judged if row["relevance"] > 0}
    for row in read_rows(task / "corpus.parquet", CORPUS_SCHEMA):
        if answers is None or row["id"] in answers:
            yield content(row, is_query=False)


def _contents_of_fetched(task: Path, compared: Compared) -> Iterator[Content]:
    queries, answers = _judged(task)
    for row in _rows(task, "quer"):
        if not queries or str(_first(row, _IDS["quer"])) in queries:
            yield _content(row, is_query=True)
    if compared == "queries":
        return
    for row in _rows(task, "corpus"):
        if compared == "pools" or str(_first(row, _IDS["corpus"])) in answers:
            yield _content(row, is_query=False)


def _judged(task: Path) -> tuple[set[str], set[str]]:
    """Ids of the queries that are judged, and of the documents that answer them, in any split but the one for training.

    A repository of BEIR has the queries of all splits in one table, and the judgements of each in a file of a folder
    that may have any name, such as ``default``.
    """
    queries: set[str] = set()
    answers: set[str] = set()
    for path in sorted(task.rglob("*")):
        if not path.is_file() or not path.name.endswith(_SUFFIXES) or _is_of(path, task, "quer", "corpus", "train"):
            continue
        for row in open_table(path).rows():
            if isinstance(row, Row) and {"query-id", "corpus-id"} <= row.values.keys():
                queries.add(str(row.values["query-id"]))
                answers |= {str(row.values["corpus-id"])} if _is_relevant(row.values.get("score")) else set()
    return queries, answers


def _is_relevant(score: object) -> bool:
    try:
        return relevance_cell(score) > 0
    except CellError:
        return True  # of a pair without a grade it is said that it belongs together


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
    return sorted(path for path in paths if _is_of(path, task, stem))


def _is_of(path: Path, task: Path, *stems: str) -> bool:
    """Whether the file, or the folder of the repository that it is in, is called after one of the tables."""
    return any(part.startswith(stem) for part in path.relative_to(task).parts for stem in stems)
