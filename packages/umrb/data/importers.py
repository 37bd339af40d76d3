"""Reads datasets that mteb does not have from the layouts in which their authors publish them.

* ``flickr30k-cn``: ``Flickr30k-CN/test_texts.jsonl`` and ``test_imgs.tsv``, as Chinese-CLIP distributes them.
* ``dci``: ``densely_captioned_images/`` with ``splits.json``, ``annotations/`` and ``photos/``; a caption is the short
  one and the extra one joined, as in long-caption retrieval.
* ``mmeb``: ``MMEB-eval/<task>/test-*.parquet`` and ``MMEB-eval/images/``; each query has its own candidates, of which
  the first is right.

Nothing is fetched. Knows layouts; no model and no metric.
"""

from __future__ import annotations

import base64
import binascii
import re
from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import datasets  # type: ignore[import-untyped]
import numpy as np

from gme_data.cells import CellError, id_cell, text_cell
from gme_data.digests import sha256_file
from gme_data.errors import FoundryError, did_you_mean
from gme_data.parquet import read_rows
from gme_data.paths import check_below
from gme_data.structured import StructureError, parse_json, read_regular
from gme_data.tables import Row as TableRow
from gme_data.tables import open_table
from gme_data.tables.textfile import Lines
from gme_data.tasks import Document, Query, TaskCard
from umrb.data.dataset_side import DatasetSide
from umrb.data.mteb_data import files_stamp, instruction_of
from umrb.registry import Dataset
from umrb.data.tasks import NumberedTask, Qrels, number

_LICENCES = {"flickr30k-cn": "research only (Flickr)", "dci": "cc-by-nc-4.0", "mmeb": "as the source of each task"}
Row = TypeVar("Row", Query, Document)
Value = TypeVar("Value")
_AS_PUBLISHED = "Fetch the files again as they are published; docs/umrb.md shows where."
_MAX_JSON_BYTES = 2**31
"""JSON files up to this size are read at once."""
_IMAGE_TOKEN = re.compile(r"<\|image_\d+\|>\s*")

Contents = list[tuple[str, dict[str, Any]]]
"""Row ids, each with ``text`` and ``image`` (bytes, or a path) as far as the row has them. Repeated ids stay in the
list: `umrb.data.tasks.defects` reports them."""
Imported = tuple[Contents, Contents, dict[str, dict[str, int]], dict[str, list[str]] | None]
"""Queries, documents, judgements, and the candidates of each query if it has its own."""


def import_task(dataset: Dataset, data: Path) -> tuple[NumberedTask, Qrels, str]:
    """Read a task.

    Args:
        dataset: Row of the registry; its ``source`` names the layout.
        data: Folder that contains the published folder.

    Returns:
        The task, its judgements, and a digest of the files that name its contents, in place of a revision.

    Raises:
        FoundryError: A file is missing or not of the published form; the message names it.
    """
    queries, docs, judged, candidates = _READERS[dataset.source](dataset, data)
    licence = _LICENCES[dataset.source]
    qrels = Qrels.of(judged)
    query_side = _side(dataset, queries, lambda id_, item: Query(id_, item, "", "", licence), descending=False)
    doc_side = _side(dataset, docs, lambda id_, item: Document(id_, item, "", licence), descending=True)
    # MMEB's own types, such as "vqa", say nothing of modalities.
    is_typed = "->" in dataset.task_type
    task_type = dataset.task_type if is_typed else f"{_modalities(queries)}->{_modalities(docs)}"
    card = TaskCard.model_validate(
        {
            "name": dataset.tasks[0],
            "task_type": task_type,
            "metric": dataset.metric,
            "instruction": instruction_of(dataset),
            "split": "test",
            "subset": "",
            "description": dataset.note or dataset.name,
            "relevance": "as published",
            "licences": (licence,),
            "queries": len(query_side),
            "pool": len(doc_side),
        }
    )
    task = number(card, query_side, doc_side, qrels)
    if candidates is not None:
        row = {id_: number for number, id_ in enumerate(doc_side.ids.to_pylist())}
        rows = tuple(
            np.array([row[candidate] for candidate in candidates[id_]], dtype=np.int64)
            for id_ in query_side.ids.to_pylist()
        )
        task = replace(task, candidates=rows)
    digest = "-".join(sha256_file(path)[:12] for path in _index_files(dataset, data))
    return task, qrels, digest


