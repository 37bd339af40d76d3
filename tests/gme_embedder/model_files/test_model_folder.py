"""Of a model's folder exactly the files are loaded that its manifest or its index names, and these are its digest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from gme_data.errors import FoundryError
from gme_data.manifest import Manifest, content_digest, list_files, write_manifest
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.family import require_gme
from gme_embedder.model_files.file_names import ADAPTER_CONFIG, ADAPTER_WEIGHTS, INDEX, WEIGHTS
from gme_embedder.model_files.identity import model_digest
from gme_embedder.model_files.model_folder import ModelFolder

COMMIT = "ce765ae71b8cdb208203cd8fb64a170b1b84293a"
SHARD = "model-00002-of-00003.safetensors"
TEXTS = ["Santiago", "a white blue star"]


@pytest.fixture(scope="module")
def fresh() -> Embedder:
    return Embedder.fresh(ModelConfig(text_layers=1), seed=5)


@pytest.fixture(scope="module")
def original(fresh: Embedder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model-folder") / "model"
    fresh.save(folder)
    return folder


@pytest.fixture
def model(original: Path, tmp_path: Path) -> Path:
    """A copy whose large files are the original's own: these tests put files beside them, and change none in place."""
    return shutil.copytree(original, tmp_path / "model", copy_function=lambda a, b: Path(b).hardlink_to(a))


def publish(folder: Path) -> Path:
    files = list_files(folder)
    write_manifest(folder, Manifest("train-2", "k", {}, "c", {}, files, content_digest(files), {}, 1.0))
    return folder


def other_weights(folder: Path, name: str) -> None:
    """All weights in one file, of another model."""
    weights = {key: tensor * 2 for shard in folder.glob("model-*") for key, tensor in load_file(shard).items()}
    save_file(weights, folder / name, metadata={"format": "pt"})


