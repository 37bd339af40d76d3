"""`gme corpus import`: the user's own passages and pictures become a corpus on disk.

Rows that can't be used are left out and counted by reason, with file and row; a missing column stops the import.
Titles, names, captions and values of facts lose markup and invisible characters here, since entity groups and look-ups
go by them; passages stay as they are until the first step of synthesis. Memory does not grow with the rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from gme_data.cells import CellError, facts_cell, id_cell, list_cell, text_cell
from gme_data.errors import FoundryError
from gme_data.images import ROW_GROUP_ROWS, SCHEMA
from gme_data.parquet import write_shards
from gme_data.progress import Progress
from gme_data.steps import Counts, StepContext
from gme_data.structured import read_json
from gme_data.tables import Row, RowError, Table, count_by_suffix, open_table
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.import_config import COLUMNS, ImportConfig
from gme_synthesis.corpus.import_index import ImportIndex, ReasonCount
from gme_synthesis.corpus.import_pictures import PictureSource
from gme_synthesis.corpus.store import IMAGES, write_captions, write_passages
from gme_synthesis.funnel import write_rejects
from gme_synthesis.steps.cleaning import plain_label

SUMMARY = "summary.json"
_BATCH_ROWS = 1000
_TEXT_COLUMNS = ("text", "title", "kind", "domain", "entity_group", "picture", "page", "licence", "source")


@dataclass(frozen=True, slots=True)
class _ReasonRow:
    reason: str
    rows: int
    first: str


@dataclass(frozen=True, slots=True)
class _SummaryFile:
    """The content of ``summary.json``."""

    rejects: tuple[_ReasonRow, ...]
    passed_over: str


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What an import left out.

    Attributes:
        reasons: Counts of refused rows and pictures by reason, with the first of each.
        passed_over: Files in the folders that are neither tables nor pictures, by suffix.
    """

    reasons: tuple[ReasonCount, ...]
    passed_over: str

    def write(self, folder: Path) -> None:
        """Writes ``summary.json`` beside the corpus."""
        content = {"rejects": [reason._asdict() for reason in self.reasons], "passed_over": self.passed_over}
        (folder / SUMMARY).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> ImportSummary:
        """Reads the file that `write` wrote.

        Raises:
            FoundryError: The file is damaged.
        """
        content = read_json(folder / SUMMARY, _SummaryFile, max_bytes=2**30, hint="Import the corpus again.")
        reasons = (ReasonCount(row.reason, row.rows, row.first) for row in content.rejects)
        return cls(tuple(reasons), content.passed_over)

    def lines(self) -> list[str]:
        """Returns a line for each reason, for people."""
        lines = [f"{reason.rows:,} x {reason.reason}, first {reason.first}" for reason in self.reasons]
        return lines + [f"passed over: {self.passed_over}"] * bool(self.passed_over)


