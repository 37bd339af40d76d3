"""Rows of the layouts in which people keep pairs, as one: a query, what answers it, and what does not.

* ``columns``: sentence-transformers' ``anchor, positive, negative_1 ...``, or any columns that the config names.
* ``tevatron``: ``query, positive_passages, negative_passages`` with title and text, as Tevatron's MS MARCO.
* ``ms-swift``: ``messages, positive_messages, negative_messages`` and their pictures, ``<image>`` standing for one.
* ``mmeb``: ``qry, qry_image_path, pos_text, pos_image_path, neg_text, neg_image_path``, as MMEB-train.
* ``m-beir``: ``query_txt, query_img_path, pos_cand_list, neg_cand_list`` with ids into a candidate pool.

Knows no file and no picture store: a picture is a name or its bytes.
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
"""How ms-swift and MMEB mark where a picture stands; the picture itself is beside the text."""
_SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
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
    """A side of a pair before its picture is looked up.

    Attributes:
        text: The text; empty if there is none.
        picture: Name, path or bytes; None if there is none.
        score: How well it answers, above 0; 1 where nobody graded.
    """

    text: str
    picture: str | bytes | None
    score: int = 1

    def __bool__(self) -> bool:
        return self.picture is not None or (self.text != "" and not self.text.isspace())


class Pair(NamedTuple):
    """A row: the query, one or several positives, negatives, and what it is about if somebody says so."""

    query: PairSide
    positives: tuple[PairSide, ...]
    negatives: tuple[PairSide, ...]
    entity: str = ""
    instruction: str = ""


Reader = Callable[[Values], Pair]


def layout_of(values: Values) -> str:
    """The layout of a row, by the names in it."""
    signs = {"positive_messages": "ms-swift", "positive_passages": "tevatron", "qry": "mmeb", "pos_cand_list": "m-beir"}
    return next((layout for name, layout in signs.items() if name in values), "columns")


def reader_of(layout: str, columns: Mapping[str, str], pool: Mapping[str, PairSide]) -> Reader:
    """A function from the values of a row to a pair; it raises `CellError` for what it can't take.

    Args:
        layout: One of the layouts.
        columns: Our name of a column -> theirs, for ``columns``.
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
    """A line of M-BEIR's candidate pool: its id and what it is.

    Raises:
        CellError: It has no id, or neither a text nor a picture.
    """
    part = PairSide(text_cell(values.get("txt")), picture_cell(values.get("img_path")))
    if not part:
        raise CellError("empty-candidate", f"candidate {values.get('did')!r} has neither `txt` nor `img_path`")
    return _required_text(values, "did"), part


@dataclass(frozen=True, slots=True)
class _Names:
    """Their names of the columns of a row, worked out once for all rows of the same columns."""

    by_use: Mapping[str, str]
    negatives: tuple[str, ...]
    negative_pictures: tuple[str, ...]


def _names_of(names: tuple[str, ...], columns: Mapping[str, str]) -> _Names:
    known = {ours: next((name for name in likely if name in names), "") for ours, likely in _SYNONYMS.items()}
    by_use = {ours: theirs for ours, theirs in {**known, **columns}.items() if theirs}
    negatives = [columns["negative"]] if "negative" in columns else filter(_NEGATIVE.fullmatch, names)
    pictures = (
        [columns["negative_picture"]] if "negative_picture" in columns else filter(_NEGATIVE_PICTURE.fullmatch, names)
    )
    return _Names(by_use, tuple(negatives), tuple(pictures))


def _columns_reader(columns: Mapping[str, str]) -> Reader:
    known: dict[tuple[str, ...], _Names] = {}

    def read(values: Values) -> Pair:
        names = tuple(values)
        if names not in known:
            known[names] = _names_of(names, columns)
        return _columns(values, known[names])

    return read


def _columns(values: Values, names: _Names) -> Pair:
    cell = {ours: values.get(theirs) for ours, theirs in names.by_use.items()}
    score = _score(cell.get("score"))
    if len(names.negatives) == len(names.negative_pictures) == 1:  # text and picture of one document
        texts, pictures = (_listed(values.get(name)) for name in (*names.negatives, *names.negative_pictures))
        refused = _zipped(texts, pictures)
    else:
        refused = [(text, None) for name in names.negatives for text in _listed(values.get(name))]
        refused += [(None, picture) for name in names.negative_pictures for picture in _listed(values.get(name))]
    positives = _zipped(_listed(cell.get("positive")), _listed(cell.get("positive_picture")))
    return Pair(
        _part(cell.get("query"), cell.get("query_picture")),
        tuple([_part(text, picture, score) for text, picture in positives]),
        tuple([part for text, picture in refused if (part := _part(text, picture))]),
        text_cell(cell.get("entity")),
        text_cell(cell.get("instruction")),
    )


def _part(text: object, picture: object, score: int = 1) -> PairSide:
    return PairSide(text_cell(text), None if picture is None else picture_cell(picture), score)