def point(folder: Path, target: str) -> None:
    """Have the index take the weights of the shard from elsewhere."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {name: target if file == SHARD else file for name, file in index["weight_map"].items()}
    (folder / INDEX).unlink()
    (folder / INDEX).write_text(json.dumps(index))


def adapters_of(base: str, folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": base}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    (folder / ADAPTER_WEIGHTS).write_text("1")
    return folder


@pytest.mark.hardening("attacks", "A8", "Weights and files that no manifest names")
def test_weights_that_no_index_names_are_not_loaded(original: Path, model: Path) -> None:
    expected, digest = Embedder.load(original), model_digest(original)
    other_weights(model, "another.safetensors")
    found = Embedder.load(model)
    np.testing.assert_array_equal(found.encode(TEXTS), expected.encode(TEXTS))
    assert found.source.digest == expected.source.digest == digest == model_digest(model)
    assert SHARD in found.source.weights
    assert "another.safetensors" not in found.source.digests
    publish(model)
    with pytest.raises(FoundryError, match=rf"does not name: {WEIGHTS}: not named"):
        shutil.copy(model / "another.safetensors", model / WEIGHTS)
        Embedder.load(model)


Change = Callable[[Path], object]
TWO_MODELS: dict[str, tuple[str, Change]] = {
    "weights beside an index": ("more than one model", lambda home: other_weights(home, WEIGHTS)),
    "adapters beside an index": (
        "more than one model: .* and adapter_config",
        lambda home: shutil.copy(adapters_of("elsewhere", home.with_name("adapters")) / ADAPTER_CONFIG, home),
    ),
    "an index that leaves the folder": ("no file of weights", lambda home: point(home, f"../elsewhere/{SHARD}")),
    "an index with a whole path": ("no file of weights", lambda home: point(home, str(home / SHARD))),
    "an index that names a pickle": ("no file of weights", lambda home: point(home, "pytorch_model.bin")),
    "an index that names what no file can be called": (
        "which is not there",
        lambda home: point(home, f"{'x' * 300}.safetensors"),
    ),
    "an index that names scratch": ("no file of weights", lambda home: point(home, ".new.safetensors")),
    "an index of what is not there": ("not there", lambda home: point(home, "model-00009-of-00009.safetensors")),
    "an index that is none": ("weight_map", lambda home: [(home / INDEX).unlink(), (home / INDEX).write_text("{}")]),
    "a weight in two files": (
        "lies in another file too",
        lambda home: [other_weights(home, "all.safetensors"), add_to_index(home, "all.safetensors")],
    ),
}


def add_to_index(folder: Path, file: str) -> None:
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"]["one.more"] = file
    (folder / INDEX).unlink()
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize("case", TWO_MODELS)
@pytest.mark.hardening("attacks", "A8", "Weights and files that no manifest names")
def test_a_folder_that_leaves_open_what_is_loaded_is_refused(model: Path, tmp_path: Path, case: str) -> None:
    message, change = TWO_MODELS[case]
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(model / SHARD, tmp_path / "elsewhere")
    change(model)
    for folder in (model, publish(model)):  # by its manifest, too, it is no model
        with pytest.raises(FoundryError, match=message):
            Embedder.load(folder)


def test_a_snapshot_of_the_hub_is_links_into_its_own_cache(original: Path, tmp_path: Path) -> None:
    home = tmp_path / "models--Alibaba-NLP--gme-Qwen2-VL-2B-Instruct"
    snapshot = home / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (home / "blobs").mkdir()
    for number, file in enumerate(sorted(original.iterdir())):
        shutil.copy(file, home / "blobs" / str(number))
        (snapshot / file.name).symlink_to(Path("../../blobs") / str(number))
    found = Embedder.load(snapshot)
    assert found.source.digest == model_digest(original)
    np.testing.assert_array_equal(found.encode(TEXTS), Embedder.load(original).encode(TEXTS))
    (snapshot / SHARD).unlink()
    (snapshot / SHARD).symlink_to(original / SHARD)
    with pytest.raises(FoundryError, match=rf"{SHARD} is a link to {original / SHARD}, outside of its folder"):
        Embedder.load(snapshot)


def test_links_out_of_a_folder_are_refused(model: Path, original: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(model)
    assert model_digest(tmp_path / "linked") == model_digest(original)
    (model / "tokenizer.json").unlink()
    (model / "tokenizer.json").symlink_to(original / "tokenizer.json")
    with pytest.raises(FoundryError, match=r"tokenizer\.json is a link"):
        Embedder.load(model)


@pytest.mark.hardening("attacks", "A9", "Adapters on themselves; objects and pipes among vectors")
def test_adapters_on_adapters_end(tmp_path: Path) -> None:
    ring = [adapters_of(f"../{n % 3}", tmp_path / str(n - 1)) for n in (1, 2, 3)]
    ladder = [adapters_of(f"../{n + 1}", tmp_path / "ladder" / str(n)) for n in range(9)]
    adapters_of(".", tmp_path / "self")
    for read in (Embedder.load, model_digest, require_gme):
        with pytest.raises(FoundryError, match=r"2/adapter_config.json names .*/0, which is built on it"):
            read(ring[0])
        with pytest.raises(FoundryError, match="adapters upon adapters, more than 4"):
            read(ladder[0])
        with pytest.raises(FoundryError, match="names its own folder"):
            read(tmp_path / "self")


def test_adapters_of_a_verified_folder_do_not_climb_out_of_it(original: Path, tmp_path: Path) -> None:
    shutil.copytree(original, tmp_path / "base")
    adapters = adapters_of("../base", tmp_path / "adapters")
    assert ModelFolder.open(adapters).base is not None
    with pytest.raises(FoundryError, match=r"names the base .*, which lies outside of its folder"):
        ModelFolder.open(publish(adapters))


def test_a_file_that_changes_while_it_is_read_is_told(original: Path, tmp_path: Path) -> None:
    source = ModelFolder.open(shutil.copytree(original, tmp_path / "model"))
    source.require_unchanged()
    (tmp_path / "model" / "config.json").write_text("{}")
    with pytest.raises(FoundryError, match=r"config\.json was changed while it was read"):
        source.require_unchanged()
    (tmp_path / "model" / "config.json").unlink()
    with pytest.raises(FoundryError, match=r"config\.json went while it was read"):
        source.require_unchanged()


def test_a_model_that_was_made_has_no_digest(fresh: Embedder) -> None:
    with pytest.raises(FoundryError, match="not loaded"):
        _ = fresh.source
