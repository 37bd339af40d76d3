"""Tiny data sets as they lie on the hub: config names, columns and splits of each family, ids and counts of our own.

Everything asks for a colour by its name or its square, so that any model that sees at all does better than chance.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
from PIL import Image

from umrb.data.mteb_data import local_copy

COLOURS = {
    "red": (220, 30, 30), "green": (20, 150, 60), "blue": (30, 60, 210), "yellow": (240, 210, 20),
    "purple": (120, 40, 160), "orange": (245, 130, 20), "grey": (120, 120, 120), "brown": (110, 60, 20),
}  # fmt: skip
NAMES = sorted(COLOURS)
PER_FAMILY = {
    "BEIR": ("SciFact", "TRECCOVID", "MSMARCO", "ArguAna"),
    "CQADupStack": ("CQADupstackGisRetrieval",),
    "M-BEIR": (
        "WebQAT2TRetrieval",
        "NIGHTSI2IRetrieval",
        "VisualNewsT2IRetrieval",
        "MSCOCOI2TRetrieval",
        "EDIST2ITRetrieval",
        "OVENIT2TRetrieval",
        "CIRRIT2IRetrieval",
        "InfoSeekIT2ITRetrieval",
    ),
    "ViDoRe": ("VidoreTatdqaRetrieval",),
    "Flickr30k": ("Flickr30kT2IRetrieval", "Flickr30kI2TRetrieval"),
    "UMRB exports": ("ReMuQIT2TRetrieval", "OKVQAIT2TRetrieval", "LLaVAIT2TRetrieval", "EncyclopediaVQAIT2ITRetrieval"),
}
TASKS = [name for names in PER_FAMILY.values() for name in names]


def square(name: str, stripe: int) -> bytes:
    """A PNG of a colour with a white stripe."""
    pixels = np.full((40, 40, 3), COLOURS[name], dtype=np.uint8)
    pixels[stripe : stripe + 4] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def picture(name: str, stripe: int) -> dict[str, Any]:
    return {"bytes": square(name, stripe), "path": None}


def write_repository(folder: Path, configs: Mapping[tuple[str, str], Iterable[dict[str, Any]]]) -> None:
    """A dataset repository: a Parquet file per config and split, and the card that names them."""
    lines = ["---", "configs:"]
    for (config, split), rows in configs.items():
        listed = list(rows)
        table = datasets.Dataset.from_list(listed)
        if "text" in table.column_names:
            table = table.cast_column("text", datasets.Value("string"))
        for column, kind in (("image", datasets.Image), ("video", datasets.Video)):
            if column in table.column_names:
                table = table.cast_column(column, kind(decode=False)).cast_column(column, kind())
        path = folder / config / f"{split}-00000-of-00001.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path)
        lines += [f"- config_name: {config}", "  data_files:", f"  - split: {split}", f"    path: {config}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_task(data: Path, name: str, **changes: Any) -> Path:
    """The local copy of a task's repository, in the schema of its family.

    Args:
        data: The folder of all local copies.
        name: Of the task.
        changes: ``lost`` (ids of documents to leave out), ``twice`` (an id to repeat), ``empty`` (an id to blank).
    """
    metadata = mteb.get_task(name).metadata
    folder = local_copy(data, metadata.dataset["path"])
    query, _, doc = (metadata.category or "").partition("2")
    split = "dev" if name == "MSMARCO" else "test"
    queries = [_row(f"q{number}", n, query, 6, f"Which square is {n}?") for number, n in enumerate(NAMES)]
    docs = [_row(f"d{number}", n, doc, 26, f"The {n} square is {n}.") for number, n in enumerate(NAMES)]
    docs = _damaged(docs, **changes)
    pairs = [(f"q{number}", f"d{number}", 1) for number in range(len(NAMES))]
    if name == "TRECCOVID":  # graded, with what was judged and found wanting
        pairs += [("q0", "d1", 2), ("q1", "d0", 0), ("q2", "d3", -1)]
    if name == "ArguAna":  # a query is one of the documents, and must not find itself
        queries = [{**row, "id": f"d{number}", "text": docs[number]["text"]} for number, row in enumerate(queries)]
        pairs = [(f"d{number}", f"d{(number + 1) % len(NAMES)}", 1) for number in range(len(NAMES))]
    writer = _vidore if name.startswith("Vidore") else _beir if metadata.modalities == ["text"] else _mbeir
    write_repository(folder, writer(queries, docs, pairs, split, name))
    return folder


def _row(id_: str, name: str, side: str, stripe: int, text: str) -> dict[str, Any]:
    row: dict[str, Any] = {"id": id_}
    if "t" in side:
        row["text"] = text
    if "i" in side:
        row["image"] = picture(name, stripe)
    return row


def _damaged(
    docs: list[dict[str, Any]], lost: Iterable[str] = (), twice: str = "", empty: str = ""
) -> list[dict[str, Any]]:
    rows = [row for row in docs if row["id"] not in set(lost)]
    rows += [row for row in docs if row["id"] == twice]
    blank = {"text": " ", "image": None}
    return [{key: blank.get(key, value) if row["id"] == empty else value for key, value in row.items()} for row in rows]


Configs = dict[tuple[str, str], list[dict[str, Any]]]


def _beir(queries: list, docs: list, pairs: list, split: str, name: str) -> Configs:
    if name.startswith("Web"):
        return _mbeir(queries, docs, pairs, split, name)
    return {
        ("corpus", "corpus"): [{"_id": row["id"], "title": "Colours" if number % 2 else "", "text": row["text"]}
                               for number, row in enumerate(docs)],
        ("queries", "queries"): [{"_id": row["id"], "text": row["text"]} for row in queries],
        ("default", split): [{"query-id": q, "corpus-id": d, "score": float(gain)} for q, d, gain in pairs],
    }  # fmt: skip


def _mbeir(queries: list, docs: list, pairs: list, split: str, name: str) -> Configs:
    def with_modality(row: dict[str, Any]) -> dict[str, Any]:
        made_of = ",".join(key for key in ("image", "text") if key in row)
        return {"text": None, **row, "modality": made_of}

    return {
        ("corpus", split): [with_modality(row) for row in docs],
        ("query", split): [with_modality(row) for row in queries],
        ("qrels", split): [{"query-id": q, "corpus-id": d, "score": gain} for q, d, gain in pairs],
    }


def _vidore(queries: list, docs: list, pairs: list, split: str, name: str) -> Configs:
    number = lambda id_: int(id_[1:])  # noqa: E731
    return {
        ("queries", split): [{"query-id": number(row["id"]), "query": row["text"]} for row in queries],
        ("corpus", split): [{"corpus-id": number(row["id"]), "image": row["image"]} for row in docs],
        ("qrels", split): [{"query-id": number(q), "corpus-id": number(d), "score": gain} for q, d, gain in pairs],
    }
