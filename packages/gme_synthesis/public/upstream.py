"""Rows of public sets as pairs: each layout in which their files lie on the hub.

* ``columns``, ``tevatron``, ``mmeb``: rows are pairs already, see `gme_synthesis.pairs.layouts`.
* ``m-beir``: rows name documents of a pool, and a table has the instructions.
* ``beir``: queries, corpus and judgements, each a table.
* ``classes``: labelled pictures; each is the positive of the picture of its class before it.
* ``pages``: documents with questions; documents of more than one page are refused.
* ``urls``: rows name pictures by URL.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gme_data.cells import CellError, id_cell, text_cell
from gme_data.tables import Row, RowError, open_table
from gme_data.task_tables import relevance_cell
from gme_synthesis.pairs.layouts import Pair, PairSide, Reader, candidate, reader_of
from gme_synthesis.public.config import SetChoice
from gme_synthesis.public.pictures import Archives, ReadPicture, folder_reader, url_reader
from gme_synthesis.public.sampling import sample_rows, select_rows
from gme_synthesis.public.store import UNPACKED, URL_PICTURES, SetFiles, files_of, repository_folder

Rows = Iterator[Row | RowError]
_REPRESENT = re.compile(r"Represent the given (?:cropped )?image(?: of the object)?\.?")
"""MMEB's instruction to a document that is a picture; GME puts no instruction before documents."""


class UpstreamRows:
    """The sampled rows of a set, as `gme_synthesis.pairs.importing` reads pairs from them. Close it when done.

    Args:
        choice: The set, and how many of its rows are sampled.
        data: Folder of fetched sets.
        seed: Decides which rows.
    """

    def __init__(self, choice: SetChoice, data: Path, seed: int) -> None:
        self._choice, self._data, self._seed = choice, data, seed
        self._set = choice.upstream
        self._files: SetFiles = files_of(choice, data)
        self._total = sum(map(_count, self._files.paths("qrels" if self._set.layout == "beir" else "rows", data)))
        # ZIP archives are read in place; members of other archives were unpacked by the fetch.
        zipped = [path for path in self._files.paths("pictures", data) if path.suffix == ".zip"]
        self._archives = Archives(zipped) if zipped else None

    def close(self) -> None:
        """Closes archives of pictures."""
        if self._archives:
            self._archives.close()

    def count(self) -> int:
        """Returns the number of sampled rows."""
        return min(self._total, self._choice.rows or self._total)

    def rows(self) -> Rows:
        """Returns the sampled rows, in the layout that `reader` reads."""
        layouts = {"beir": self._beir, "classes": self._classes, "pages": self._pages}
        return layouts.get(self._set.layout, self._sampled_rows)()

    def reader(self, first: Row) -> Reader:
        """Returns a function from the values of a row to a pair; the registry states the layout, not `first`."""
        del first
        layout = self._set.layout
        if layout == "m-beir":
            return _with_picture_bytes(self._m_beir_reader(), self._read_picture)
        columns = self._set.columns if layout in ("columns", "urls") else {}
        read = reader_of(layout if layout in ("tevatron", "mmeb") else "columns", columns, {})
        return _with_picture_bytes(_without_boilerplate(read) if layout == "mmeb" else read, self._read_picture)

    @property
    def _read_picture(self) -> ReadPicture:
        if self._archives:
            return self._archives.read
        folder = repository_folder(self._data, self._set.repository)
        return url_reader(folder / URL_PICTURES) if self._set.layout == "urls" else folder_reader(folder / UNPACKED)

    def _sampled_rows(self) -> Rows:
        sampled = sample_rows(self._total, self._choice.rows, self._seed, self._choice.name)
        rows = (row for path in self._files.paths("rows", self._data) for row in open_table(path).rows())
        return select_rows(rows, sampled)

    def _beir(self) -> Rows:
        # Rows are judgements here; of queries and corpus only what the sampled ones name is kept in memory.
        sampled = sample_rows(self._total, self._choice.rows, self._seed, self._choice.name)
        (qrels,), (queries,), (corpus,) = (
            self._files.paths(role, self._data) for role in ("qrels", "queries", "corpus")
        )
        judgements = [row for row in select_rows(open_table(qrels).rows(), sampled) if isinstance(row, Row)]
        query_texts = _read_texts(queries, {_id_of(row, "query-id") for row in judgements})
        document_texts = _read_texts(corpus, {_id_of(row, "corpus-id") for row in judgements})
        for row in judgements:
            try:
                score = relevance_cell(row.values.get("score"))
            except CellError as error:
                yield RowError(row.file, row.unit, row.number, error.reason, str(error))
                continue
            query = query_texts.get(_id_of(row, "query-id"), "")
            document = document_texts.get(_id_of(row, "corpus-id"), "")
            yield row._replace(values={"query": query, "positive": document, "score": score})

    def _classes(self) -> Rows:
        picture, label = self._set.columns["picture"], self._set.columns["label"]
        # Each picture is paired with the one before it in its class, so memory holds one picture for each class.
        latest: dict[str, Any] = {}
        for row in self._sampled_rows():
            if isinstance(row, RowError):
                yield row
                continue
            try:
                name = id_cell(row.values.get(label))
            except CellError as error:
                yield RowError(row.file, row.unit, row.number, error.reason, str(error))
                continue
            if name in latest:
                values = {"query_picture": latest[name], "positive_picture": row.values.get(picture), "entity": name}
                yield row._replace(values=values)
            latest[name] = row.values.get(picture)

    def _pages(self) -> Rows:
        pages_column, questions_column = self._set.columns["pictures"], self._set.columns["questions"]
        for row in self._sampled_rows():
            if isinstance(row, RowError):
                yield row
                continue
            pages, questions = row.values.get(pages_column) or [], row.values.get(questions_column) or []
            # The question of a longer document is about one of its pages, and nothing says which.
            if len(pages) != 1:
                message = f"a document of {len(pages)} pages doesn't say which of them answers"
                yield RowError(row.file, row.unit, row.number, "several-pages", message)
                continue
            for question in questions:
                text = question.get("user") if isinstance(question, Mapping) else question
                values = {"query": text, "positive_picture": pages[0], "entity": row.location}
                yield row._replace(values=values)

    def _m_beir_reader(self) -> Reader:
        # Rows are read twice, here for ids alone: the pool has millions of documents, and only those named are loaded.
        ids = {
            # The card shows objects, the files have the ids themselves.
            str(entry.get("did") if isinstance(entry, Mapping) else entry)
            for row in self._sampled_rows()
            if isinstance(row, Row)
            for name in ("pos_cand_list", "neg_cand_list")
            for entry in row.values.get(name) or []
        }
        (pool,) = self._files.paths("pool", self._data)
        (table,) = self._files.paths("instructions", self._data)
        return _with_instructions(reader_of("m-beir", {}, _read_pool(pool, ids)), _read_instructions(table))


