"""One digest names a model: it follows every byte that decides vectors, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from gme_data import file_digests
from gme_data.errors import FoundryError
from gme_embedder.embedder import Embedder
from gme_embedder.model_files.adapter_config import Adapter, base_folder
from gme_embedder.model_files.identity import model_digest
from gme_embedder.model_files.locate import hub_commit
from gme_embedder.model_files.model_folder import ModelFolder

COMMIT = "ce765ae71b8cdb208203cd8fb64a170b1b84293a"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The digests of this test alone."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gme-foundry" / "digests"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "gme.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def adapters_of(base: str, folder: Path) -> Path:
    folder.mkdir()
    config = {"peft_type": "LORA", "r": 1, "lora_alpha": 1, "base_model_name_or_path": base}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    (folder / "adapter_model.safetensors").write_text("1")
    return folder


@pytest.mark.parametrize(
    "name", ["config.json", "gme.json", "tokenizer.json", "preprocessor_config.json", "model.safetensors"]
)
def test_every_file_that_is_read_counts(model: Path, name: str) -> None:
    before = model_digest(model)
    (model / name).write_text("changed")
    changed = model_digest(model)
    (model / name).unlink()
    assert len({before, changed, model_digest(model)}) == 3


def test_the_digest_is_of_the_content_and_not_of_where_it_lies(model: Path, tmp_path: Path) -> None:
    before = model_digest(model)
    (model / "README.md").write_text("read me")
    (model / "curves.json").write_text("{}")
    shutil.copytree(model, tmp_path / "elsewhere")
    (tmp_path / "linked").symlink_to(model)
    assert {model_digest(folder) for folder in (model, tmp_path / "elsewhere", tmp_path / "linked")} == {before}


def test_all_files_of_a_saved_model_that_loading_reads_count(embedder: Embedder, tmp_path: Path) -> None:
    embedder.save(tmp_path / "model")
    counted = set(ModelFolder.open(tmp_path / "model").digests)
    assert {path.name for path in (tmp_path / "model").iterdir()} - counted == {"tokenizer_config.json"}
    (tmp_path / "model" / "tokenizer_config.json").unlink()
    assert Embedder.load(tmp_path / "model").encode(["a"]).shape == (1, embedder.dimension)


def test_adapters_include_their_base(model: Path, tmp_path: Path) -> None:
    adapters = adapters_of(str(model), tmp_path / "adapters")
    before = model_digest(adapters)
    assert before != model_digest(model)
    (model / "model.safetensors").write_text("changed")
    assert model_digest(adapters) != before
    with pytest.raises(FoundryError, match="owner/on-a-hub"):
        model_digest(adapters_of("owner/on-a-hub", tmp_path / "other"))


def test_adapters_are_not_their_own_base(tmp_path: Path) -> None:
    folder = adapters_of(".", tmp_path / "adapters")
    with pytest.raises(FoundryError, match="names its own folder"):
        model_digest(folder)
    with pytest.raises(FoundryError, match="names its own folder"):
        base_folder(Adapter(folder, str(folder), 1.0))


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_folder_without_a_model_has_no_digest(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(FoundryError, match=f"No model folder '.*{name}'"):
        model_digest(tmp_path / name)


@pytest.fixture
def large(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose files all count as large, and as written long ago."""
    monkeypatch.setattr(file_digests, "_LARGE", 1)
    monkeypatch.setattr(file_digests, "_TICK_SECONDS", -1.0)
    monkeypatch.setattr(file_digests, "_COARSE_TICK_SECONDS", -1.0)
    return model


def test_weights_are_read_once_until_they_change(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    hash_file = file_digests.sha256_file
    monkeypatch.setattr(file_digests, "sha256_file", lambda path: (read.append(path.name), hash_file(path))[1])
    before = model_digest(large)
    assert "model.safetensors" in read
    read.clear()
    assert model_digest(large) == before
    assert read == []
    # Of the same size and with the old time, as `rsync --times` or a restored backup leaves it.
    weights = large / "model.safetensors"
    times = weights.stat()
    weights.write_text("Model.safetensors")
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert model_digest(large) != before
    assert read == ["model.safetensors"]


def test_a_file_written_just_now_is_not_kept(model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "_LARGE", 1)
    model_digest(model)
    assert not cache.exists()


def test_a_damaged_cache_or_none_costs_time_only(large: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = model_digest(large)
    entries = list(cache.iterdir())
    assert entries
    for entry in entries:
        entry.write_bytes(b"\xff" * 64)
    assert model_digest(large) == before
    shutil.rmtree(cache)
    cache.write_text("a file where the folder would be")
    assert model_digest(large) == before
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.delenv("HOME")
    assert model_digest(large) == before


def test_a_snapshot_of_the_hub_tells_its_commit(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    assert hub_commit(snapshot) == COMMIT
    assert hub_commit(tmp_path) is None