def import_corpus(config: ImportConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes the corpus; see `gme_synthesis.corpus.store` for its files.

    Raises:
        FoundryError: A file or column is missing, or no passage can be used.
    """
    del inputs
    table, pictures = open_table(config.passages, config.encoding, pages=True), PictureSource(config.pictures)
    documents = [file for file in table.files if file.format == "pdf"]
    tables = tuple(file for file in table.files if file.format != "pdf")  # the columns of a PDF are ours
    columns = {"text": "text", **config.columns}.values()
    hint = "Say which column it is: `corpus: {columns: {text: YOUR_COLUMN}}` in the config."
    replace(table, files=tables).require_columns(columns, hint)
    staging = context.staging
    index = ImportIndex(staging / ".import.sqlite", config.pictures)
    try:
        # Pictures first: passages look theirs up in the index.
        rows = pictures.store_rows(index, config.source, config.licence, documents)
        write_shards(staging / IMAGES, "images", rows, SCHEMA, row_group_rows=ROW_GROUP_ROWS)
        write_passages(staging, map(index.add_passage, _read_passages(table, config, index)))
        passed_over = count_by_suffix([*table.passed_over, *pictures.passed_over])
        summary = ImportSummary(tuple(index.reasons()), passed_over)
        if not index.passages:
            reasons = "; ".join(summary.lines()) or "no rows"
            raise FoundryError(
                f"{config.passages}: no passage that can be used: {reasons}.",
                hint="The column `text` must not be empty, and `facts` is a JSON object of field: value.",
            )
        write_captions(staging, index.captions())
        write_rejects(staging / "rejects", index.rejects())
        summary.write(staging)
        return {
            "passages": index.passages,
            "pictures": index.count_pictures(),
            "with_title": index.titled,
            "with_picture": index.pictured,
            "rejects": sum(reason.rows for reason in summary.reasons),
        }
    finally:
        index.close()


class _Fields(NamedTuple):
    """The cells of a row, checked, before its id is known to be new and its pictures are looked up."""

    row: Row
    id: str
    texts: dict[str, str]
    aliases: tuple[str, ...]
    facts: dict[str, str]


def _read_passages(table: Table, config: ImportConfig, index: ImportIndex) -> Iterator[Candidate]:
    """Yields the passages that can be used; the others become rejects in `index`."""
    user_columns = {name: config.columns.get(name, name) for name in COLUMNS}
    batch: list[_Fields] = []
    number = -1
    with Progress("import", table.count(), "rows") as progress:
        for file in table.files:
            columns = dict(zip(COLUMNS, COLUMNS, strict=True)) if file.format == "pdf" else user_columns
            present = file.columns()
            has_ids = present is not None and columns["id"] in present
            for number, row in enumerate(file.rows(tuple(columns.values())), start=number + 1):  # noqa: B020 - goes on
                if isinstance(row, RowError):
                    index.reject(row.reason, row.location, row.location, f"{row.message}: {row.text}")
                    continue
                # Lines of JSON may have an id or not. Once one has, a line without one is a defect.
                has_ids = has_ids or columns["id"] in row.values
                fields = _read_fields(row, columns, index, None if has_ids else number)
                if fields is not None:
                    batch.append(fields)
                if len(batch) == _BATCH_ROWS:
                    yield from _to_passages(batch, config, index)
                    batch = []
                    # By row number, so that rejected rows count as done.
                    progress.advance(number + 1 - progress.done)
        yield from _to_passages(batch, config, index)
        progress.advance(number + 1 - progress.done)


def _read_fields(row: Row, columns: Mapping[str, str], index: ImportIndex, number: int | None) -> _Fields | None:
    """Returns the checked cells of a row, or None if the row is rejected.

    Args:
        row: The row, with the file's own column names.
        columns: Our names of columns -> the file's.
        index: Gets the reject.
        number: Number of the row in the table, which is its id where the file has no ids; else None.
    """
    values = row.values
    cells = {name: values[theirs] for name, theirs in columns.items() if theirs in values}
    id_, column = "", "id"  # what the reject names if a cell is bad
    texts = dict.fromkeys(_TEXT_COLUMNS, "")
    try:
        id_ = f"{number:08d}" if number is not None else id_cell(cells.get("id"))
        for column in _TEXT_COLUMNS:
            if column in cells:
                texts[column] = text_cell(cells[column])
        column = "aliases"
        aliases = tuple(list_cell(cells.get("aliases")))
        column = "facts"
        facts = facts_cell(cells.get("facts"))
    except CellError as error:
        index.reject(error.reason, id_ or row.location, row.location, f"column {columns[column]!r}: {error}")
        return None
    if not texts["text"].strip():
        index.reject("no-text", id_, row.location, f"column {columns['text']!r} is empty")
        return None
    return _Fields(row, id_, texts, aliases, facts)


def _to_passages(batch: Sequence[_Fields], config: ImportConfig, index: ImportIndex) -> Iterator[Candidate]:
    """Yields the passages of a batch whose ids are new, with their pictures."""
    earlier = index.add_ids([(fields.id, fields.row.location) for fields in batch])
    for row, id_, texts, aliases, facts in batch:
        location = row.location
        if earlier and earlier[location]:
            detail = f"the id {id_!r} stands at {earlier[location]}: {texts['text'][:200]}"
            index.reject("same-id-twice", id_, location, detail)
            continue
        title = plain_label(texts["title"])
        yield Candidate(
            id=id_,
            text=texts["text"],
            title=title,
            aliases=tuple(filter(None, map(plain_label, aliases))),
            kind=plain_label(texts["kind"]),
            domain=texts["domain"],
            # Passages of one title are about one entity; a passage without a title is an entity of its own.
            entity_group=texts["entity_group"] or title.casefold() or id_,
            facts={name: plain for name, value in facts.items() if (plain := plain_label(value))},
            licence=texts["licence"] or config.licence,
            source=texts["source"] or config.source,
            picture=_look_up_picture("picture", texts["picture"], id_, row, index),
            page=_look_up_picture("page", texts["page"], id_, row, index),
        )


def _look_up_picture(column: str, name: str, id_: str, row: Row, index: ImportIndex) -> str:
    """Returns the image id of the picture that a row names; without a name, of the picture named like the passage."""
    if name and not name.isspace():
        match = index.match_name(name)
    elif column == "picture":
        match = index.match_stem(id_)
    else:
        return ""
    if match.problem:
        index.reject(f"{column}-{match.problem}", id_, row.location, match.detail)
    return match.image
