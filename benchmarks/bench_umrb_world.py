# ruff: noqa: ANN401
"""What `bench_umrb` runs on: local tasks, models that stand for a peer, and the process whose memory is measured."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from stock import Stock

from gme_data.items import Item
from gme_data.tasks import Document, Query
from gme_embedder.embedder import Embedder
from umrb.data.dataset_side import DatasetSide
from umrb.data.mteb_data import instruction_of, local_copy, mteb_task, task_card
from umrb.data.tasks import NumberedTask, Qrels, number
from umrb.registry import choose
from umrb.scoring.result_files import MTEB_METRICS
from umrb.systems.base import DenseSystem, Encoder
from umrb.systems.mteb_meta import describe
from umrb.systems.vectors import VectorStore

WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
WIDTH = 256
RELEVANT = (2, 50)
"""Documents that a query has: as most tasks of UMRB have them, and as those of graded pools have (NFCorpus 38)."""


def write_tasks(data: Path, names: Sequence[str], *, documents: int, queries: int) -> None:
    """Local copies of BEIR tasks over one corpus, each with questions of its own."""
    draw = random.Random(0)  # noqa: S311
    corpus = [
        {"_id": f"d{number}", "title": "", "text": f"{number} {sentence(draw, 60, 0.6)}"} for number in range(documents)
    ]
    for name in names:
        asked = [{"_id": f"q{number}", "text": sentence(draw, 8, 0.4)} for number in range(queries)]
        pairs = [
            {"query-id": f"q{number}", "corpus-id": f"d{draw.randrange(documents)}", "score": 1.0}
            for number in range(queries)
            for _ in range(RELEVANT[0])
        ]
        write_repository(
            local_copy(data, mteb.get_task(name).metadata.dataset["path"]),
            {("corpus", "corpus"): corpus, ("queries", "queries"): asked, ("default", "test"): pairs},
        )


def write_repository(folder: Path, configs: dict[tuple[str, str], Iterable[dict[str, Any]]]) -> None:
    """A dataset repository: a Parquet file per config, and the card that names them."""
    lines = ["---", "configs:"]
    for (config, split), rows in configs.items():
        path = folder / config / f"{split}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        datasets.Dataset.from_list(list(rows)).to_parquet(path)
        lines += [
            f"- config_name: {config}",
            "  data_files:",
            f"  - split: {split}",
            f"    path: {config}/{split}.parquet",
        ]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def sentence(draw: random.Random, median: int, spread: float) -> str:
    """Word counts log-normal, as those of passages and questions are."""
    return " ".join(draw.choices(WORDS, k=1 + int(draw.lognormvariate(math.log(median), spread))))


def ours(embedder: Embedder, store: VectorStore) -> DenseSystem:
    """Our way."""

    def encode(items: Sequence[Item], instruction: str | None, images: Any) -> np.ndarray:
        return embedder.encode(items, instruction, images)

    return DenseSystem("ours", Encoder("ours", encode), store)


def pulled_apart(embedder: Embedder) -> Embedder:
    """Its last state spread out: else scores of a random model lie so close that rounding decides their order."""
    weight = embedder.model.language.norm.weight
    with torch.no_grad():
        weight.mul_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return embedder


class StockModel(AbsEncoder):
    """mteb's GME wrapper around a model of ours: batches of 32 in the order of the data, padded."""

    def __init__(self, embedder: Embedder) -> None:
        self.model = self._stock = Stock(embedder)
        self.mteb_model_meta = describe(embedder, "bench/stock", "0", {})

    def encode(self, inputs: Any, *, task_metadata: Any, prompt_type: PromptType | None = None, **_: Any) -> np.ndarray:
        texts = [text for batch in inputs for text in batch["text"]]
        query = prompt_type is PromptType.query
        return self._stock.texts(texts, instruction_of(choose("umrb", [task_metadata.name])[0]) if query else None)


