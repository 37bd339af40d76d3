"""Parts of dataset cards that both chains share: metadata, funnel, examples with pictures, tables. All Markdown."""

from __future__ import annotations

import html
import io
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from gme_data.examples import Example
from gme_data.items import TASK_TYPES, Item
from gme_data.journal import atomic_write

Load = Callable[[str], Image.Image]
"""Image id to RGB picture."""
_THUMBNAIL = 160
_LONGEST_SHOWN = 240


def front_matter(licences: Iterable[str], count: int) -> str:
    """What Hugging Face reads: `licences` of all examples, size by the `count` of those to train on."""
    names = sorted({name for licence in licences for name in licence.split(" AND ")})
    data = {
        "license": "other",
        "license_name": " AND ".join(names)[:200],
        "task_categories": ["visual-document-retrieval", "sentence-similarity"],
        "tags": ["multimodal-retrieval", "synthetic", "gme-foundry"],
        "size_categories": [_size(count)],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": "train/*.parquet"}]}],
    }
    return f"---\n{yaml.safe_dump(data, sort_keys=False)}---\n"


def _size(count: int) -> str:
    for limit, name in ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M")):
        if count < limit:
            return name
    return "n>1M"


def funnel_section(facts: Mapping[str, Any]) -> str:
    """Plot and table of ``funnel.json``; what was skipped, and why."""
    rows = [
        (one["step"], one["seen"], one["kept"], ", ".join(f"{why} {n:,}" for why, n in one["rejected"].items()))
        for one in facts["steps"]
    ]
    skipped = "".join(f"\n`{step}` was skipped: {why}.\n" for step, why in facts["skipped"].items())
    return f"## Funnel\n\n![funnel](funnel.svg)\n\n{table(('step', 'seen', 'kept', 'refused for'), rows)}\n{skipped}"


def examples_section(folder: Path, examples: Iterable[Example], load: Load) -> str:
    """One of each task type, the first by id; writes the pictures shown to ``card/`` in `folder`."""
    firsts: dict[str, Example] = {}
    for one in examples:
        first = firsts.get(one.task_type)
        firsts[one.task_type] = one if first is None or one.id < first.id else first
    rows = []
    for task_type in (name for name in TASK_TYPES if name in firsts):
        first = firsts[task_type]
        rows.append((task_type, _shown(first.query), _shown(first.positive)))
        _keep_pictures(folder, load, first)
    return f"## Examples\n\n{table(('task type', 'query', 'positive'), rows)}\n"


def _shown(item: Item) -> str:
    picture = f"![picture](card/{item.image[:16]}.png) " if item.image else ""
    text = html.escape(item.text or "")
    return picture + (text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + " ...")


def _keep_pictures(folder: Path, load: Load, example: Example) -> None:
    (folder / "card").mkdir(exist_ok=True)
    for id_ in (item.image for item in (example.query, example.positive) if item.image):
        picture = load(id_)
        picture.thumbnail((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        picture.save(buffer, "PNG")
        atomic_write(folder / "card" / f"{id_[:16]}.png", buffer.getvalue())


def table(head: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """A table of Markdown."""

    def line(cells: Iterable[object]) -> str:
        return "| " + " | ".join(_cell(cell) for cell in cells) + " |"

    head = list(head)
    return "\n".join([line(head), "|" + "---|" * len(head), *map(line, rows)])


def _cell(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.replace("|", "\\|").split())
