"""A file planted into each folder that is read, and every verb that reads it: refused by name, or not seen."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from mlflow.entities.model_registry import ModelVersion
from PIL import Image
from safetensors.torch import load_file, save_file

from flows.config import PipelineConfig
from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_data.items import Item
from gme_data.manifest import NAME, Manifest, content_digest, list_files, read_manifest, write_manifest
from gme_data.settings import load_config
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.sentence_transformer import GmeProcessor
from gme_release.registry.champion import local_weights
from gme_training.job import TrainingJob
from gme_training.trainer import initial_model
from umrb.config import Suite
from umrb.data.selection import suite_tasks
from umrb.data.task_folders import disk_datasets
from umrb.scoring.runner import load_uncached
from umrb.systems.models import ModelOptions, open_model

CONFIG = Path(__file__).resolve().parents[2] / "configs" / "tiny.yaml"
TASKS = Path("data") / "atlas" / "tasks" / "test"
STAGE_1, STAGE_2, ADAPTERS = (Path("checkpoints") / name for name in ("stage1", "stage2", "adapters"))


def publish(folder: Path) -> Path:
    files = list_files(folder)
    write_manifest(folder, Manifest(folder.name, "k", {}, "c", {}, files, content_digest(files), {}, 1.0))
    return folder


def png(shade: int) -> ImageRecord:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 48), (shade, 90, 90)).save(buffer, format="PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")


def task(name: str, picture: ImageRecord) -> RetrievalTask:
    card = TaskCard(
        name=name, task_type="T->I", metric="hit_rate_at_5", instruction="Find the square.", split="test",
        subset="unseen", description="squares", relevance="by construction", licences=("CC0-1.0",),
        images="../../../images", queries=1, pool=1,
    )  # fmt: skip
    document = Document("d", Item(image=picture.id), "g", "CC0-1.0")
    return RetrievalTask(card, (document,), (Query("q", Item("red"), "g", "", "CC0-1.0"),), {"q": {"d": 1}})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace as a pipeline leaves it, in miniature: data, models, adapters on a model, vectors."""
    home = tmp_path_factory.mktemp("planted") / "workspace"
    pictures = [png(shade) for shade in (250, 60)]
    write_images(home / "data" / "atlas" / "images", pictures)
    save_task(home / TASKS / "squares", task("squares", pictures[0]))
    publish(home / "data" / "atlas")
    example = Example(
        "e", "T->I", "s", None, Item("red"), Item(image=pictures[0].id), (), "g", "", None, "CC0-1.0", "train"
    )
    write_examples(home / "data" / "synthetic" / "train", [example])
    publish(home / "data" / "synthetic")
    Embedder.fresh(ModelConfig(text_layers=1), seed=1).save(home / STAGE_1)
    shutil.copytree(home / STAGE_1, home / STAGE_2)
    for stage in (STAGE_1, STAGE_2):
        publish(home / stage)
    (home / ADAPTERS).mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": str(home / STAGE_2)}
    (home / ADAPTERS / "adapter_config.json").write_text(json.dumps(config))
    weights = load_file(home / STAGE_1 / "model-00002-of-00003.safetensors")
    layer = next(name for name in sorted(weights) if name.endswith("q_proj.weight"))
    out, width = weights[layer].shape
    halves = {"A": weights[layer][:1].clone(), "B": weights[layer][:, :1].clone()}
    assert (out, width) == (len(halves["B"]), halves["A"].shape[1])
    name = layer.removesuffix(".weight")
    save_file(
        {f"base_model.model.{name}.lora_{side}.weight": half for side, half in halves.items()},
        home / ADAPTERS / "adapter_model.safetensors",
    )
    publish(home / ADAPTERS)
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["a red flag", "a blue flag"]}), home / "corpus.parquet")
    assert embed(home, home / STAGE_2, home / "vectors") == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy whose files are the original's own: these tests put files beside them, and change none in place."""
    monkeypatch.setattr("gme_serve.server.run", lambda *_: None)  # the rest of `gme serve` is real, its loader too
    return shutil.copytree(made, tmp_path / "workspace", copy_function=lambda a, b: Path(b).hardlink_to(a))


