"""Files that the product writes and reads again, damaged: read as what they are, or refused with their name."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from fuzz.harness import try_damaged_file

from flows.slots import Slot, read_slot_record
from gme_data.events import append_event, read_events
from gme_data.journal import Journal
from gme_data.manifest import NAME, Manifest, content_digest, damage, list_files, read_manifest, write_manifest
from gme_data.scores import SystemScores, TaskScore, read_systems, write_systems
from gme_embedder.config import ModelConfig
from gme_embedder.corpus.bulk import embed_corpus
from gme_embedder.corpus.job import EmbedJob, identify_model
from gme_embedder.corpus.rows import identify_corpus, open_corpus
from gme_embedder.corpus.vector_folder import open_vectors
from gme_embedder.costs import architecture_of
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.adapter_config import base_folder, read_adapter
from gme_embedder.model_files.family import read_family
from gme_embedder.model_files.locate import locate
from gme_embedder.model_files.model_folder import ModelFolder
from gme_training.checkpoint_files import MANIFEST, ResumePoint
from gme_training.checkpoint_files import read_manifest as read_checkpoint
from gme_training.checkpoint_files import write_manifest as write_checkpoint
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig
from gme_training.data.example_index import INDEX_FILE, read_index_manifest
from gme_training.job import TrainingJob
from gme_training.job import read_job as read_training_job
from umrb.data.fetch_lock import LOCK, FetchedRepository, read_lock, write_lock
from umrb.scoring.cards import read_examples as read_cards

SLOT = Slot("tiny", datetime(2026, 4, 6, tzinfo=UTC), "c" * 64)
RESUME = ResumePoint(1, 6)
SCORE = TaskScore(
    name="a", task_type="T->T", subset="seen", metric="r", value=0.5, interval=(0.4, 0.6), scores={"r": 0.5},
    queries=2, pool=9, subsets={},
)  # fmt: skip
RECORD = {
    "pipeline": "tiny", "slot": "2026-04-06T00:00:00Z", "config": SLOT.config, "state": "failed", "attempts": 2,
    "pid": 7, "changed": "2026-04-06T00:01:00Z", "detail": "x", "result": {"version": "1"},
}  # fmt: skip
ADAPTER = {"peft_type": "LORA", "base_model_name_or_path": "../model", "r": 8, "lora_alpha": 16, "bias": "none"}
LOGGED = {"flavors": {"python_function": {"artifacts": {"model": {"path": "artifacts/model", "uri": "x"}}}}}


def look_at_made(home: Path) -> None:
    manifest = read_manifest(home / "made")
    assert manifest
    damage(home / "made", manifest)


def look_at_model(home: Path) -> None:
    architecture_of(str(home / "model"))
    read_family(home / "model")


DOORS: dict[str, Callable[[Path], object]] = {
    f"made/{NAME}": look_at_made,
    "events.jsonl": lambda home: list(read_events(home / "events.jsonl")),
    ".journal-units/a.json": lambda home: Journal(home, "units").get_or_run("a", lambda: {"b": [1]}),
    "model/config.json": look_at_model,
    "model/model.safetensors.index.json": lambda home: ModelFolder.open(home / "model"),
    "adapter/adapter_config.json": lambda home: base_folder(read_adapter(home / "adapter")),
    "logged/MLmodel": lambda home: locate(home / "logged").is_dir(),
    "vectors/job.json": lambda home: list(open_vectors(home / "vectors")),
    "vectors/skipped-00000.json": lambda home: list(open_vectors(home / "vectors")),
    f"{RESUME.tag}/{MANIFEST}": lambda home: read_checkpoint(home / RESUME.tag),
    INDEX_FILE: read_index_manifest,
    "systems.json": read_systems,
    "examples.json": lambda home: read_cards(home / "examples.json"),
    LOCK: read_lock,
    f"runs/slots/tiny/{SLOT.path(Path()).name}": lambda home: read_slot_record(SLOT, home),
    "training-job.json": lambda home: read_training_job(home / "training-job.json"),
}
ALWAYS_READ = {"events.jsonl", ".journal-units/a.json"}
"""What is damaged in them is passed over, or done again."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One good file of each kind, by those who write them."""
    home = tmp_path_factory.mktemp("own")
    for folder in ("made", "adapter", "logged/artifacts/model", RESUME.tag):
        (home / folder).mkdir(parents=True)
    (home / "made" / "a.txt").write_text("a")
    files = list_files(home / "made")
    manifest = Manifest(
        "corpus", "k" * 64, {"seed": 1}, "c" * 64, {"x": "y"}, files, content_digest(files), {"a": 2}, 1
    )
    write_manifest(home / "made", manifest)
    for number in range(5):
        append_event(home / "events.jsonl", "step", loss=number / 3, name="größer")
    Journal(home, "units").get_or_run("a", lambda: {"b": [1]})
    embedder = Embedder.fresh(ModelConfig(text_layers=1), seed=1)
    embedder.save(home / "model")
    (home / "adapter" / "adapter_config.json").write_text(json.dumps(ADAPTER))
    (home / "logged" / "MLmodel").write_text(yaml.safe_dump(LOGGED))
    rows = [{"id": "a", "text": "Lima"}, {"id": "b", "text": None}, {"id": "c", "text": "Oslo"}]
    pq.write_table(pa.Table.from_pylist(rows), home / "corpus.parquet")
    embedder, table = Embedder.load(home / "model"), open_corpus(home / "corpus.parquet")
    job = EmbedJob(corpus=identify_corpus(table), model=identify_model(embedder, "./model"), shard_rows=3)
    embed_corpus(embedder, table, home / "vectors", job, on_error="skip")
    (home / RESUME.tag / "weights.pt").write_bytes(b"weights")
    write_checkpoint(home / RESUME.tag, RESUME, 1, ["a", "b"])
    stratum = {"source": "s", "task_type": "T->T", "with_negatives": True, "first": 0, "last": 2}
    (home / INDEX_FILE).write_text(json.dumps({"version": 1, "shards": [["a", 1, 2]], "strata": [stratum]}))
    write_systems(home, [SystemScores(system="model", tasks=(SCORE,))])
    card = {"text": "a", "picture": None}
    example = {"task": "a", "query": card, "found": [{"card": card, "score": 0.5, "relevant": True}], "rank": 1}
    (home / "examples.json").write_text(json.dumps([{**example, "answer": None}]))
    write_lock(home, {"a/b": FetchedRepository("r" * 40, "mit", files)})
    SLOT.path(home).parent.mkdir(parents=True)
    SLOT.path(home).write_text(json.dumps(RECORD))
    training = TrainingConfig(phases=(PhaseConfig(name="p", steps=2, mixture=(SourceShare(source="s"),)),))
    TrainingJob(training, (home / "x",), (home / "y",), None, home / "z", home / "log").write(
        home / "training-job.json"
    )
    return home


@pytest.mark.parametrize("name", DOORS)
@pytest.mark.hardening("fuzz", "Z8", "files of its own: manifests, pointers, jobs, records")
def test_a_damaged_file_is_read_as_what_it_is_or_refused(home: Path, name: str) -> None:
    refused = try_damaged_file(home / name, lambda: DOORS[name](home), share=1 / 4)
    assert (refused == 0) == (name in ALWAYS_READ)
