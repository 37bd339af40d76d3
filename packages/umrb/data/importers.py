"""Datasets that mteb does not have, read from the layout in which their authors publish them.

* ``flickr30k-cn``: ``Flickr30k-CN/test_texts.jsonl`` and ``test_imgs.tsv``, as Chinese-CLIP distributes them.
* ``dci``: ``densely_captioned_images/`` with ``splits.json``, ``annotations/`` and ``photos/``; a caption is the short
  one and the rest, as in long-caption retrieval.
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
from umrb.metrics import Ints
from umrb.data.mteb_data import files_stamp, instruction_of
from umrb.registry import Dataset
from umrb.data.tasks import NumberedTask, Qrels, number

_LICENCES = {"flickr30k-cn": "research only (Flickr)", "dci": "cc-by-nc-4.0", "mmeb": "as the source of each task"}
Row = TypeVar("Row", Query, Document)
Value = TypeVar("Value")
_AS_PUBLISHED = "Fetch the files again as they are published; docs/umrb.md shows where."
_LARGEST = 2**31
"""Bytes of a JSON file that is read at once."""
_IMAGE_TOKEN = re.compile(r"<\|image_\d+\|>\s*")

Contents = list[tuple[str, dict[str, Any]]]
"""Row ids, each with ``text`` and ``image`` (bytes, or a path), as far as there are any. An id that stands twice is for
integrity to find."""
Found = tuple[Contents, Contents, dict[str, dict[str, int]], dict[str, list[str]] | None]
"""Queries, documents, judgements, and the candidates of each query if it has its own."""


def import_task(dataset: Dataset, data: Path) -> tuple[NumberedTask, Qrels, str]:
    """Read a task.

    Args:
        dataset: Its row in the registry; its ``source`` names the layout.
        data: Folder that holds the published folder.

    Returns:
        The task, its judgements, and a digest of the files that name its contents, in place of a revision.

    Raises:
        FoundryError: A file is missing or not of the published form; names it.
    """
    queries, docs, judged, candidates = _READERS[dataset.source](dataset, data)
    licence = _LICENCES[dataset.source]
    qrels = Qrels.of(judged)
    asked = _side(dataset, queries, lambda id_, item: Query(id_, item, "", "", licence), descending=False)
    pool = _side(dataset, docs, lambda id_, item: Document(id_, item, "", licence), descending=True)
    kind = dataset.task_type if "->" in dataset.task_type else f"{_made_of(queries)}->{_made_of(docs)}"
    card = TaskCard.model_validate(
        {
            "name": dataset.tasks[0],
            "task_type": kind,
            "metric": dataset.metric,
            "instruction": instruction_of(dataset),
            "split": "test",
            "subset": "",
            "description": dataset.note or dataset.name,
            "relevance": "as published",
            "licences": (licence,),
            "queries": len(asked),
            "pool": len(pool),
        }
    )
    task = number(card, asked, pool, qrels)
    if candidates is not None:
        row = {id_: number for number, id_ in enumerate(pool.ids.to_pylist())}
        task = replace(task, candidates=tuple(_rows(row, candidates[id_]) for id_ in asked.ids.to_pylist()))
    return task, qrels, _digest(_index_files(dataset, data))


def files_version(dataset: Dataset, data: Path) -> str | None:
    """Names the files of a task as they lie, by sizes and times; None if they are not there."""
    homes = {
        "flickr30k-cn": ("Flickr30k-CN",),
        "dci": ("densely_captioned_images",),
        "mmeb": (f"MMEB-eval/{dataset.tasks[0]}", "MMEB-eval/images"),
    }[dataset.source]
    folders = [data / home for home in homes]
    return files_stamp(*folders) if folders[0].is_dir() else None


def _flickr30k_cn(dataset: Dataset, data: Path) -> Found:
    texts: Contents = []
    right: dict[str, dict[str, int]] = {}
    index, pictures = _index_files(dataset, data)
    for row in open_table(index).rows():
        if not isinstance(row, TableRow):
            raise FoundryError(f"{index.parent / row.location}: {row.message}.", hint=_AS_PUBLISHED)
        where = f"{index.parent / row.location}"
        id_ = _field(where, row.values, "text_id", id_cell)
        texts.append((id_, {"text": _field(where, row.values, "text", text_cell)}))
        right.setdefault(id_, {}).update(dict.fromkeys(_field(where, row.values, "image_ids", _ids), 1))
    images: Contents = []
    with Lines(_existing(pictures), "utf-8") as lines:
        for number_of, line in lines:
            if line.strip():
                images.append(_encoded_picture(f"{pictures}, line {number_of}", line))
    return _directed(dataset, texts, images, right)


def _encoded_picture(where: str, line: str) -> tuple[str, dict[str, Any]]:
    id_, _, encoded = line.rstrip("\r\n").partition("\t")
    try:
        picture = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise FoundryError(f"{where}: expected an id, a tab and base64: {error}.", hint=_AS_PUBLISHED) from error
    if not id_.strip() or not picture:
        raise FoundryError(f"{where}: expected an id, a tab and base64.", hint=_AS_PUBLISHED)
    return id_.strip(), {"image": picture}


def _dci(dataset: Dataset, data: Path) -> Found:
    (index,) = _index_files(dataset, data)
    home = index.parent
    splits = _json(index)
    if not all(isinstance(names, list) for names in splits.values()):
        raise FoundryError(f"{index}: expected a list of names for each split.", hint=_AS_PUBLISHED)
    texts: Contents = []
    images: Contents = []
    for name in (name for names in splits.values() for name in names):
        path = _inside(str(index), home / "annotations", name)
        row = _json(path)
        captions = [_field(str(path), row, field, text_cell) for field in ("short_caption", "extra_caption")]
        texts.append((name, {"text": "\n".join(captions).strip()}))
        picture = _field(str(path), row, "image", text_cell)
        images.append((name, {"image": _existing(_inside(str(path), home / "photos", picture))}))
    return _directed(dataset, texts, images, {name: {name: 1} for name, _ in texts})


def _mmeb(dataset: Dataset, data: Path) -> Found:
    queries: Contents = []
    right: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    known: dict[tuple[str, str], str] = {}
    items: dict[str, dict[str, Any]] = {}
    images = data / "MMEB-eval" / "images"
    for path in _index_files(dataset, data):
        for number_of, row in enumerate(read_rows(path)):
            where = f"{path}, row {number_of}"
            id_ = f"q{len(queries):06d}"
            asked = [_field(where, row, field, text_cell) for field in ("qry_text", "qry_img_path")]
            queries.append((id_, _mmeb_item(where, images, *asked)))
            texts, pictures = (_field(where, row, field, _texts) for field in ("tgt_text", "tgt_img_path"))
            if len(texts) != len(pictures) or not texts:
                raise FoundryError(
                    f"{where}: {len(texts)} tgt_text and {len(pictures)} tgt_img_path; as many, and one at least, "
                    f"expected.",
                    hint=_AS_PUBLISHED,
                )
            for pair in zip(texts, pictures, strict=True):
                # A candidate that stands twice is one document: equal contents have equal scores.
                if pair not in known:
                    known[pair] = f"c{len(known):06d}"
                    items[known[pair]] = _mmeb_item(where, images, *pair)
            candidates[id_] = [known[pair] for pair in zip(texts, pictures, strict=True)]
            right[id_] = {candidates[id_][0]: 1}
    return queries, list(items.items()), right, candidates


def _mmeb_item(where: str, images: Path, text: str, image: str) -> dict[str, Any]:
    plain = _IMAGE_TOKEN.sub("", text).strip()
    found: dict[str, Any] = {"text": plain} if plain else {}
    return {**found, "image": _existing(_inside(where, images, image))} if image else found


_READERS: dict[str, Callable[[Dataset, Path], Found]] = {"flickr30k-cn": _flickr30k_cn, "dci": _dci, "mmeb": _mmeb}


def _directed(dataset: Dataset, texts: Contents, images: Contents, right: dict[str, dict[str, int]]) -> Found:
    """Texts ask for pictures, or, by the type of the dataset, pictures for texts."""
    if dataset.task_type == "T->I":
        return texts, images, right, None
    turned: dict[str, dict[str, int]] = {id_: {} for id_, _ in images}
    for text, found in right.items():
        for image in found:
            turned.setdefault(image, {})[text] = 1
    return images, texts, turned, None


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


def _made_of(contents: Contents) -> str:
    modalities = {name for _, content in contents for name in content}
    return ("I" if "image" in modalities else "") + ("T" if "text" in modalities else "")


def _rows(known: Mapping[str, int], ids: list[str]) -> Ints:
    return np.array([known[id_] for id_ in ids], dtype=np.int64)


def _index_files(dataset: Dataset, data: Path) -> list[Path]:
    """The files that name the contents of a task."""
    if dataset.source == "flickr30k-cn":
        return [data / "Flickr30k-CN" / name for name in ("test_texts.jsonl", "test_imgs.tsv")]
    if dataset.source == "dci":
        return [data / "densely_captioned_images" / "splits.json"]
    folder = data / "MMEB-eval" / dataset.tasks[0]
    found = sorted(folder.glob("test-*.parquet"))
    if not found:
        raise FoundryError(f"No test-*.parquet in {folder}.", hint="Fetch TIGER-Lab/MMEB-eval into that folder.")
    return found


def _digest(files: list[Path]) -> str:
    return "-".join(sha256_file(path)[:12] for path in files)


def _existing(path: Path) -> Path:
    """The path of a picture, or of a table of pictures, that is there."""
    if not path.is_file():
        near = did_you_mean(path.name, (one.name for one in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise FoundryError(
            f"Missing file: {path}.{near}", hint="Fetch and unpack the pictures too; docs/umrb.md shows where."
        )
    return path


def _inside(where: str, folder: Path, name: object) -> Path:
    """A file below `folder`, by the name that a table gives it."""
    try:
        return folder / check_below(PurePosixPath(name).as_posix() if isinstance(name, str) else "")
    except ValueError as error:
        raise FoundryError(f"{where}: {name!r} is no path of a file below {folder}.", hint=_AS_PUBLISHED) from error


def _json(path: Path) -> dict[str, Any]:
    """The object that a file holds."""
    try:
        data = read_regular(path, _LARGEST)
        return parse_json(data.removeprefix(BOM_UTF8), dict[str, Any], where=str(path), max_bytes=_LARGEST)
    except FileNotFoundError as error:
        raise FoundryError(f"Missing file: {path}.", hint="docs/umrb.md shows the layout of each dataset.") from error
    except StructureError as error:
        raise FoundryError(f"{path} is not the JSON that is published: {error.reason}", hint=_AS_PUBLISHED) from error


def _field(where: str, row: Mapping[str, Any], name: str, read: Callable[[object], Value]) -> Value:
    """A field of a row, as `read` takes it."""
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