def embed(home: Path, model: Path, output: Path) -> int:
    return run(["embed", "--input", str(home / "corpus.parquet"), "--output", str(output), "--model", str(model)])


def verb(home: Path, *words: str) -> None:
    """A command of `gme` in the workspace; its refusal as the error that it is."""
    status = run([*words, "--workspace", str(home)])
    if status:
        raise FoundryError(f"exit {status}")


def version(home: Path, folder: Path) -> ModelVersion:
    manifest = read_manifest(home / folder)
    assert manifest is not None
    found = ModelVersion("gme-tiny", "1", 0)
    found.tags.update({"gme.model_digest": manifest.content, "gme.model_path": str(folder)})
    return found


def start(home: Path, folder: Path) -> Embedder:
    config = load_config(CONFIG, PipelineConfig).stage_2
    job = TrainingJob(config, (), (), home / folder, home / "staging", home / "logs")
    return initial_model(job)


Door = Callable[[Path], object]
MODEL_DOORS: dict[str, Callable[[Path, Path], object]] = {
    "embed": lambda home, model: verb(
        home,
        "embed",
        "--input",
        str(home / "corpus.parquet"),
        "--output",
        str(home / "out"),
        "--model",
        str(home / model),
    ),
    "export": lambda home, model: verb(home, "export", "--output", str(home / "out"), "--model", str(home / model)),
    "serve": lambda home, model: verb(home, "serve", "--port", "0", "--model", str(home / model)),
    "serve a corpus": lambda home, model: verb(
        home, "serve", "--port", "0", "--model", str(home / model), "--corpus", str(home / "vectors")
    ),
    "umrb run": lambda home, model: open_model(str(home / model), home / "out", ModelOptions()),
    "a start of training": start,
    "a promotion's check": lambda home, model: local_weights(None, version(home, model), home),
    "the processor": lambda home, model: GmeProcessor.from_pretrained(home / model),
}
DATA_DOORS: dict[str, Door] = {
    "evaluate": lambda home: verb(home, "evaluate"),
    "train": lambda home: verb(home, "train", "--stage", "1"),
    "validate": lambda home: verb(home, "validate"),
    "baselines": lambda home: verb(home, "baselines"),
    "embed": lambda home: embed_or_raise(home, home / TASKS / "squares" / "corpus.parquet"),
    "atlas show": lambda home: verb(home, "atlas", "show", "--task", "T->I", "--out", str(home / "sheet.html")),
    "the loader of tasks": lambda home: [load_uncached(unit) for unit in suite_tasks(Suite(), home / TASKS)],
    "tasks of one's own": lambda home: disk_datasets(home / TASKS),
    "the store of pictures": lambda home: ImageStore([home / "data" / "atlas" / "images"]),
}


def embed_or_raise(home: Path, source: Path) -> None:
    verb(home, "embed", "--input", str(source), "--output", str(home / "out"), "--model", str(home / STAGE_1))


