"""Reads rows of the common layouts of pairs into one form: a query, its positives and its negatives.

* ``columns``: sentence-transformers' ``anchor, positive, negative_1 ...``, or any columns that the config names.
* ``tevatron``: ``query, positive_passages, negative_passages`` with title and text, as Tevatron's MS MARCO.
* ``ms-swift``: ``messages, positive_messages, negative_messages`` and their pictures, ``<image>`` standing for one.
* ``mmeb``: ``qry, qry_image_path, pos_text, pos_image_path, neg_text, neg_image_path``, as MMEB-train.
* ``m-beir``: ``query_txt, query_img_path, pos_cand_list, neg_cand_list`` with ids into a candidate pool.

Knows no file and no picture store: a picture is a name or the bytes of a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

from gme_data.cells import CellError, is_missing, picture_cell, text_cell
from gme_data.task_tables import relevance_cell

Values = Mapping[str, Any]
_IMAGE_TAG = re.compile(r"<\|?image(?:_\d+)?\|?>\s*")
"""The placeholder of ms-swift and MMEB for a picture, which is in a column of its own."""
_COLUMN_SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "query": ("query", "anchor", "question", "sentence1", "text1"),
        "query_picture": ("query_picture", "query_image", "anchor_image"),
        "positive": ("positive", "pos", "answer", "document", "passage", "sentence2", "text2"),
        "positive_picture": ("positive_picture", "positive_image", "image"),
        "score": ("score", "label", "relevance"),
        "entity": ("entity", "entity_group", "group"),
        "instruction": ("instruction", "prompt"),
    }
)
_NEGATIVE = re.compile(r"neg(?:ative)?s?(?:_\d+)?")
_NEGATIVE_PICTURE = re.compile(r"negative_(?:picture|image)s?(?:_\d+)?")


class PairSide(NamedTuple):
    """A query or document of a pair, before its picture is looked up.

    Attributes:
        text: The text; empty if there is none.
        picture: Name, path or bytes; None if there is none.
        score: Grade of a document; 1 where the row has none, 0 or less for a document that does not answer.
    """

    text: str
    picture: str | bytes | None
    score: int = 1

    def __bool__(self) -> bool:
        return self.picture is not None or (self.text != "" and not self.text.isspace())


class Pair(NamedTuple):
    """A row: the query, one or several positives, negatives, and the entity that it is about, if the row names one."""

    query: PairSide
    positives: tuple[PairSide, ...]
    negatives: tuple[PairSide, ...]
    entity: str = ""
    instruction: str = ""


Reader = Callable[[Values], Pair]


def layout_of(values: Values) -> str:
    """Returns the layout of a row, by its column names."""
    columns = {
        "positive_messages": "ms-swift",
        "positive_passages": "tevatron",
        "qry": "mmeb",
        "pos_cand_list": "m-beir",
    }
    return next((layout for name, layout in columns.items() if name in values), "columns")


def reader_of(layout: str, columns: Mapping[str, str], pool: Mapping[str, PairSide]) -> Reader:
    """Returns a function from the values of a row to a pair; it raises `CellError` for values that it can't read.

    Args:
        layout: One of the layouts.
        columns: Our name of a column -> its name in the row, for ``columns``.
        pool: Candidates by id, for ``m-beir``.
    """
    readers: dict[str, Reader] = {
        "columns": _columns_reader(columns),
        "tevatron": _tevatron,
        "ms-swift": _ms_swift,
        "mmeb": _mmeb,
        "m-beir": lambda values: _m_beir(values, pool),
    }
    return readers[layout]


def candidate(values: Values) -> tuple[str, PairSide]:
    """Returns id and document of a row of M-BEIR's candidate pool.

    Raises:
        CellError: The row has no id, or neither a text nor a picture.
    """
    document = PairSide(text_cell(values.get("txt")), picture_cell(values.get("img_path")))
    if not document:
        raise CellError("empty-candidate", f"candidate {values.get('did')!r} has neither `txt` nor `img_path`")
    id_ = text_cell(values.get("did"))
    if not id_:
        raise CellError("no-id", "`did` is empty")
    return id_, document


@dataclass(frozen=True, slots=True)
class _ColumnNames:
    """The columns of a row by their roles.

    Attributes:
        by_role: Our name of a column -> its name in the row; negatives are not among them.
        negatives: Columns of negative texts.
        negative_pictures: Columns of negative pictures.
    """

    by_role: Mapping[str, str]
    negatives: tuple[str, ...]
    negative_pictures: tuple[str, ...]


def _resolve_columns(names: tuple[str, ...], columns: Mapping[str, str]) -> _ColumnNames:
    """Assigns roles to the columns of a row: those of the config first, then by synonym."""
    synonyms = {role: next((name for name in likely if name in names), "") for role, likely in _COLUMN_SYNONYMS.items()}
    by_role = {role: name for role, name in {**synonyms, **columns}.items() if name}
    negatives = [columns["negative"]] if "negative" in columns else filter(_NEGATIVE.fullmatch, names)
    pictures = (
        [columns["negative_picture"]] if "negative_picture" in columns else filter(_NEGATIVE_PICTURE.fullmatch, names)
    )
    return _ColumnNames(by_role, tuple(negatives), tuple(pictures))


def _columns_reader(columns: Mapping[str, str]) -> Reader:
    # Rows of JSON lines may differ in their columns: names are resolved once for each set of columns, not for each row.
    resolved: dict[tuple[str, ...], _ColumnNames] = {}

    def read(values: Values) -> Pair:
        names = tuple(values)
        if names not in resolved:
            resolved[names] = _resolve_columns(names, columns)
        return _columns(values, resolved[names])

    return read


def _columns(values: Values, names: _ColumnNames) -> Pair:
    cell = {role: values.get(name) for role, name in names.by_role.items()}
    score = _score(cell.get("score"))
    if len(names.negatives) == len(names.negative_pictures) == 1:  # text and picture of one document
        texts, pictures = (_as_list(values.get(name)) for name in (*names.negatives, *names.negative_pictures))
        negatives = _zip_sides(texts, pictures)
    else:
        negatives = [(text, None) for name in names.negatives for text in _as_list(values.get(name))]
        negatives += [(None, picture) for name in names.negative_pictures for picture in _as_list(values.get(name))]
    positives = _zip_sides(_as_list(cell.get("positive")), _as_list(cell.get("positive_picture")))
    return Pair(
        _side(cell.get("query"), cell.get("query_picture")),
        tuple([_side(text, picture, score) for text, picture in positives]),
        tuple([side for text, picture in negatives if (side := _side(text, picture))]),
        text_cell(cell.get("entity")),
        text_cell(cell.get("instruction")),
    )


def _side(text: object, picture: object, score: int = 1) -> PairSide:
    return PairSide(text_cell(text), None if picture is None else picture_cell(picture), score)


def _tevatron(values: Values) -> Pair:
    def passages(name: str) -> Iterator[PairSide]:
        listed = _as_list(values.get(name))
        if not all(isinstance(passage, Mapping) for passage in listed):
            raise CellError("bad-passages", f"`{name}`: expected a list of objects with `text`")
        for passage in listed:
            title, text = text_cell(passage.get("title")), text_cell(passage.get("text"))
            yield PairSide(f"{title} {text}".strip(), picture_cell(passage.get("image")), _score(passage.get("score")))

    positives, negatives = tuple(passages("positive_passages")), tuple(passages("negative_passages"))
    return Pair(PairSide(text_cell(values.get("query")), picture_cell(values.get("query_image"))), positives, negatives)


def _ms_swift(values: Values) -> Pair:
    def documents(name: str, pictures_name: str) -> tuple[PairSide, ...]:
        messages, pictures = (_as_list(values.get(column)) for column in (name, pictures_name))
        if len(pictures) > len(messages):
            raise CellError("uneven", f"`{pictures_name}` has {len(pictures)} members, `{name}` {len(messages)}")
        # The list of pictures may end early: the last documents have none.
        return tuple(map(_message_side, messages, [*pictures, *([] for _ in messages[len(pictures) :])]))

    return Pair(
        _message_side(values.get("messages"), values.get("images")),
        documents("positive_messages", "positive_images"),
        documents("negative_messages", "negative_images"),
    )


def _message_side(messages: object, pictures: object) -> PairSide:
    """Returns the text of a list of messages, without that of the system, and their picture."""
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise CellError("bad-messages", "expected a list of messages with `role` and `content`")
    texts = [text_cell(message.get("content")) for message in messages if message.get("role") != "system"]
    listed = _as_list(pictures)
    if len(listed) > 1:
        raise CellError("several-pictures", f"expected one picture at most, found {len(listed)}")
    return PairSide(_without_tags(" ".join(texts)), picture_cell(listed[0]) if listed else None)


def _mmeb(values: Values) -> Pair:
    def sides(name: str, text_name: str) -> list[PairSide]:
        texts, pictures = _as_list(values.get(text_name)), _as_list(values.get(f"{name}_image_path"))
        return [
            side
            for text, picture in _zip_sides(texts, pictures)
            if (side := PairSide(_without_tags(text_cell(text)), picture_cell(picture)))
        ]

    query = sides("qry", "qry")
    positives, negatives = sides("pos", "pos_text"), sides("neg", "neg_text")
    return Pair(query[0] if query else PairSide("", None), tuple(positives), tuple(negatives))


def _m_beir(values: Values, pool: Mapping[str, PairSide]) -> Pair:
    def documents(name: str) -> tuple[PairSide, ...]:
        listed = _as_list(values.get(name))
        # The card of M-BEIR shows objects, its files have the ids themselves.
        ids = [str(entry.get("did") if isinstance(entry, Mapping) else entry) for entry in listed]
        if missing := [id_ for id_ in ids if id_ not in pool]:
            raise CellError("unknown-candidate", f"`{name}` names {missing[0]!r}, which the candidates don't have")
        return tuple(pool[id_] for id_ in ids)

    query = PairSide(text_cell(values.get("query_txt")), picture_cell(values.get("query_img_path")))
    return Pair(query, documents("pos_cand_list"), documents("neg_cand_list"))


def _zip_sides(texts: list[Any], pictures: list[Any]) -> list[tuple[Any, Any]]:
    """Returns texts with their pictures; a list that is empty or has one member is repeated for each of the other."""
    if not pictures:  # the common case, of pairs of texts, returns early
        return [(text, None) for text in texts]
    length = max(len(texts), len(pictures))
    lists = [cells * length if len(cells) == 1 else cells or [None] * length for cells in (texts, pictures)]
    if any(len(cells) != length for cells in lists):
        raise CellError("uneven", f"found {len(texts)} texts and {len(pictures)} pictures, which can't belong together")
    return list(zip(*lists, strict=True))


def _as_list(value: object) -> list[Any]:
    """Returns the members of a cell that holds one or several values; an empty or missing cell has none."""
    if isinstance(value, str):  # the common case comes first, as this runs for every cell of every row
        return [value] if value else []
    if value is None or is_missing(value):
        return []
    return list(value) if isinstance(value, list | tuple) or hasattr(value, "tolist") else [value]  # type: ignore[call-overload]


def _score(value: object) -> int:
    """Returns a grade as a whole number; a missing one is 1."""
    if value is None or is_missing(value):
        return 1
    try:
        return relevance_cell(value)
    except CellError as error:
        raise CellError("bad-score", f"score: {error}") from error


def _without_tags(text: str) -> str:
    return _IMAGE_TAG.sub("", text).strip()