def _count(path: Path) -> int:
    table = open_table(path)
    count = table.count()
    return sum(1 for _ in table.rows()) if count is None else count


def _read_pool(path: Path, ids: set[str]) -> dict[str, PairSide]:
    """Returns the documents of M-BEIR's pool that have one of `ids`, by id."""
    documents: dict[str, PairSide] = {}
    for row in open_table(path).rows():
        if isinstance(row, Row) and row.values.get("did") in ids:
            try:
                id_, document = candidate(row.values)
            except CellError:
                continue  # the pairs that name it are refused, and counted
            documents[id_] = document
    return documents


def _id_of(row: Row, column: str) -> str:
    return str(row.values.get(column))


def _read_texts(path: Path, ids: set[str]) -> dict[str, str]:
    """Returns title and text of the rows of a BEIR table that have one of `ids`, by id."""
    by_id: dict[str, str] = {}
    for row in open_table(path).rows():
        if isinstance(row, Row) and (id_ := str(row.values.get("_id"))) in ids:
            cells = (row.values.get("title"), row.values.get("text"))
            by_id[id_] = " ".join(cell for cell in cells if isinstance(cell, str) and cell).strip()
    return by_id


def _with_picture_bytes(read: Reader, read_picture: ReadPicture) -> Reader:
    """Returns a reader whose pairs hold the bytes of the pictures that rows name."""

    def load(side: PairSide) -> PairSide:
        return side._replace(picture=read_picture(side.picture)) if isinstance(side.picture, str) else side

    def read_and_load(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        return pair._replace(
            query=load(pair.query),
            positives=tuple(map(load, pair.positives)),
            negatives=tuple(map(load, pair.negatives)),
        )

    return read_and_load


def _without_boilerplate(read: Reader) -> Reader:
    """Returns a reader of MMEB's rows that drops a document's text if it is only the instruction to its picture."""

    def strip(side: PairSide) -> PairSide:
        is_boilerplate = side.picture is not None and _REPRESENT.fullmatch(side.text.strip())
        return side._replace(text="") if is_boilerplate else side

    def read_and_strip(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        return pair._replace(positives=tuple(map(strip, pair.positives)), negatives=tuple(map(strip, pair.negatives)))

    return read_and_strip


Instructions = Mapping[tuple[str, str, str], tuple[str, ...]]
"""M-BEIR's wordings of an instruction by data set, modality of the query and of the document."""


def _read_instructions(path: Path) -> Instructions:
    by_case: dict[tuple[str, str, str], tuple[str, ...]] = {}
    table = open_table(path)
    table.require_columns(("dataset_id", "query_modality", "cand_modality"), "It is M-BEIR's query_instructions.tsv.")
    for row in table.rows():
        if isinstance(row, Row):
            wordings = (text_cell(cell) for name, cell in row.values.items() if name.startswith("prompt"))
            key = tuple(text_cell(row.values[name]) for name in ("dataset_id", "query_modality", "cand_modality"))
            by_case[key[0], _modality(key[1]), _modality(key[2])] = tuple(filter(None, wordings))
    return by_case


def _with_instructions(read: Reader, instructions: Instructions) -> Reader:
    """Returns a reader whose pairs have one of M-BEIR's instructions for their data set and modalities."""

    def read_with_instruction(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        qid = text_cell(values.get("qid"))
        document = pair.positives[0] if pair.positives else PairSide("", None)
        # The first part of M-BEIR's query ids is the id of the data set.
        wordings = instructions.get((qid.partition(":")[0], _modality_of(pair.query), _modality_of(document)), ())
        # The digest makes the choice the same in every run, whatever the order of rows.
        number = int(hashlib.sha256(qid.encode()).hexdigest()[:8], 16)
        return pair._replace(instruction=wordings[number % len(wordings)] if wordings else "")

    return read_with_instruction


def _modality(text: str) -> str:
    return ",".join(sorted(part.strip() for part in text.split(",")))


def _modality_of(side: PairSide) -> str:
    return ",".join(["image"] * (side.picture is not None) + ["text"] * bool(side.text.strip()))
