"""mteb itself runs the model on small tasks, and finds what our own runner finds. Nothing is fetched."""

from __future__ import annotations

import io
import json
import socket
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
import pytest
import torch
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numbered import number_task
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_data.items import TASK_TYPES, Item
from gme_data.tasks import RetrievalTask, load_task
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.identity import model_digest
from umrb.systems import mteb_model
from umrb.systems.base import DenseSystem, Encoder
from umrb.systems.mteb_model import MtebEmbedder, items_of
from umrb.systems.vectors import VectorStore

METRICS = ("ndcg_at_10", "ndcg_at_5", "map_at_10", "recall_at_5", "hit_rate_at_5", "hit_rate_at_1")
NAME, REVISION = "team/tiny", "0123abcd"
PROMPT = "Find the square that the query is about"
SILENT = {"show_progress_bar": False}


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    tried: list[object] = []

    def refuse(*where: object) -> None:
        tried.append(where)
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert not tried, "something was to be fetched"


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    """Untrained, its last state pulled apart: else scores lie so close that rounding decides their order."""
    embedder = Embedder.fresh(ModelConfig(text_layers=1), seed=1)
    weight = embedder.model.language.norm.weight
    with torch.no_grad():
        weight.mul_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return embedder


@pytest.fixture
def model(embedder: Embedder) -> MtebEmbedder:
    return MtebEmbedder(embedder, name=NAME, revision=REVISION)


@pytest.fixture(scope="module")
def images(corpus: Path) -> ImageStore:
    return ImageStore([corpus / "images"])


def read(corpus: Path, kind: str) -> RetrievalTask:
    return load_task(corpus / "tasks" / "test" / f"colour-{kind.replace('->', '2').lower()}")


def metadata(kind: str, *, prompt: Any = None, name: str = "") -> TaskMetadata:
    category = kind.replace("VD", "I").replace("->", "2").lower()
    return TaskMetadata(
        name=name or f"Colour{category.upper()}",
        description="colours",
        dataset={"path": "local/colours", "revision": "1"},
        type="Retrieval" if kind == "T->T" else "Any2AnyRetrieval",
        category=category,
        modalities=[word for letter, word in (("t", "text"), ("i", "image")) if letter in category],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="ndcg_at_10",
        prompt=prompt,
    )


def mteb_task(task: RetrievalTask, images: ImageStore, prompt: Any = None) -> AbsTaskRetrieval:
    """The same queries, documents and judgements as a task of mteb; a picture or a text may be missing."""
    meta = metadata(task.card.task_type, prompt=prompt)
    query_side, _, doc_side = (meta.category or "").partition("2")

    def table(items: list[tuple[str, Item]], side: str) -> datasets.Dataset:
        columns: dict[str, list[Any]] = {"id": [id_ for id_, _ in items]}
        features: dict[str, Any] = {"id": datasets.Value("string")}
        if "t" in side:
            columns["text"] = [item.text or "" for _, item in items]
            features["text"] = datasets.Value("string")
        if "i" in side:
            columns["image"] = [png(images.load(item.image)) if item.image else None for _, item in items]
            features["image"] = datasets.Image()
        return datasets.Dataset.from_dict(columns, features=datasets.Features(features))

    class Local(AbsTaskRetrieval):
        metadata = meta

        def load_data(self, num_proc: int | None = None, **_: Any) -> None:
            split = {
                "corpus": table([(doc.id, doc.item) for doc in task.corpus], doc_side),
                "queries": table([(query.id, query.item) for query in task.queries], query_side),
                "relevant_docs": {query: dict(judged) for query, judged in task.qrels.items()},
                "top_ranked": None,
            }
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    return Local()


def png(picture: Image.Image) -> dict[str, Any]:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def evaluate(model: MtebEmbedder, task: AbsTaskRetrieval, cache: Path | None = None) -> dict[str, Any]:
    result = mteb.evaluate(
        model, task, cache=mteb.ResultCache(cache) if cache else None, encode_kwargs=SILENT, show_progress_bar=False
    )
    assert (result.model_name, result.model_revision) == (model.mteb_model_meta.name, model.mteb_model_meta.revision)
    return dict(result.task_results[0].scores["test"][0])


@pytest.fixture
def calls(embedder: Embedder, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[Any], str | None, np.ndarray]]:
    """All calls of the embedder, with the vectors that it returned."""
    calls: list[tuple[list[Any], str | None, np.ndarray]] = []
    encode = embedder.encode

    def spy(items: list[Any], instruction: str | None = None, *arguments: Any, **options: Any) -> np.ndarray:
        vectors = encode(items, instruction, *arguments, **options)
        calls.append((list(items), instruction, vectors))
        return vectors

    monkeypatch.setattr(embedder, "encode", spy)
    return calls


