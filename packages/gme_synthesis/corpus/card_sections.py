"""Sections of a dataset card as Markdown: metadata, funnel, examples with pictures; and the tables in them."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from gme_data.examples import Example
from gme_data.images import encode_png
from gme_data.items import TASK_TYPES, Item
from gme_data.journal import atomic_write

LoadPicture = Callable[[str], Image.Image]
"""Image id to RGB picture."""
_THUMBNAIL_SIDE = 160
_MAX_TEXT_CHARS = 240
"""Longer texts of examples are shortened to so many characters."""


def front_matter(licences: Iterable[str], count: int) -> str:
    """Returns the metadata that Hugging Face reads.

    Args:
        licences: Licences of all examples.
        count: Number of training examples.
    """
    names = sorted({name for licence in licences for name in licence.split(" AND ")})
    data = {
        # Hugging Face knows one identifier for each dataset; several licences are "other" with a name.
        "license": "other",
        "license_name": " AND ".join(names)[:200],
        "task_categories": ["visual-document-retrieval", "sentence-similarity"],
        "tags": ["multimodal-retrieval", "synthetic", "gme-foundry"],
        "size_categories": [_size_category(count)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train/*.parquet"}]}],
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n"


def _size_category(count: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if count < limit:
            return name
    return "n>1M"


def funnel_section(funnel: Mapping[str, Any]) -> str:
    """Returns plot and table of ``funnel.json``, and the skipped steps with the reasons."""
    rows = [
        (step["step"], step["seen"], step["kept"], ", ".join(f"{why} {n:,}" for why, n in step["rejected"].items()))
        for step in funnel["steps"]
    ]
    table = markdown_table(("step", "seen", "kept", "refused for"), rows)
    skipped = "".join(f"\n`{step}` was skipped: {why}.\n" for step, why in funnel["skipped"].items())
    return f"## Funnel\n\n![funnel](funnel.svg)\n\n{table}\n{skipped}"


def examples_section(folder: Path, examples: Iterable[Example], load: LoadPicture) -> str:
    """Returns one example of each task type, the first by id; writes its pictures to ``card/`` in `folder`."""
    first_by_type: dict[str, Example] = {}
    for example in examples:
        first = first_by_type.get(example.task_type)
        first_by_type[example.task_type] = example if first is None or example.id < first.id else first
    rows = []
    for task_type in (name for name in TASK_TYPES if name in first_by_type):
        example = first_by_type[task_type]
        rows.append((task_type, _item_cell(example.query), _item_cell(example.positive)))
        _write_thumbnails(folder / "card", load, example)
    return f"## Examples\n\n{markdown_table(('task type', 'query', 'positive'), rows)}\n"


def _item_cell(item: Item) -> str:
    picture = f"![picture](card/{item.image[:16]}.png) " if item.image else ""
    text = html.escape(item.text or "")
    return picture + (text if len(text) <= _MAX_TEXT_CHARS else text[:_MAX_TEXT_CHARS] + " ...")


def _write_thumbnails(folder: Path, load: LoadPicture, example: Example) -> None:
    folder.mkdir(exist_ok=True)
    for id_ in (item.image for item in (example.query, example.positive) if item.image):
        picture = load(id_)
        picture.thumbnail((_THUMBNAIL_SIDE, _THUMBNAIL_SIDE), Image.Resampling.BILINEAR)
        atomic_write(folder / f"{id_[:16]}.png", encode_png(picture))


def markdown_table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Returns a table of Markdown."""

    def line(cells: Iterable[object]) -> str:
        texts = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
        # A bar or a line break in a text would end its cell.
        return "| " + " | ".join(" ".join(text.replace("|", "\\|").split()) for text in texts) + " |"

    head = list(head)
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])
