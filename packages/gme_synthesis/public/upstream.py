"""Rows of public sets as pairs: each layout in which their files lie on the hub.

* ``columns``, ``tevatron``, ``mmeb``: rows are pairs already, see `gme_synthesis.pairs.layouts`.
* ``m-beir``: rows name documents of a pool, and a table has the instructions.
* ``beir``: queries, corpus and judgements, each a table.
* ``classes``: labelled pictures; each is the positive of the picture of its class before it.
* ``pages``: documents with questions; documents of one page alone are taken.
* ``urls``: rows name pictures by their address.
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
from gme_synthesis.public.pictures import Archives, Read, read_below, read_by_address
from gme_synthesis.public.sampling import draw, take
from gme_synthesis.public.store import UNPACKED, URL_PICTURES, SetFiles, files_of, home

Rows = Iterator[Row | RowError]
_REPRESENT = re.compile(r"Represent the given (?:cropped )?image(?: of the object)?\.?")
"""What MMEB says to a document that is a picture; GME says nothing to documents."""


class UpstreamRows:
    """The rows of a set that are drawn; what `gme_synthesis.pairs.importing` reads pairs from. Close it when done.

    Args:
        choice: The set, and how many of its rows.
        data: Folder of fetched sets.
        seed: Decides which rows.
    """

    def __init__(self, choice: SetChoice, data: Path, seed: int) -> None:
        self._choice, self._data, self._seed = choice, data, seed
        self._set = choice.upstream
        self._files: SetFiles = files_of(choice, data)
        self._total = sum(map(_count, self._files.paths("qrels" if self._set.layout == "beir" else "rows", data)))
        zipped = [path for path in self._files.paths("pictures", data) if path.suffix == ".zip"]
        self._archives = Archives(zipped) if zipped else None

    def close(self) -> None:
        """Close archives of pictures."""
        if self._archives:
            self._archives.close()

    def count(self) -> int:
        """Rows that are drawn."""
        return min(self._total, self._choice.rows or self._total)

    def rows(self) -> Rows:
        """The rows that are drawn, in the layout that `reader` takes."""
        layouts = {"beir": self._beir, "classes": self._classes, "pages": self._pages}
        return layouts.get(self._set.layout, self._drawn)()

    def reader(self, first: Row) -> Reader:
        """A function from the values of a row to a pair."""
        del first
        layout = self._set.layout
        if layout == "m-beir":
            return _with_pictures(self._m_beir_reader(), self._read)
        named = self._set.columns if layout in ("columns", "urls") else {}
        read = reader_of(layout if layout in ("tevatron", "mmeb") else "columns", named, {})
        return _with_pictures(_without_boilerplate(read) if layout == "mmeb" else read, self._read)

    @property
    def _read(self) -> Read:
        if self._archives:
            return self._archives.read
        folder = home(self._data, self._set.repository)
        return read_by_address(folder / URL_PICTURES) if self._set.layout == "urls" else read_below(folder / UNPACKED)

    def _drawn(self) -> Rows:
        drawn = draw(self._total, self._choice.rows, self._seed, self._choice.name)
        return take((row for path in self._files.paths("rows", self._data) for row in open_table(path).rows()), drawn)

    def _beir(self) -> Rows:
        drawn = draw(self._total, self._choice.rows, self._seed, self._choice.name)
        (qrels,), (queries,), (corpus,) = (
            self._files.paths(role, self._data) for role in ("qrels", "queries", "corpus")
        )
        judged = [row for row in take(open_table(qrels).rows(), drawn) if isinstance(row, Row)]
        texts = _texts(queries, {_id_of(row, "query-id") for row in judged})
        docs = _texts(corpus, {_id_of(row, "corpus-id") for row in judged})
        for row in judged:
            try:
                score = relevance_cell(row.values.get("score"))
            except CellError as error:
                yield RowError(row.file, row.unit, row.number, error.reason, str(error))
                continue
            query, doc = texts.get(_id_of(row, "query-id"), ""), docs.get(_id_of(row, "corpus-id"), "")
            yield row._replace(values={"query": query, "positive": doc, "score": score})

    def _classes(self) -> Rows:
        picture, label = self._set.columns["picture"], self._set.columns["label"]
        before: dict[str, Any] = {}
        for row in self._drawn():
            if isinstance(row, RowError):
                yield row
                continue
            try:
                name = id_cell(row.values.get(label))
            except CellError as error:
                yield RowError(row.file, row.unit, row.number, error.reason, str(error))
                continue
            if name in before:
                values = {"query_picture": before[name], "positive_picture": row.values.get(picture), "entity": name}
                yield row._replace(values=values)
            before[name] = row.values.get(picture)

    def _pages(self) -> Rows:
        pictures, questions = self._set.columns["pictures"], self._set.columns["questions"]
        for row in self._drawn():
            if isinstance(row, RowError):
                yield row
                continue
            pages, asked = row.values.get(pictures) or [], row.values.get(questions) or []
            if len(pages) != 1:
                message = f"a document of {len(pages)} pages doesn't say which of them answers"
                yield RowError(row.file, row.unit, row.number, "several-pages", message)
                continue
            for question in asked:
                said = question.get("user") if isinstance(question, Mapping) else question
                values = {"query": said, "positive_picture": pages[0], "entity": row.location}
                yield row._replace(values=values)

    def _m_beir_reader(self) -> Reader:
        ids = {
            # The card shows objects, the files have the ids themselves.
            str(entry.get("did") if isinstance(entry, Mapping) else entry)
            for row in self._drawn()
            if isinstance(row, Row)
            for name in ("pos_cand_list", "neg_cand_list")
            for entry in row.values.get(name) or []
        }
        (pool,) = self._files.paths("pool", self._data)
        (table,) = self._files.paths("instructions", self._data)
        return _instructed(reader_of("m-beir", {}, _pool(pool, ids)), _instructions(table))


def _count(path: Path) -> int:
    table = open_table(path)
    known = table.count()
    return sum(1 for _ in table.rows()) if known is None else known


def _pool(path: Path, ids: set[str]) -> dict[str, PairSide]:
    """Documents of M-BEIR's pool by id, as far as they are wanted."""
    known: dict[str, PairSide] = {}
    for row in open_table(path).rows():
        if isinstance(row, Row) and row.values.get("did") in ids:
            try:
                id_, part = candidate(row.values)
            except CellError:
                continue  # the pairs that name it are refused, and counted
            known[id_] = part
    return known


