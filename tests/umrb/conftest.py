"""A small world with all nine task types: coloured, striped squares, their names, and questions about them."""

from __future__ import annotations

import io
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, write_images
from gme_data.items import TASK_TYPES, Item
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder

sys.path.insert(0, str(Path(__file__).parent))

COLOURS = {
    "red": (220, 30, 30), "green": (20, 150, 60), "blue": (30, 60, 210), "yellow": (240, 210, 20),
    "purple": (120, 40, 160), "orange": (245, 130, 20), "grey": (120, 120, 120), "brown": (110, 60, 20),
    "pink": (250, 150, 190), "cyan": (40, 200, 220), "navy": (10, 10, 90), "olive": (120, 120, 10),
}  # fmt: skip


def picture(name: str, stripe: int) -> ImageRecord:
    """A 48 px square of the colour `name` with a white stripe at row `stripe`."""
    pixels = np.full((48, 48, 3), COLOURS[name], dtype=np.uint8)
    pixels[stripe : stripe + 4] = 255
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")


def make_task(kind: str, pictures: dict[str, tuple[str, str]]) -> RetrievalTask:
    """Every colour asks for itself; `pictures` holds the ids of two styles of each."""
    query_side, _, doc_side = kind.replace("VD", "I").partition("->")

    def item(side: str, name: str, style: int, text: str) -> Item:
        return Item(text if "T" in side else None, pictures[name][style] if "I" in side else None)

    names = sorted(COLOURS)
    card = TaskCard(
        name=f"colour-{kind.replace('->', '2').lower()}",
        task_type=kind,
        metric="ndcg_at_10" if kind == "T->T" else "hit_rate_at_5",
        instruction="Find the square that the query is about.",
        split="test",
        subset="unseen",
        description="colours",
        relevance="by construction",
        licences=("CC0-1.0",),
        images="../../../images",
        queries=len(names),
        pool=len(names),
    )
    return RetrievalTask(
        card,
        tuple(Document(f"d-{n}", item(doc_side, n, 1, f"The {n} square is {n}."), n, "CC0-1.0") for n in names),
        tuple(
            Query(
                f"q-{n}", item(query_side, n, 0, f"Which square is {n}?"), n, "light" if n < "h" else "dark", "CC0-1.0"
            )
            for n in names
        ),
        {f"q-{n}": {f"d-{n}": 1} for n in names},
    )


def training_examples(pictures: dict[str, tuple[str, str]]) -> list[Example]:
    """The word for each colour and its picture; two styles of it."""

    def example(source: str, name: str, query: Item) -> Example:
        kind, positive = f"{query.modality}->I", Item(image=pictures[name][1])
        return Example(f"{source}-{name}", kind, source, None, query, positive, (), name, "", None, "CC0-1.0", "train")

    names = sorted(COLOURS)
    named = [example("pictograph-name", name, Item(f"the colour {name}")) for name in names]
    return named + [example("pictograph", name, Item(image=pictures[name][0])) for name in names]


def write_manifest_of(folder: Path, step: str, config: dict[str, object] | None = None) -> Path:
    """Write the manifest that makes a folder a finished output."""
    files = list_files(folder)
    write_manifest(
        folder,
        Manifest(step, "key", config or {}, "code", {}, files, content_digest(files), {"files": len(files)}, 1.0),
    )
    return folder


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished corpus with one test task of each type."""
    folder = tmp_path_factory.mktemp("corpus")
    records = {name: (picture(name, 6), picture(name, 30)) for name in COLOURS}
    write_images(folder / "images", [record for pair in records.values() for record in pair])
    pictures = {name: (pair[0].id, pair[1].id) for name, pair in records.items()}
    for kind in TASK_TYPES:
        task = make_task(kind, pictures)
        save_task(folder / "tasks" / "test" / task.card.name, task)
    write_examples(folder / "examples" / "train", training_examples(pictures))
    return write_manifest_of(folder, "corpus")


@pytest.fixture
def text_task() -> Callable[[], RetrievalTask]:
    """Makes the T->T task alone, which has no pictures."""
    return lambda: make_task("T->T", dict.fromkeys(COLOURS, ("a", "b")))


@pytest.fixture(scope="session")
def publish() -> Callable[..., Path]:
    """Writes the manifest that makes a folder a finished output: ``publish(folder, step, config=None)``."""
    return write_manifest_of


@pytest.fixture(scope="session")
def tiny() -> Embedder:
    """Untrained, its last state pulled apart: else scores lie so close that rounding decides their order."""
    embedder = Embedder.fresh(ModelConfig(text_layers=1), seed=1)
    weight = embedder.model.language.norm.weight
    with torch.no_grad():
        weight.mul_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return embedder


A4 = 718
"""Pixels that a sheet is wide within its margins."""
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture
def look() -> Iterator[Callable[..., Any]]:
    """Opens a page in Chromium, ``look(path, width, scheme)``, and checks what every page of ours must be."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (looked for chromium, chromium-browser, google-chrome)")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])

        def open_page(path: Path, width: int, scheme: str) -> Any:
            page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
            requested: list[str] = []
            complaints: list[str] = []
            page.on("request", lambda request: requested.append(request.url))
            page.on("console", lambda message: complaints.append(message.text))
            page.goto(path.as_uri())
            assert [url for url in requested if not url.startswith(("file:", "data:"))] == []
            assert complaints == []
            beyond = "() => document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert page.evaluate(beyond) <= 0, "the page is wider than the screen"
            assert page.evaluate("() => [...document.images].filter((image) => !image.naturalWidth).length") == 0
            for figure in page.locator("figure svg").all():
                box = figure.bounding_box()
                assert box is not None
                assert box["width"] > 200
                assert box["height"] > 60
            page.emulate_media(media="print")
            page.set_viewport_size({"width": A4, "height": 900})
            assert not page.locator("nav").is_visible()
            cut = "() => [...document.querySelectorAll('.scroll')].filter((e) => e.scrollWidth > e.clientWidth).length"
            assert page.evaluate(cut) == 0, "a table is wider than the paper"
            page.emulate_media(media="screen")
            page.set_viewport_size({"width": width, "height": 900})
            return page

        yield open_page
        browser.close()


@pytest.fixture
def meta(tiny: Embedder) -> Any:
    """What mteb records of the tiny model."""
    from umrb.systems.mteb_meta import describe

    return describe(tiny, "team/tiny", "0123", {})