def _tevatron(values: Values) -> Pair:
    def passages(name: str) -> Iterator[PairSide]:
        for passage in _objects(values, name):
            title, text = text_cell(passage.get("title")), text_cell(passage.get("text"))
            yield PairSide(f"{title} {text}".strip(), picture_cell(passage.get("image")), _score(passage.get("score")))

    positives, negatives = tuple(passages("positive_passages")), tuple(passages("negative_passages"))
    return Pair(PairSide(text_cell(values.get("query")), picture_cell(values.get("query_image"))), positives, negatives)


def _ms_swift(values: Values) -> Pair:
    def several(name: str, pictures: str) -> tuple[PairSide, ...]:
        said, shown = (_listed(values.get(column)) for column in (name, pictures))
        if len(shown) > len(said):
            raise CellError("uneven", f"`{pictures}` has {len(shown)} members, `{name}` {len(said)}")
        return tuple(map(_spoken, said, [*shown, *([] for _ in said[len(shown) :])]))

    return Pair(
        _spoken(values.get("messages"), values.get("images")),
        several("positive_messages", "positive_images"),
        several("negative_messages", "negative_images"),
    )


def _spoken(messages: object, pictures: object) -> PairSide:
    """What a list of messages says, with its picture."""
    if not isinstance(messages, Sequence) or not all(isinstance(message, Mapping) for message in messages):
        raise CellError("bad-messages", "expected a list of messages with `role` and `content`")
    texts = [text_cell(message.get("content")) for message in messages if message.get("role") != "system"]
    shown = _listed(pictures)
    if len(shown) > 1:
        raise CellError("several-pictures", f"expected one picture at most, found {len(shown)}")
    return PairSide(_without_tags(" ".join(texts)), picture_cell(shown[0]) if shown else None)


def _mmeb(values: Values) -> Pair:
    def side(name: str, text: str) -> tuple[PairSide, ...]:
        texts, pictures = _listed(values.get(text)), _listed(values.get(f"{name}_image_path"))
        parts = (
            PairSide(_without_tags(text_cell(said)), picture_cell(shown)) for said, shown in _zipped(texts, pictures)
        )
        return tuple(part for part in parts if part)

    query = side("qry", "qry")
    return Pair(query[0] if query else PairSide("", None), side("pos", "pos_text"), side("neg", "neg_text"))


def _m_beir(values: Values, pool: Mapping[str, PairSide]) -> Pair:
    def documents(name: str) -> tuple[PairSide, ...]:
        listed = _listed(values.get(name))
        ids = [str(entry.get("did") if isinstance(entry, Mapping) else entry) for entry in listed]
        if missing := [id_ for id_ in ids if id_ not in pool]:
            raise CellError("unknown-candidate", f"`{name}` names {missing[0]!r}, which the candidates don't have")
        return tuple(pool[id_] for id_ in ids)

    query = PairSide(text_cell(values.get("query_txt")), picture_cell(values.get("query_img_path")))
    return Pair(query, documents("pos_cand_list"), documents("neg_cand_list"))


def _zipped(texts: list[Any], pictures: list[Any]) -> list[tuple[Any, Any]]:
    """Texts with their pictures; where one side has none, or one alone, it goes with each of the other."""
    if not pictures:  # first, as nearly all pairs are texts
        return [(text, None) for text in texts]
    longest = max(len(texts), len(pictures))
    sides = [side * longest if len(side) == 1 else side or [None] * longest for side in (texts, pictures)]
    if any(len(side) != longest for side in sides):
        raise CellError("uneven", f"found {len(texts)} texts and {len(pictures)} pictures, which can't belong together")
    return list(zip(*sides, strict=True))


def _listed(value: object) -> list[Any]:
    """The members of a cell that holds one or several; nothing is none."""
    if isinstance(value, str):  # first, as nearly all are
        return [value] if value else []
    if value is None or is_missing(value):
        return []
    return list(value) if isinstance(value, list | tuple) or hasattr(value, "tolist") else [value]  # type: ignore[call-overload]


def _objects(values: Values, name: str) -> list[Mapping[str, Any]]:
    listed = _listed(values.get(name))
    if not all(isinstance(member, Mapping) for member in listed):
        raise CellError("bad-passages", f"`{name}`: expected a list of objects with `text`")
    return listed


def _score(value: object) -> int:
    """A grade as a whole number; nothing is 1."""
    if value is None or is_missing(value):
        return 1
    try:
        return relevance_cell(value)
    except CellError as error:
        raise CellError("bad-score", f"score: {error}") from error


def _required_text(values: Values, name: str) -> str:
    text = text_cell(values.get(name))
    if not text:
        raise CellError("no-id", f"`{name}` is empty")
    return text


def _without_tags(text: str) -> str:
    return _IMAGE_TAG.sub("", text).strip()
