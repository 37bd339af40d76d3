"""A verified folder gives the files that its manifest names, and refuses whatever else lies among them, by name."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from gme_data import file_digests
from gme_data.digests import sha256_bytes, sha256_file
from gme_data.errors import FoundryError
from gme_data.manifest import (
    NAME,
    FileEntry,
    Manifest,
    content_digest,
    damage,
    list_files,
    read_manifest,
    require,
    write_manifest,
)
from gme_data.parquet import shard_paths, write_shards
from gme_data.verified import VerifiedFolder, files_in, folders_with

SCHEMA = pa.schema([pa.field("id", pa.string())])


def publish(folder: Path) -> Path:
    files = list_files(folder)
    write_manifest(folder, Manifest("made", "k", {}, "c", {}, files, content_digest(files), {}, 1.0))
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "output"
    write_shards(folder / "images", "images", [{"id": "a"}], SCHEMA)
    (folder / "tasks" / "one").mkdir(parents=True)
    (folder / "tasks" / "one" / "task.yaml").write_text("name: one")
    (folder / "model.bin").write_text("weights")
    (folder / ".journal").mkdir()
    (folder / ".journal" / "scratch").write_text("nobody reads it")
    return publish(folder)


def test_a_manifest_whose_digest_is_not_that_of_its_files_is_refused(output: Path) -> None:
    """What it says of a file was changed with the file: its own digest, by which others know the output, was not."""
    text = (output / NAME).read_text()
    (output / "model.bin").write_text("WEIGHTS")
    changed = text.replace(sha256_bytes(b"weights"), sha256_bytes(b"WEIGHTS"))
    assert changed != text
    (output / NAME).write_text(changed)
    with pytest.raises(FoundryError, match="its digest is not that of its files"):
        VerifiedFolder.open(output, "make")


def test_it_gives_the_files_that_are_named_and_no_others(output: Path) -> None:
    verified = VerifiedFolder.open(output, "make")
    assert verified.names == ("images/images-00000-of-00001.parquet", "model.bin", "tasks/one/task.yaml")
    assert verified.path("model.bin").read_text() == "weights"
    assert verified.digest("model.bin") == next(f.sha256 for f in verified.manifest.files if f.path == "model.bin")
    for name in ("Model.bin", ".journal/scratch", "../output/model.bin", "./model.bin", NAME):
        assert name not in verified
        with pytest.raises(FoundryError, match="not named by the manifest"):
            verified.path(name)
    with pytest.raises(TypeError, match=r"VerifiedFolder\.open"):
        VerifiedFolder()


def test_a_part_of_an_output_is_read_by_the_manifest_above_it(output: Path, tmp_path: Path) -> None:
    part = VerifiedFolder.containing(output / "images")
    assert part is not None
    assert part.names == ("images-00000-of-00001.parquet",)
    assert files_in(output / "tasks" / "one") == ["task.yaml"]
    assert folders_with(output / "tasks", "task.yaml") == ["one"]
    assert VerifiedFolder.containing(tmp_path) is None
    (tmp_path / "linked").symlink_to(output / "images")
    assert files_in(tmp_path / "linked") == ["images-00000-of-00001.parquet"]


def written(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("planted")


PLANTS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "an extra file": ("model.safetensors", lambda home: written(home / "model.safetensors")),
    "another spelling": ("Model.bin", lambda home: written(home / "Model.bin")),
    "one deep inside": ("tasks/two/task.yaml", lambda home: written(home / "tasks" / "two" / "task.yaml")),
    "a manifest of a part": (f"images/{NAME}", lambda home: publish(home / "images")),
    "a link to a file": ("other.bin", lambda home: (home / "other.bin").symlink_to(home / "model.bin")),
    "a link to a folder": ("more", lambda home: (home / "more").symlink_to(home / "images")),
    "a pipe": ("pipe", lambda home: os.mkfifo(home / "pipe")),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_what_is_not_named_is_refused_by_name(output: Path, plant: str) -> None:
    name, put = PLANTS[plant]
    put(output)
    for read in (
        lambda: VerifiedFolder.open(output, "make"),
        lambda: VerifiedFolder.containing(output / "images"),
        lambda: shard_paths(output / "images", "images"),
        lambda: folders_with(output / "tasks", "task.yaml"),
    ):
        with pytest.raises(FoundryError, match=f"does not name: {name}: ") as refused:
            read()
        assert refused.value.hint is not None
    manifest = read_manifest(output)
    assert manifest is not None
    assert [line.partition(": ")[0] for line in damage(output, manifest)] == [name]


@pytest.mark.parametrize("part", ["model.bin", "images", "images/images-00000-of-00001.parquet"])
def test_a_link_in_place_of_what_is_named_is_refused(output: Path, tmp_path: Path, part: str) -> None:
    shutil.move(output / part, tmp_path / "elsewhere")
    (output / part).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FoundryError, match=f"{part}: (a link|no regular file)"):
        VerifiedFolder.open(output, "make")
    with pytest.raises(FoundryError, match=f"{part}: (a link|no regular file)"):
        files_in(output / "images")


@pytest.mark.parametrize(("names", "message"), [(("a", "A"), "another spelling of"), ((".a",), "hidden")])
def test_a_manifest_that_names_what_can_be_taken_for_another_is_refused(
    tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for name in names:
        (tmp_path / name).write_text("one content")
    digest, size = sha256_file(tmp_path / names[0]), len("one content")
    files = tuple(FileEntry(name, digest, size, None) for name in sorted(names))
    write_manifest(tmp_path, Manifest("made", "k", {}, "c", {}, files, content_digest(files), {}, 1.0))
    with pytest.raises(FoundryError, match=message):
        require(tmp_path, "make")


def test_a_file_is_hashed_once_until_it_changes(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_digests, "_TICK_SECONDS", -1.0)
    read: list[str] = []
    hash_file = file_digests.sha256_file
    monkeypatch.setattr(file_digests, "sha256_file", lambda path: (read.append(path.name), hash_file(path))[1])
    for _ in range(3):
        VerifiedFolder.open(output, "make")
    assert sorted(read) == ["images-00000-of-00001.parquet", "model.bin", "task.yaml"]
    times = (output / "model.bin").stat()
    (output / "model.bin").write_text("Weights")
    os.utime(output / "model.bin", ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FoundryError, match=r"model\.bin: content changed"):
        VerifiedFolder.open(output, "make")