def other_weights(folder: Path) -> None:
    weights = {key: tensor * 2 for shard in folder.glob("model-*") for key, tensor in load_file(shard).items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


MODEL_PLANTS: dict[str, Callable[[Path], object]] = {
    "model.safetensors": other_weights,
    "adapter_config.json": lambda folder: (folder / "adapter_config.json").write_text("{}"),
    "Config.json": lambda folder: shutil.copy(folder / "tokenizer.json", folder / "Config.json"),
    "linked.safetensors": lambda folder: (folder / "linked.safetensors").symlink_to(folder / "tokenizer.json"),
}


@pytest.mark.parametrize("name", MODEL_PLANTS)
@pytest.mark.hardening("attacks", "A8", "Weights and files that no manifest names")
def test_no_verb_takes_a_model_with_a_planted_file(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    MODEL_PLANTS[name](home / STAGE_2)
    for door, read in MODEL_DOORS.items():
        refused(lambda read=read: read(home, STAGE_2), name, door, capsys)
    refused(lambda: verb(home, "evaluate"), name, "evaluate", capsys)


@pytest.mark.hardening("attacks", "A8", "Weights and files that no manifest names")
def test_nor_adapters_or_the_model_below_them(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = json.loads((home / ADAPTERS / "adapter_config.json").read_text())["base_model_name_or_path"]
    assert Path(base).parents[1].name == "workspace"
    (home / ADAPTERS / "adapter_model.bin").write_text("planted")
    for door, read in MODEL_DOORS.items():
        refused(lambda read=read: read(home, ADAPTERS), "adapter_model.bin", door, capsys)
    (home / ADAPTERS / "adapter_model.bin").unlink()
    (home / ADAPTERS / "adapter_config.json").unlink()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": str(home / STAGE_2)}
    (home / ADAPTERS / "adapter_config.json").write_text(json.dumps(config))
    publish(home / ADAPTERS)
    (home / STAGE_2 / "planted.json").write_text("{}")
    for door in ("embed", "serve", "umrb run", "a start of training"):
        refused(lambda door=door: MODEL_DOORS[door](home, ADAPTERS), "planted.json", door, capsys)


DATA_PLANTS: dict[str, Callable[[Path], object]] = {
    "tasks/test/planted/": lambda data: save_task(data / "tasks" / "test" / "planted", task("planted", png(250))),
    "images/images-00000-of-00002.parquet": lambda data: shutil.copy(
        data / "images" / "images-00000-of-00001.parquet", data / "images" / "images-00000-of-00002.parquet"
    ),
    "images/more": lambda data: (data / "images" / "more").symlink_to(data / "tasks"),
    f"tasks/test/squares/{NAME}": lambda data: publish(data / "tasks" / "test" / "squares"),
}


@pytest.mark.parametrize("name", DATA_PLANTS)
@pytest.mark.hardening("attacks", "A8", "Weights and files that no manifest names")
def test_no_verb_reads_data_with_a_planted_file(home: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    DATA_PLANTS[name](home / "data" / "atlas")
    for door, read in DATA_DOORS.items():
        refused(lambda read=read: read(home), name, door, capsys)


def refused(read: Callable[[], object], name: str, door: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    with pytest.raises(FoundryError) as error:
        read()
    said = f"{error.value}\n{capsys.readouterr().err}"
    assert f"does not name: {name}" in said, (door, said)


def test_scratch_is_not_seen(made: Path, home: Path) -> None:
    (home / STAGE_2 / ".model.safetensors").write_text("planted")
    (home / TASKS / ".planted").mkdir()
    (home / TASKS / ".planted" / "task.yaml").write_text("planted")
    assert embed(home, home / STAGE_2, home / "again") == 0
    np.testing.assert_array_equal(vectors(home / "again"), vectors(made / "vectors"))
    assert [load_uncached(unit).task.card.name for unit in suite_tasks(Suite(), home / TASKS)] == ["squares"]


def vectors(folder: Path) -> np.ndarray:
    return np.load(folder / "vectors-00000.npy")


def nearest(home: Path) -> int:
    paths = [
        "--queries",
        str(home / "vectors"),
        "--corpus",
        str(home / "vectors"),
        "--output",
        str(home / "hits.parquet"),
    ]
    return run(["nearest", *paths])


def test_what_lies_beside_vectors_is_not_seen(made: Path, home: Path) -> None:
    assert nearest(home) == 0
    before = pq.read_table(home / "hits.parquet")
    np.save(home / "vectors" / "vectors-00001.npy", np.ones((9, 576), np.float32))
    (home / "vectors" / "vectors-00000.NPY").symlink_to(home / "corpus.parquet")
    assert nearest(home) == 0
    assert pq.read_table(home / "hits.parquet") == before


@pytest.mark.parametrize("plant", ["objects", "a link"])
@pytest.mark.hardening("attacks", "A9", "Adapters on themselves; objects and pipes among vectors")
def test_what_stands_in_place_of_vectors_is_refused_by_name(
    home: Path, plant: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "vectors" / "vectors-00000.npy"
    path.rename(home / "moved.npy")
    if plant == "objects":
        np.save(path, np.array([{"code": print}, None], dtype=object), allow_pickle=True)
    else:
        path.symlink_to(home / "moved.npy")
    assert nearest(home) == 2
    assert str(path) in capsys.readouterr().err