def vectors_of(documents: int, queries: int) -> dict[str, np.ndarray]:
    """A unit vector for each text."""
    draw = np.random.default_rng(0)
    rows = draw.standard_normal((documents + queries, WIDTH)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names = [f"document {number}" for number in range(documents)] + [f"query {number}" for number in range(queries)]
    return dict(zip(names, rows, strict=True))


class Fixed(AbsEncoder):
    """A model that costs nothing: vectors by text."""

    def __init__(self, vectors: dict[str, np.ndarray]) -> None:
        self._vectors = vectors
        self.model = self
        self.mteb_model_meta = mteb.get_model_meta("mteb/baseline-random-encoder").model_copy(
            update={"name": "bench/fixed", "revision": "0", "similarity_fn_name": ScoringFunction.COSINE}
        )

    def encode(self, inputs: Any, **_: Any) -> np.ndarray:
        return np.stack([self._vectors[text] for batch in inputs for text in batch["text"]])

    def system(self, store: Path) -> DenseSystem:
        """The same vectors as a system of ours."""

        def encode(items: Sequence[Item], instruction: str | None, images: Any) -> np.ndarray:
            return np.stack([self._vectors[item.text or ""] for item in items])

        return DenseSystem("fixed", Encoder("fixed", encode), VectorStore(store))


def random_task(documents: int, queries: int, relevant: int) -> AbsTaskRetrieval:
    """A task of mteb with its data at hand, every query with so many relevant documents."""
    draw = np.random.default_rng(1)
    task = mteb_task("SciFact")
    right = {f"q{q}": {f"d{d}": 1 for d in draw.integers(0, documents, relevant).tolist()} for q in range(queries)}
    corpus = datasets.Dataset.from_dict(
        {"id": [f"d{n}" for n in range(documents)], "text": [f"document {n}" for n in range(documents)]}
    )
    asked = datasets.Dataset.from_dict(
        {"id": [f"q{n}" for n in range(queries)], "text": [f"query {n}" for n in range(queries)]}
    )
    split = {"corpus": corpus, "queries": asked, "relevant_docs": right, "top_ranked": None}
    task.dataset = {"default": {"test": split}}
    task.data_loaded = True
    return task


def numbered(
    corpus: datasets.Dataset, asked: datasets.Dataset, relevant: dict[str, dict[str, int]], cache: Path | None = None
) -> NumberedTask:
    """As `load_mteb` makes it; digests are read from `cache` if they are there."""
    text, files = frozenset({"text"}), {side: cache / f"{side}.npy" if cache else None for side in ("docs", "queries")}
    docs = DatasetSide(
        "docs", corpus, text, lambda id_, item: Document(id_, item, "", ""), descending=True, cache=files["docs"]
    )
    queries = DatasetSide(
        "queries", asked, text, lambda id_, item: Query(id_, item, "", "", ""), descending=False, cache=files["queries"]
    )
    scifact = choose("umrb", ["SciFact"])[0]
    card = task_card(mteb.get_task(scifact.id).metadata, scifact, len(queries), len(docs))
    return number(card, queries, docs, Qrels.of(relevant))


def write_corpus(folder: Path, documents: int) -> None:
    """Rows on disk, as many as asked for."""
    folder.mkdir(parents=True)
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    with pq.ParquetWriter(folder / "corpus.parquet", schema) as writer:
        for start in range(0, documents, 50_000):
            rows = range(start, min(start + 50_000, documents))
            writer.write_table(
                pa.table({"id": [f"d{n}" for n in rows], "text": [f"document {n}" for n in rows]}, schema)
            )


def peak_of(documents: int, folder: Path) -> float:
    """MiB that the anonymous memory of this process reaches while it encodes and searches a corpus on disk."""
    home = folder / f"corpus-{documents}"
    highest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.005):
            highest = max(highest, anonymous())

    watcher = threading.Thread(target=watch)
    watcher.start()
    corpus = datasets.load_dataset("parquet", data_files=str(home / "corpus.parquet"), cache_dir=str(home))["train"]
    asked = datasets.Dataset.from_dict({"id": [f"q{n}" for n in range(500)], "text": [f"q {n}" for n in range(500)]})
    task = numbered(corpus, asked, {f"q{n}": {f"d{n}": 1} for n in range(500)})
    draw = np.random.default_rng(0)

    def encode(items: Sequence[Item], instruction: str | None, images: Any) -> np.ndarray:
        rows = draw.standard_normal((len(items), 64), dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    store = VectorStore(home / "store", dtype="float16")
    DenseSystem("synthetic", Encoder("synthetic", encode), store).score(task, MTEB_METRICS, 1000)
    done.set()
    watcher.join()
    return highest


def anonymous() -> float:
    """MiB of this process that are no file's."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(lines["RssAnon"].split()[0]) / 2**10