def with_gaps(task: RetrievalTask) -> RetrievalTask:
    """Every third item without its picture, every third without its text."""

    def thin(row: int, item: Item) -> Item:
        if not (item.text and item.image) or row % 3 == 0:
            return item
        return Item(text=item.text) if row % 3 == 1 else Item(image=item.image)

    return replace(
        task,
        queries=tuple(replace(query, item=thin(row, query.item)) for row, query in enumerate(task.queries)),
        corpus=tuple(replace(doc, item=thin(row, doc.item)) for row, doc in enumerate(task.corpus)),
    )


def decided(task: RetrievalTask, embedder: Embedder, images: ImageStore) -> RetrievalTask:
    """Without the queries for which rounding may decide: a relevant and another document score within 1e-5."""
    pool = embedder.encode([doc.item for doc in task.corpus], None, images).astype(np.float64)
    query_vectors = embedder.encode([query.item for query in task.queries], f"{PROMPT}.", images).astype(np.float64)
    decided = []
    for query, scores in zip(task.queries, query_vectors @ pool.T, strict=True):
        relevant = np.array([doc.id in task.qrels[query.id] for doc in task.corpus])
        if np.abs(scores[relevant][:, None] - scores[~relevant]).min() > 1e-5:
            decided.append(query)
    assert len(decided) >= len(task.queries) / 4
    card = task.card.model_copy(update={"queries": len(decided)})
    return replace(task, card=card, queries=tuple(decided), qrels={query.id: task.qrels[query.id] for query in decided})


def our_scores(task: RetrievalTask, embedder: Embedder, images: ImageStore, folder: Path) -> dict[str, float]:
    def encode(items: Any, instruction: str | None, pictures: ImageStore | None) -> np.ndarray:
        return embedder.encode(items, instruction, pictures)

    system = DenseSystem("tiny", Encoder("tiny", encode), VectorStore(folder))
    numbered = number_task(task, images)
    return {
        name: float(values.mean()) for name, values in system.score(numbered, METRICS, len(task.corpus)).metrics.items()
    }


@pytest.mark.parametrize(
    ("kind", "gaps"), [*((kind, False) for kind in TASK_TYPES), *((kind, True) for kind in TASK_TYPES if "IT" in kind)]
)
def test_mteb_scores_what_our_runner_scores(
    kind: str, gaps: bool, corpus: Path, images: ImageStore, embedder: Embedder, model: MtebEmbedder, tmp_path: Path
) -> None:
    task = decided(with_gaps(read(corpus, kind)) if gaps else read(corpus, kind), embedder, images)
    theirs = evaluate(model, mteb_task(task, images, {"query": PROMPT}))
    ours = our_scores(task, embedder, images, tmp_path)
    assert theirs["main_score"] == theirs["ndcg_at_10"]
    for name in METRICS:
        # mteb keeps five decimals; what lies just between two of them may be rounded to either.
        assert theirs[name] == pytest.approx(ours[name], abs=5.1e-6), name
    assert 0 < ours["ndcg_at_10"] <= 1


@pytest.mark.parametrize("kind", ["T->T", "T->I", "IT->T", "IT->IT"])
def test_vectors_are_those_of_the_embedder_and_only_queries_are_instructed(
    kind: str,
    corpus: Path,
    images: ImageStore,
    embedder: Embedder,
    model: MtebEmbedder,
    calls: list[tuple[list[Any], str | None, np.ndarray]],
) -> None:
    task = with_gaps(read(corpus, kind))
    evaluate(model, mteb_task(task, images, {"query": PROMPT}))
    (queries, instructed, query_vectors), (docs, uninstructed, doc_vectors) = calls
    assert (instructed, uninstructed) == (f"{PROMPT}.", None)
    assert (len(queries), len(docs)) == (len(task.queries), len(task.corpus))
    by_ours = embedder.encode([query.item for query in task.queries], f"{PROMPT}.", images)
    np.testing.assert_allclose(query_vectors, by_ours, atol=1e-6)
    np.testing.assert_allclose(doc_vectors, embedder.encode([doc.item for doc in task.corpus], None, images), atol=1e-6)
    assert np.abs(query_vectors - embedder.encode(queries)).max() > 1e-3


def loader(batches: dict[str, list[Any]], meta: TaskMetadata, side: PromptType) -> DataLoader[Any]:
    from mteb._create_dataloaders import create_dataloader

    return create_dataloader(datasets.Dataset.from_dict(batches), task_metadata=meta, prompt_type=side, batch_size=2)


