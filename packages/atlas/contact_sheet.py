"""Contact sheets: queries of a task type beside their relevant documents, as a PNG or a self-contained HTML page.

They show the same pixels that a model gets.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from atlas.choice import seeded_sample
from atlas.pages import text_font, wrap
from gme_data.errors import FoundryError, did_you_mean
from gme_data.images import ImageStore, encode_png
from gme_data.items import TASK_TYPES, Item, pages_of
from gme_data.journal import atomic_write
from gme_data.tasks import RetrievalTask, image_folders, list_tasks, load_card, load_task

_MAX_ANSWERS = 3
_CELL_WIDTH, _PICTURE, _PAGE, _TYPE = 330, (130, 130), (322, 402), 12


@dataclass(frozen=True, slots=True)
class _QueryWithAnswers:
    """A query, its first relevant documents, and how many more there are."""

    query: Item
    answers: tuple[Item, ...]
    more: int


def contact_sheet(folder: Path, task_type: str, path: Path, count: int = 8, split: str = "test") -> int:
    """Writes a sheet of every task of one type.

    Args:
        folder: An Atlas.
        task_type: One of `TASK_TYPES`, e.g. ``IT->I``.
        path: Ends in ``.png`` or ``.html``.
        count: Queries per task.
        split: ``dev`` or ``test``.

    Returns:
        Number of queries shown.

    Raises:
        FoundryError: Unknown task type or suffix, or no such Atlas.
    """
    if task_type not in TASK_TYPES:
        near = did_you_mean(task_type.upper(), TASK_TYPES)
        raise FoundryError(f"Unknown task type {task_type!r}.{near}", hint=f"One of {', '.join(TASK_TYPES)}.")
    if path.suffix not in (".png", ".html"):
        raise FoundryError(f"A contact sheet is a .png or .html file, not {path.name!r}.")
    folders = [task for task in list_tasks(folder / "tasks" / split) if load_card(task).task_type == task_type]
    tasks = [load_task(task) for task in folders]
    store = ImageStore(image_folders(folders))
    sheets = [(task, list(_rows(task, count))) for task in tasks]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, _png(sheets, store) if path.suffix == ".png" else _html(sheets, store).encode())
    return sum(len(rows) for _, rows in sheets)


def _rows(task: RetrievalTask, count: int) -> Iterator[_QueryWithAnswers]:
    documents = {doc.id: doc.item for doc in task.corpus}
    for query in seeded_sample(task.queries, count, 0, lambda query: query.id):
        relevant = sorted(task.qrels[query.id])
        answers = tuple(documents[id_] for id_ in relevant[:_MAX_ANSWERS])
        yield _QueryWithAnswers(query.item, answers, len(relevant) - len(answers))


def _title(task: RetrievalTask) -> str:
    card = task.card
    return f"{card.task_type} {card.name}: {card.queries} queries, pool {card.pool}, {card.metric}"


def _png(sheets: list[tuple[RetrievalTask, list[_QueryWithAnswers]]], store: ImageStore) -> bytes:
    strips = [strip for task, rows in sheets for strip in _strips(task, rows, store)]
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    return encode_png(sheet)


def _strips(task: RetrievalTask, rows: list[_QueryWithAnswers], store: ImageStore) -> Iterator[Image.Image]:
    width = _CELL_WIDTH * (1 + max(2, *(len(row.answers) for row in rows)))
    head = Image.new("RGB", (width, 44), "#2c4a7c")
    draw = ImageDraw.Draw(head)
    draw.text((8, 4), _title(task), "white", text_font(15, bold=True))
    draw.text((8, 25), task.card.instruction or "", "white", text_font(_TYPE, bold=False))
    yield head
    for row in rows:
        box = _PAGE if any(pages_of(task.card.task_type)) else _PICTURE
        cells = [_cell(item, store, box) for item in (row.query, *row.answers)]
        strip = Image.new("RGB", (width, max(cell.height for cell in cells) + 1), "white")
        for number, cell in enumerate(cells):
            strip.paste(cell, (number * _CELL_WIDTH, 0))
        draw = ImageDraw.Draw(strip)
        draw.line((0, strip.height - 1, width, strip.height - 1), fill="#cccccc")
        draw.line((_CELL_WIDTH - 2, 0, _CELL_WIDTH - 2, strip.height), fill="#2c4a7c", width=2)
        yield strip


def _cell(item: Item, store: ImageStore, box: tuple[int, int]) -> Image.Image:
    """Draws a picture of at most `box` pixels with the text beside it; the cell is as high as the taller of the two."""
    picture = store.load(item.image) if item.image else Image.new("RGB", (1, 1), "white")
    if item.image:
        scale = min(box[0] / picture.width, box[1] / picture.height)
        picture = picture.resize((int(picture.width * scale), int(picture.height * scale)), Image.Resampling.BICUBIC)
    text_x = picture.width + 8
    font = text_font(_TYPE, bold=False)
    lines = wrap(item.text, font, _CELL_WIDTH - text_x - 4) if item.text else []
    cell = Image.new("RGB", (_CELL_WIDTH, max(picture.height + 8, len(lines) * (_TYPE + 3) + 10)), "white")
    cell.paste(picture, (4, 4))
    draw = ImageDraw.Draw(cell)
    for number, line in enumerate(lines):
        draw.text((text_x, 4 + number * (_TYPE + 3)), line, "black", font)
    return cell


_STYLE = """
body{font:14px sans-serif;margin:24px;max-width:1200px}td{border:1px solid #ccc;padding:6px;vertical-align:top;
max-width:300px}td:first-child{background:#eef3fa}img{max-width:260px;display:block}small{color:#555}
"""


def _html(sheets: list[tuple[RetrievalTask, list[_QueryWithAnswers]]], store: ImageStore) -> str:
    body = []
    for task, rows in sheets:
        card = task.card
        body.append(f"<h2>{html.escape(_title(task))}</h2><p>{html.escape(card.description)}</p>")
        body.append(f"<p><small>Instruction: {html.escape(card.instruction or '')}</small></p><table>")
        for row in rows:
            cells = "".join(f"<td>{_html_item(item, store)}</td>" for item in (row.query, *row.answers))
            body.append(f"<tr>{cells}{f'<td>and {row.more} more</td>' if row.more else ''}</tr>")
        body.append("</table>")
    return f'<!doctype html><meta charset="utf-8"><title>Atlas</title><style>{_STYLE}</style>{"".join(body)}'


def _html_item(item: Item, store: ImageStore) -> str:
    parts = []
    if item.image:
        data = base64.b64encode(store.read(item.image)).decode()
        parts.append(f'<img src="data:image/png;base64,{data}" alt="">')
    if item.text:
        parts.append(html.escape(item.text))
    return "".join(parts)