def files_version(dataset: Dataset, data: Path) -> str | None:
    """Name the present state of a task's files by sizes and times; None if they are not there."""
    names = {
        "flickr30k-cn": ("Flickr30k-CN",),
        "dci": ("densely_captioned_images",),
        "mmeb": (f"MMEB-eval/{dataset.tasks[0]}", "MMEB-eval/images"),
    }[dataset.source]
    folders = [data / name for name in names]
    return files_stamp(*folders) if folders[0].is_dir() else None


def _flickr30k_cn(dataset: Dataset, data: Path) -> Imported:
    texts: Contents = []
    judged: dict[str, dict[str, int]] = {}
    index, pictures = _index_files(dataset, data)
    for row in open_table(index).rows():
        if not isinstance(row, TableRow):
            raise FoundryError(f"{index.parent / row.location}: {row.message}.", hint=_AS_PUBLISHED)
        where = f"{index.parent / row.location}"
        id_ = _field(where, row.values, "text_id", id_cell)
        texts.append((id_, {"text": _field(where, row.values, "text", text_cell)}))
        judged.setdefault(id_, {}).update(dict.fromkeys(_field(where, row.values, "image_ids", _ids), 1))
    images: Contents = []
    with Lines(_existing(pictures), "utf-8") as lines:
        for number_of, line in lines:
            if line.strip():
                images.append(_encoded_picture(f"{pictures}, line {number_of}", line))
    return _directed(dataset, texts, images, judged)


def _encoded_picture(where: str, line: str) -> tuple[str, dict[str, Any]]:
    id_, _, encoded = line.rstrip("\r\n").partition("\t")
    try:
        picture = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FoundryError(f"{where}: expected an id, a tab and base64: {error}.", hint=_AS_PUBLISHED) from error
    if not id_.strip() or not picture:
        raise FoundryError(f"{where}: expected an id, a tab and base64.", hint=_AS_PUBLISHED)
    return id_.strip(), {"image": picture}


def _dci(dataset: Dataset, data: Path) -> Imported:
    (index,) = _index_files(dataset, data)
    folder = index.parent
    splits = _json(index)
    if not all(isinstance(names, list) for names in splits.values()):
        raise FoundryError(f"{index}: expected a list of names for each split.", hint=_AS_PUBLISHED)
    texts: Contents = []
    images: Contents = []
    # The benchmark takes the pictures of all splits.
    for name in (name for names in splits.values() for name in names):
        path = _inside(str(index), folder / "annotations", name)
        row = _json(path)
        captions = [_field(str(path), row, field, text_cell) for field in ("short_caption", "extra_caption")]
        texts.append((name, {"text": "\n".join(captions).strip()}))
        picture = _field(str(path), row, "image", text_cell)
        images.append((name, {"image": _existing(_inside(str(path), folder / "photos", picture))}))
    return _directed(dataset, texts, images, {name: {name: 1} for name, _ in texts})


def _mmeb(dataset: Dataset, data: Path) -> Imported:
    queries: Contents = []
    judged: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    id_of: dict[tuple[str, str], str] = {}
    items: dict[str, dict[str, Any]] = {}
    images = data / "MMEB-eval" / "images"
    for path in _index_files(dataset, data):
        for number_of, row in enumerate(read_rows(path)):
            where = f"{path}, row {number_of}"
            id_ = f"q{len(queries):06d}"
            text, image = (_field(where, row, field, text_cell) for field in ("qry_text", "qry_img_path"))
            queries.append((id_, _mmeb_item(where, images, text, image)))
            texts, pictures = (_field(where, row, field, _texts) for field in ("tgt_text", "tgt_img_path"))
            if len(texts) != len(pictures) or not texts:
                raise FoundryError(
                    f"{where}: {len(texts)} tgt_text and {len(pictures)} tgt_img_path; as many, and one at least, "
                    f"expected.",
                    hint=_AS_PUBLISHED,
                )
            for pair in zip(texts, pictures, strict=True):
                # Equal candidates are one document: equal contents have equal scores.
                if pair not in id_of:
                    id_of[pair] = f"c{len(id_of):06d}"
                    items[id_of[pair]] = _mmeb_item(where, images, *pair)
            candidates[id_] = [id_of[pair] for pair in zip(texts, pictures, strict=True)]
            judged[id_] = {candidates[id_][0]: 1}
    return queries, list(items.items()), judged, candidates


def _mmeb_item(where: str, images: Path, text: str, image: str) -> dict[str, Any]:
    # The text marks the position of the picture by a placeholder such as <|image_1|>.
    plain = _IMAGE_TOKEN.sub("", text).strip()
    content: dict[str, Any] = {"text": plain} if plain else {}
    return {**content, "image": _existing(_inside(where, images, image))} if image else content