def test_titles_are_joined_once(embedder: Embedder, model: MtebEmbedder) -> None:
    meta = metadata("T->T")
    rows = {"id": ["a", "b", "c"], "title": ["Lima", "", "Oslo"], "text": ["is a city", "no title", "is cold"]}
    batches = loader(rows, meta, PromptType.document)
    result = model.encode(
        batches, task_metadata=meta, hf_split="test", hf_subset="default", prompt_type=PromptType.document
    )
    np.testing.assert_allclose(result, embedder.encode(["Lima is a city", "no title", "Oslo is cold"]), atol=1e-6)
    assert result.dtype == np.float32


@pytest.mark.parametrize(
    ("prompt", "table", "side", "expected"),
    [
        (None, {}, PromptType.query, "Retrieve text based on user query."),
        ("Whatever side", {}, PromptType.query, "Whatever side."),
        ("Whatever side", {}, PromptType.document, None),
        ({"query": "Find it.", "document": "Be found"}, {}, PromptType.query, "Find it."),
        ({"query": "Find it.", "document": "Be found"}, {}, PromptType.document, None),
        ({"query": "Find it."}, {}, None, "Find it."),
        ({"query": "Find it."}, {"Known": "By the table"}, PromptType.query, "By the table."),
        ({"query": "Find it."}, {"Known": "By the table"}, PromptType.document, None),
        ({"query": "Find it."}, {"Other": "By the table"}, PromptType.query, "Find it."),
    ],
)
def test_where_an_instruction_comes_from(
    embedder: Embedder, prompt: Any, table: dict[str, str], side: PromptType | None, expected: str | None
) -> None:
    class Known(AbsTaskRetrieval):
        metadata = metadata("T->T", prompt=prompt, name="Known")

    model = MtebEmbedder(embedder, name=NAME, revision=REVISION, instructions=table)
    assert model.instruction(Known.metadata, side) == expected


def test_the_record_says_what_the_model_is(embedder: Embedder, model: MtebEmbedder) -> None:
    meta = model.mteb_model_meta
    assert meta is not None
    table = embedder.model.language.embed_tokens.weight
    assert meta.n_embedding_parameters == table.numel()
    assert meta.n_active_parameters == sum(p.numel() for p in embedder.model.parameters()) - table.numel()
    assert (meta.embed_dim, meta.max_tokens) == (embedder.dimension, embedder.settings.inputs.max_tokens)
    assert meta.similarity_fn_name is ScoringFunction.COSINE
    assert set(meta.modalities) == {"text", "image"}
    assert meta.use_instructions
    assert (meta.license, meta.public_training_code, meta.training_datasets, meta.experiment_kwargs) == (None,) * 4
    vectors = embedder.encode(["a", "b"])
    np.testing.assert_allclose(np.asarray(model.similarity(vectors, vectors)), vectors @ vectors.T, atol=1e-6)


def test_results_are_filed_by_revision_and_by_what_changes_the_vectors(
    corpus: Path,
    images: ImageStore,
    embedder: Embedder,
    tmp_path: Path,
    calls: list[tuple[list[Any], str | None, np.ndarray]],
) -> None:
    task = mteb_task(read(corpus, "T->T"), images)
    plain = MtebEmbedder(embedder, name=NAME, revision=REVISION)
    scores = evaluate(plain, task, tmp_path)
    folder = tmp_path / "results" / "team__tiny" / REVISION
    filed = json.loads((folder / "ColourT2T.json").read_text())
    assert filed["scores"]["test"][0]["ndcg_at_10"] == scores["ndcg_at_10"]
    recorded = json.loads((folder / "model_meta.json").read_text())
    assert (recorded["name"], recorded["revision"]) == (NAME, REVISION)
    first = len(calls)
    evaluate(plain, task, tmp_path)
    assert len(calls) == first, "scores of the same vectors are taken from the file"
    instructed = MtebEmbedder(embedder, name=NAME, revision=REVISION, instructions={"ColourT2T": "Find the opposite."})
    evaluate(instructed, task, tmp_path)
    assert len(calls) == 2 * first
    assert calls[first][1] == "Find the opposite."
    assert len(list(tmp_path.rglob("ColourT2T.json"))) == 2


def test_a_folder_is_loaded_under_its_digest(embedder: Embedder, tmp_path: Path, publish: Callable[..., Path]) -> None:
    embedder.save(tmp_path / "model")
    publish(tmp_path / "model", "train")
    model = MtebEmbedder.load(tmp_path / "model", NAME)
    assert model.mteb_model_meta.revision == model_digest(tmp_path / "model")
    assert model.mteb_model_meta.experiment_kwargs is None
    np.testing.assert_allclose(model.model.encode(["a"]), embedder.encode(["a"]), atol=1e-6)
    half = MtebEmbedder.load(tmp_path / "model", NAME, dtype="bfloat16", max_tokens=64)
    assert half.mteb_model_meta.revision == model_digest(tmp_path / "model")
    assert half.mteb_model_meta.experiment_kwargs == {"dtype": "bfloat16", "max_tokens": 64}
    assert half.mteb_model_meta.max_tokens == 64


