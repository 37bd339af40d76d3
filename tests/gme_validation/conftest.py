"""A tiny world on disk, whole and clean, that tests damage in one place at a time."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, write_images
from gme_data.items import TASK_TYPES, Item, modalities_of
from gme_data.parquet import write_shards
from gme_data.steps import StepContext
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_validation.config import AtlasValidationConfig
from gme_validation.runner import SuiteResult, run_suites
from gme_validation.step import atlas_suites, validate
from gme_validation.training_suites import FILTERS

LICENCE = "CC0-1.0"
SPLITS = ("train", "dev", "test")
PER_SPLIT = 4
WORDINGS = {
    "train": "What is the capital of {place}?",
    "dev": "Name the chief city of {place}.",
    "test": "Where does the government of {place} sit?",
}


class TinyWorld:
    """Paths of a clean world, and the pieces it was made of."""

    wordings = WORDINGS

    def __init__(self, root: Path) -> None:
        self.corpus, self.synthetic = root / "atlas", root / "synthetic"
        self.records: list[ImageRecord] = []
        self.places = [self._place(f"{split}land{n}", split) for split in SPLITS for n in range(PER_SPLIT)]
        self.pictographs = [self._pictograph(f"{split}thing{n}", split) for split in SPLITS for n in range(PER_SPLIT)]
        self.imagined = [self._imagined(number) for number in range(PER_SPLIT)]
        self.passages = [self._passage(place) for place in self.places]
        self.facts = [self._fact(place) for place in self.places]
        self.write()

    def write(self) -> None:
        write_images(self.corpus / "images", self.records)
        folder = self.corpus / "corpus"
        folder.mkdir(parents=True)
        wordings = [
            {"field": "capital", "split": split, "kind": "named", "template": text} for split, text in WORDINGS.items()
        ]
        for name in ("places", "passages", "facts", "pictographs", "imagined"):
            pq.write_table(pa.Table.from_pylist(getattr(self, name)), folder / f"{name}.parquet")
        pq.write_table(pa.Table.from_pylist(wordings), folder / "wordings.parquet")
        for split in ("dev", "test"):
            for task in (self.question_task(split), self.flag_task(split)):
                save_task(self.corpus / "tasks" / split / task.card.name, task)
        self.write_training(self.examples())

    def edit(self, table: str, change: Callable[[list[dict[str, Any]]], object]) -> None:
        """Let `change` edit the rows of a table of the corpus folder, e.g. ``corpus/places``."""
        path = self.corpus / f"{table}.parquet"
        rows = pq.read_table(path).to_pylist()
        schema = pa.schema([field.with_nullable(True) for field in pq.read_schema(path)])
        change(rows)
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)

    def write_training(self, examples: list[Example]) -> None:
        for path in self.synthetic.glob("train/*"):
            path.unlink()
        write_examples(self.synthetic / "train", examples)
        steps = [
            {"step": name, "seen": len(examples), "kept": len(examples), "rejected": {}}
            for name in (*FILTERS, "balance")
        ]
        (self.synthetic / "funnel.json").write_text(json.dumps({"steps": steps}))
        schema = pa.schema([pa.field(name, pa.string()) for name in ("step", "reason", "subject", "text")])
        write_shards(self.synthetic / "rejects", "rejects", [], schema)

    def examples(self) -> list[Example]:
        return [self.example(task_type, place) for task_type in TASK_TYPES for place in self.places[:PER_SPLIT]]

    def example(self, task_type: str, place: dict[str, Any], text: str | None = None) -> Example:
        question = WORDINGS["train"].replace("{place}", str(place["name"])) if text is None else text
        query, document = modalities_of(task_type)
        return Example(
            id=f"{task_type}-{place['place_id']}",
            task_type=task_type,
            source="made",
            instruction="Find it.",
            query=_item(query, question, str(place["flag_twemoji"])),
            positive=_item(document, f"About {place['name']}.", str(place["flag_openmoji"])),
            negatives=(),
            entity_group=str(place["entity_group"]),
            batch_key="all",
            answer=None,
            licence=LICENCE,
            split="train",
        )

    def question_task(self, split: str) -> RetrievalTask:
        held_out = [place for place in self.places if place["split"] == split]
        pool = [place for place in self.places if split == "test" or place["split"] != "test"]
        queries = [
            self._query(place, Item(text=WORDINGS[split].replace("{place}", str(place["name"])))) for place in held_out
        ]
        corpus = [self._document(place, Item(text=f"About {place['name']}.")) for place in pool]
        return _task("place-question-t2t", "T->T", split, queries, corpus)

    def flag_task(self, split: str) -> RetrievalTask:
        held_out = [place for place in self.places if place["split"] == split]
        pool = [place for place in self.places if split == "test" or place["split"] != "test"]
        queries = [self._query(place, Item(image=str(place["flag_openmoji"]))) for place in held_out]
        corpus = [self._document(place, Item(image=str(place["flag_twemoji"]))) for place in pool]
        return _task("flag-i2i", "I->I", split, queries, corpus)

    def _query(self, place: dict[str, Any], item: Item) -> Query:
        return Query(f"q-{place['place_id']}", item, str(place["entity_group"]), "all", LICENCE)

    def _document(self, place: dict[str, Any], item: Item) -> Document:
        return Document(str(place["place_id"]), item, str(place["entity_group"]), LICENCE)

    def _picture(self, name: str) -> str:
        noise = np.random.default_rng(len(self.records)).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "PNG")
        record = ImageRecord.from_bytes(buffer.getvalue(), source=name, licence=LICENCE)
        self.records.append(record)
        return record.id

    def _place(self, name: str, split: str) -> dict[str, Any]:
        flags = {f"flag_{style}": self._picture(f"{name}-{style}") for style in ("twemoji", "openmoji")}
        return {
            "place_id": name, "name": name.capitalize(), "aliases": [f"Republic of {name}"], "region": "R",
            "entity_group": f"place:{name}", "split": split, **flags, "map": None,
            "locator": self._picture(f"{name}-locator"), "flag_description": None, "licence": LICENCE,
        }  # fmt: skip

    def _passage(self, place: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"{place['place_id']}-government", "place_id": place["place_id"], "place_name": place["name"],
            "section": "Government", "text": f"{place['name']}. Government. Capital: {place['name']} City.",
            "page": self._picture(f"{place['place_id']}-page"), "illustration": place["flag_twemoji"],
            "entity_group": place["entity_group"], "split": place["split"], "licence": LICENCE,
        }  # fmt: skip

    def _fact(self, place: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": f"{place['place_id']}-capital", "place_id": place["place_id"], "place_name": place["name"],
            "section": "Government", "field": "capital", "value": f"{place['name']} City",
            "passage_id": f"{place['place_id']}-government", "entity_group": place["entity_group"],
            "split": place["split"], "licence": LICENCE,
        }  # fmt: skip

    def _pictograph(self, name: str, split: str) -> dict[str, Any]:
        return {
            "id": name, "base_id": name, "family": name, "name": name, "aliases": [name], "variant": "base",
            "names": [{"lang": "en", "name": name}], "gender": "none", "twemoji": self._picture(f"{name}-t"),
            "openmoji": self._picture(f"{name}-o"), "entity_group": f"pictograph:{name}", "split": split,
            "licence": LICENCE,
        }  # fmt: skip

    def _imagined(self, number: int) -> dict[str, Any]:
        flags = {f"flag_{style}": self._picture(f"imagined-{number}-{style}") for style in ("flat", "outlined")}
        return {
            "place_id": str(number), "name": f"Nowhere {number}", "entity_group": f"imagined:{number}",
            "split": "train", **flags, "flag_description": "red field", "licence": LICENCE,
        }  # fmt: skip


def _item(modality: str, text: str, image: str) -> Item:
    return Item(text if "T" in modality else None, image if "I" in modality else None)


def _task(name: str, task_type: str, split: str, queries: list[Query], corpus: list[Document]) -> RetrievalTask:
    card = TaskCard(
        name=name, task_type=task_type, metric="ndcg_at_10", instruction="Find it.", split=split, subset="unseen",
        description="d", relevance="r", licences=(LICENCE,), images="../../../images", queries=len(queries),
        pool=len(corpus),
    )  # fmt: skip
    qrels = {query.id: {query.id.removeprefix("q-"): 1} for query in queries}
    return RetrievalTask(card, tuple(corpus), tuple(queries), qrels)


@pytest.fixture
def world(tmp_path: Path) -> TinyWorld:
    return TinyWorld(tmp_path)


CONFIG = AtlasValidationConfig(
    min_places=3, min_pictographs=3, min_examples=9, min_queries=2, min_pool=4, min_picture_side=16
)


@pytest.fixture
def evaluate(world: TinyWorld, tmp_path: Path) -> Callable[[str], SuiteResult]:
    """Evaluates one suite over the world as it is on disk."""

    def run(name: str) -> SuiteResult:
        suites = {suite.name: suite for suite in atlas_suites(CONFIG, world.corpus, world.synthetic)}
        return run_suites([suites[name]], tmp_path / "docs", failed_rows=3)[0]

    return run


@pytest.fixture
def check(world: TinyWorld, tmp_path: Path) -> Callable[[], StepContext]:
    """Validate the whole world as it is on disk; returns the step's context."""

    def run() -> StepContext:
        context = StepContext(tmp_path / "staging", "key", tmp_path / "logs")
        context.staging.mkdir(exist_ok=True)
        context.log_dir.mkdir(exist_ok=True)
        validate(CONFIG, {"corpus": world.corpus, "synthetic": world.synthetic}, context)
        return context

    return run