def _id_of(row: Row, column: str) -> str:
    return str(row.values.get(column))


def _texts(path: Path, ids: set[str]) -> dict[str, str]:
    """Title and text of the rows of a BEIR table, by id, as far as they are wanted."""
    by_id: dict[str, str] = {}
    for row in open_table(path).rows():
        if isinstance(row, Row) and (id_ := str(row.values.get("_id"))) in ids:
            said = (row.values.get("title"), row.values.get("text"))
            by_id[id_] = " ".join(part for part in said if isinstance(part, str) and part).strip()
    return by_id


def _with_pictures(read: Reader, pictures: Read) -> Reader:
    """A reader whose pairs hold the bytes of the pictures that rows name."""

    def shown(part: PairSide) -> PairSide:
        return part._replace(picture=pictures(part.picture)) if isinstance(part.picture, str) else part

    def read_shown(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        return pair._replace(
            query=shown(pair.query),
            positives=tuple(map(shown, pair.positives)),
            negatives=tuple(map(shown, pair.negatives)),
        )

    return read_shown


def _without_boilerplate(read: Reader) -> Reader:
    """A reader of MMEB's rows whose documents are pictures alone where all that is said is to represent the picture."""

    def bare(part: PairSide) -> PairSide:
        said = part.picture is not None and _REPRESENT.fullmatch(part.text.strip())
        return part._replace(text="") if said else part

    def read_bare(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        return pair._replace(positives=tuple(map(bare, pair.positives)), negatives=tuple(map(bare, pair.negatives)))

    return read_bare


Instructions = Mapping[tuple[str, str, str], tuple[str, ...]]
"""M-BEIR's wordings of an instruction by data set, modality of the query and of the document."""


def _instructions(path: Path) -> Instructions:
    by_case: dict[tuple[str, str, str], tuple[str, ...]] = {}
    table = open_table(path)
    table.require_columns(("dataset_id", "query_modality", "cand_modality"), "It is M-BEIR's query_instructions.tsv.")
    for row in table.rows():
        if isinstance(row, Row):
            wordings = (text_cell(cell) for name, cell in row.values.items() if name.startswith("prompt"))
            key = tuple(text_cell(row.values[name]) for name in ("dataset_id", "query_modality", "cand_modality"))
            by_case[key[0], _modality(key[1]), _modality(key[2])] = tuple(filter(None, wordings))
    return by_case


def _instructed(read: Reader, instructions: Instructions) -> Reader:
    def read_instructed(values: Mapping[str, Any]) -> Pair:
        pair = read(values)
        qid = text_cell(values.get("qid"))
        asked, answered = (_modality_of(part) for part in (pair.query, *pair.positives[:1], PairSide("", None))[:2])
        wordings = instructions.get((qid.partition(":")[0], asked, answered), ())
        # One of the wordings, always the same for a query.
        number = int(hashlib.sha256(qid.encode()).hexdigest()[:8], 16)
        return pair._replace(instruction=wordings[number % len(wordings)] if wordings else "")

    return read_instructed


def _modality(text: str) -> str:
    return ",".join(sorted(part.strip() for part in text.split(",")))


def _modality_of(part: PairSide) -> str:
    return ",".join(["image"] * (part.picture is not None) + ["text"] * bool(part.text.strip()))