class Pictures(Dataset[dict[str, Any]]):
    """Draws a picture when it is asked for, and counts those that are still held."""

    def __init__(self, count: int, side: int) -> None:
        self.count, self.side, self.alive, self.most = count, side, 0, 0

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> dict[str, Any]:
        if row >= self.count:
            raise IndexError(row)
        picture = Image.new("RGB", (self.side, self.side))
        self.alive += 1
        self.most = max(self.most, self.alive)
        weakref.finalize(picture, self._gone)
        return {"text": f"{row}", "image": picture}

    def _gone(self) -> None:
        self.alive -= 1


def collate(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {key: [row[key] for row in rows] for key in rows[0]}


def test_pictures_of_a_corpus_are_never_all_in_memory(
    embedder: Embedder, model: MtebEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mteb_model, "_WINDOW_PIXELS", 20 * mteb_model._MIN_PIXELS)
    sizes: list[int] = []
    texts: list[str] = []

    def encode(items: list[Any], *_: Any, **__: Any) -> np.ndarray:
        sizes.append(len(items))
        texts.extend(item["text"] for item in items)
        return np.zeros((len(items), embedder.dimension), np.float32)

    monkeypatch.setattr(embedder, "encode", encode)
    pictures = Pictures(110, side=8)
    batches: DataLoader[Any] = DataLoader(pictures, batch_size=8, collate_fn=collate)
    meta = metadata("T->IT", prompt=PROMPT)
    result = model.encode(batches, task_metadata=meta, hf_split="test", hf_subset="default", show_progress_bar=False)
    assert result.shape == (110, embedder.dimension)
    assert sizes == [20] * 5 + [10]
    assert texts == [f"{row}" for row in range(110)]
    # One window, the rest of a batch, and the batch after it that the loader makes ready.
    assert pictures.most <= 20 + 2 * 8


def test_bad_input_is_named(embedder: Embedder, model: MtebEmbedder, monkeypatch: pytest.MonkeyPatch) -> None:
    def encode(rows: list[dict[str, Any]], **options: Any) -> None:
        batches: DataLoader[Any] = DataLoader(rows, batch_size=2, collate_fn=collate)  # type: ignore[arg-type]
        meta = metadata("I->T", prompt=PROMPT)
        side = PromptType.query
        model.encode(batches, task_metadata=meta, hf_split="test", hf_subset="default", prompt_type=side, **options)

    with pytest.raises(FoundryError, match="ColourI2T query, split test, row 3: neither text nor picture"):
        encode([{"image": Image.new("RGB", (8, 8))}] * 3 + [{"image": None}])
    with pytest.raises(FoundryError, match=r"split test, row 2: expected a text, found a list of 1 \(dict\)"):
        encode([{"text": "a"}, {"text": "b"}, {"text": [{"role": "user", "content": "c"}]}])
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(buffer, "PNG")
    complete, half = buffer.getvalue(), buffer.getvalue()[: len(buffer.getvalue()) // 2]
    with pytest.raises(FoundryError, match=r"split test, row 1: .*damaged.*; row 4: .*damaged"):
        encode([{"image": Image.open(io.BytesIO(data))} for data in (complete, half, complete, complete, half)])
    monkeypatch.setattr(mteb_model, "_WINDOW_ITEMS", 2)
    with pytest.raises(FoundryError, match=r"split test, row 4: .*damaged"):
        encode([{"image": Image.open(io.BytesIO(data))} for data in (complete, complete, complete, complete, half)])
    for batch in ("a text", ["a text"], {"text": "a text"}, {"text": ["a", "b"], "image": [None]}):
        with pytest.raises(FoundryError, match="A batch of mteb has"):
            items_of(batch)
    with pytest.raises(FoundryError, match="neither text nor image, but audio"):
        encode([{"audio": [0.0]}])
    with pytest.raises(FoundryError, match="float32, not int8"):
        encode([{"text": "a"}], precision="int8")
    for items in ([], [{"image": Image.new("RGB", (8, 8))}]):
        model.prompts_dict = {"ColourI2T": "word " * 300}
        with pytest.raises(FoundryError, match=r"^ColourI2T: The instruction of 30\d tokens leaves room for 0 tokens"):
            encode(items)
    with pytest.raises(FoundryError, match="'tiny'") as caught:
        MtebEmbedder(embedder, name="tiny", revision=REVISION)
    assert "owner/model" in (caught.value.hint or "")
    with pytest.raises(FoundryError, match="No model folder"):
        MtebEmbedder.load(Path("no/such"), NAME)
