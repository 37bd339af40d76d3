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
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import datasets  # type: ignore[import-untyped]
import numpy as np

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError, did_you_mean
from gme_data.parquet import read_rows
from gme_data.tasks import Document, Query, TaskCard
from umrb.dataset_side import DatasetSide
from umrb.metrics import Ints
from umrb.mteb_data import instruction_of
from umrb.registry import Dataset
from umrb.tasks import NumberedTask, Qrels, number

_LICENCES = {"flickr30k-cn": "research only (Flickr)", "dci": "cc-by-nc-4.0", "mmeb": "as the source of each task"}
Row = TypeVar("Row", Query, Document)
_IMAGE_TOKEN = re.compile(r"<\|image_\d+\|>\s*")

Contents = dict[str, dict[str, Any]]
"""Row id -> ``text`` and ``image`` (bytes, or a path), as far as there are any."""
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


def _flickr30k_cn(dataset: Dataset, data: Path) -> Found:
    texts: Contents = {}
    right: dict[str, dict[str, int]] = {}
    index, tsv = _index_files(dataset, data)
    for line in _lines(index):
        row = _json(index, line)
        id_ = str(_field(index, row, "text_id"))
        texts[id_] = {"text": str(_field(index, row, "text"))}
        right[id_] = {str(image): 1 for image in _field(index, row, "image_ids")}
    images: Contents = {}
    for number_of, line in enumerate(_lines(tsv), start=1):
        id_, _, encoded = line.partition("\t")
        try:
            images[id_] = {"image": base64.b64decode(encoded, validate=True)}
        except binascii.Error as error:
            raise FoundryError(f"{tsv}, line {number_of}: expected an id, a tab and base64: {error}") from error
    return _directed(dataset, texts, images, right)


def _dci(dataset: Dataset, data: Path) -> Found:
    (index,) = _index_files(dataset, data)
    home = index.parent
    texts: Contents = {}
    images: Contents = {}
    for names in _json(index, _read(index)).values():
        for name in names:
            path = home / "annotations" / name
            row = _json(path, _read(path))
            texts[name] = {
                "text": f"{_field(path, row, 'short_caption')}\n{_field(path, row, 'extra_caption')}".strip()
            }
            images[name] = {"image": _existing(home / "photos" / str(_field(path, row, "image")))}
    return _directed(dataset, texts, images, {name: {name: 1} for name in texts})


def _mmeb(dataset: Dataset, data: Path) -> Found:
    queries: Contents = {}
    docs: Contents = {}
    right: dict[str, dict[str, int]] = {}
    candidates: dict[str, list[str]] = {}
    known: dict[tuple[str, str], str] = {}
    images = data / "MMEB-eval" / "images"
    files = _index_files(dataset, data)
    for path in files:
        for row in read_rows(path):
            id_ = f"q{len(queries):06d}"
            queries[id_] = _mmeb_item(images, _field(path, row, "qry_text"), _field(path, row, "qry_img_path"))
            pairs = zip(_field(path, row, "tgt_text"), _field(path, row, "tgt_img_path"), strict=True)
            # A candidate that stands twice is one document: equal contents have equal scores.
            candidates[id_] = [known.setdefault(pair, f"c{len(known):06d}") for pair in pairs]
            right[id_] = {candidates[id_][0]: 1}
    docs |= {id_: _mmeb_item(images, *pair) for pair, id_ in known.items()}
    return queries, docs, right, candidates


def _mmeb_item(images: Path, text: str | None, image: str | None) -> dict[str, Any]:
    plain = _IMAGE_TOKEN.sub("", text or "").strip()
    found: dict[str, Any] = {"text": plain} if plain else {}
    return {**found, "image": _existing(images / image)} if image else found


_READERS: dict[str, Callable[[Dataset, Path], Found]] = {"flickr30k-cn": _flickr30k_cn, "dci": _dci, "mmeb": _mmeb}


def _directed(dataset: Dataset, texts: Contents, images: Contents, right: dict[str, dict[str, int]]) -> Found:
    """Texts ask for pictures, or, by the type of the dataset, pictures for texts."""
    if dataset.task_type == "T->I":
        return texts, images, right, None
    turned: dict[str, dict[str, int]] = {id_: {} for id_ in images}
    for text, found in right.items():
        for image in found:
            turned.setdefault(image, {})[text] = 1
    return images, texts, turned, None


def _side(
    dataset: Dataset, contents: Contents, make: Callable[[str, Any], Row], *, descending: bool
) -> DatasetSide[Row]:
    columns: dict[str, list[Any]] = {"id": list(contents)}
    features: dict[str, Any] = {"id": datasets.Value("string")}
    modalities = {name for content in contents.values() for name in content}
    if "text" in modalities:
        columns["text"] = [content.get("text", "") for content in contents.values()]
        features["text"] = datasets.Value("string")
    if "image" in modalities:
        columns["image"] = [_encoded(content.get("image")) for content in contents.values()]
        features["image"] = datasets.Image(decode=False)
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    return DatasetSide(dataset.id, table, frozenset(modalities), make, descending=descending)


def _encoded(image: Path | bytes | None) -> dict[str, Any] | None:
    if image is None:
        return None
    return {"bytes": image, "path": None} if isinstance(image, bytes) else {"bytes": None, "path": str(image)}


def _made_of(contents: Contents) -> str:
    modalities = {name for content in contents.values() for name in content}
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
    if not path.is_file():
        near = did_you_mean(path.name, (one.name for one in path.parent.glob("*"))) if path.parent.is_dir() else ""
        raise FoundryError(
            f"Missing picture: {path}.{near}", hint="Fetch and unpack the pictures too; docs/umrb.md shows where."
        )
    return path


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise FoundryError(f"Missing file: {path}.", hint="docs/umrb.md shows the layout of each dataset.") from error


def _lines(path: Path) -> Iterator[str]:
    return (line for line in _read(path).splitlines() if line)


def _json(path: Path, text: str) -> Any:  # noqa: ANN401 - any JSON value
    try:
        return json.loads(text)
    except ValueError as error:
        raise FoundryError(f"{path} is not the JSON that is published: {error}") from error


def _field(path: Path, row: Mapping[str, Any], name: str) -> Any:  # noqa: ANN401
    if name not in row:
        raise FoundryError(f"{path}: field '{name}' is missing; found {', '.join(row)}.{did_you_mean(name, row)}")
    return row[name]