_READERS: dict[str, Callable[[Dataset, Path], Imported]] = {"flickr30k-cn": _flickr30k_cn, "dci": _dci, "mmeb": _mmeb}


def _directed(dataset: Dataset, texts: Contents, images: Contents, judged: dict[str, dict[str, int]]) -> Imported:
    """Make texts the queries and pictures the documents, or the reverse, by the type of the dataset."""
    if dataset.task_type == "T->I":
        return texts, images, judged, None
    reversed_: dict[str, dict[str, int]] = {id_: {} for id_, _ in images}
    for text, relevant in judged.items():
        for image in relevant:
            reversed_.setdefault(image, {})[text] = 1
    return images, texts, reversed_, None


def _side(
    dataset: Dataset, contents: Contents, make: Callable[[str, Any], Row], *, descending: bool
) -> DatasetSide[Row]:
    columns: dict[str, list[Any]] = {"id": [id_ for id_, _ in contents]}
    features: dict[str, Any] = {"id": datasets.Value("string")}
    modalities = {name for _, content in contents for name in content}
    if "text" in modalities:
        columns["text"] = [content.get("text", "") for _, content in contents]
        features["text"] = datasets.Value("string")
    if "image" in modalities:
        columns["image"] = [_encoded(content.get("image")) for _, content in contents]
        features["image"] = datasets.Image(decode=False)
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return DatasetSide(dataset.id, table, frozenset(modalities), make, descending=descending)


def _encoded(image: Path | bytes | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": str(image)}


def _modalities(contents: Contents) -> str:
    modalities = {name for _, content in contents for name in content}
    return ("I" if "image" in modalities else "") + ("T" if "text" in modalities else "")


def _index_files(dataset: Dataset, data: Path) -> list[Path]:
    """The files that name the contents of a task."""
    if dataset.source == "flickr30k-cn":
        return [data / "Flickr30k-CN" / name for name in ("test_texts.jsonl", "test_imgs.tsv")]
    if dataset.source == "dci":
        return [data / "densely_captioned_images" / "splits.json"]
    folder = data / "MMEB-eval" / dataset.tasks[0]
    files = sorted(folder.glob("test-*.parquet"))
    if not files:
        raise FoundryError(f"No test-*.parquet in {folder}.", hint="Fetch TIGER-Lab/MMEB-eval into that folder.")
    return files


def _existing(path: Path) -> Path:
    """Return the path of a picture, or of a table of pictures, if the file exists; else raise."""
    if not path.is_file():
        near = did_you_mean(path.name, (sibling.name for sibling in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise FoundryError(
            f"Missing file: {path}.{near}", hint="Fetch and unpack the pictures too; docs/umrb.md shows where."
        )
    return path


def _inside(where: str, folder: Path, name: object) -> Path:
    """Return the path of a file below `folder` by its name in a table; raise for names that lead outside."""
    try:
        return folder / check_below(PurePosixPath(name).as_posix() if isinstance(name, str) else "")
    except ValueError as error:
        raise FoundryError(f"{where}: {name!r} is no path of a file below {folder}.", hint=_AS_PUBLISHED) from error


def _json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object."""
    try:
        data = read_regular(path, _MAX_JSON_BYTES)
        return parse_json(data.removeprefix(BOM_UTF8), dict[str, Any], where=str(path), max_bytes=_MAX_JSON_BYTES)
    except FileNotFoundError as error:
        raise FoundryError(f"Missing file: {path}.", hint="docs/umrb.md shows the layout of each dataset.") from error
    except StructureError as error:
        raise FoundryError(f"{path} is not the JSON that is published: {error.reason}", hint=_AS_PUBLISHED) from error


def _field(where: str, row: Mapping[str, Any], name: str, read: Callable[[object], Value]) -> Value:
    """Return a field of a row, converted by `read`."""
    if name not in row:
        raise FoundryError(f"{where}: field '{name}' is missing; found {', '.join(row)}.{did_you_mean(name, row)}")
    try:
        return read(row[name])
    except CellError as error:
        raise FoundryError(f"{where}, field '{name}': {error}.", hint=_AS_PUBLISHED) from error


def _ids(value: object) -> list[str]:
    return [id_cell(member) for member in _list(value)]


def _texts(value: object) -> list[str]:
    return [text_cell(member) for member in _list(value)]


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise CellError("not-a-list", f"expected a list, found {type(value).__name__}")
    return value
