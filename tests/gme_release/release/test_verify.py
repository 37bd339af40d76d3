"""A bundle that somebody else made or changed: each damage is told with its file, nothing hangs and nothing falls."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fuzz.harness import try_damaged
from released_miniature import Finished

from gme_cli.main import run
from gme_data.errors import FoundryError
from gme_release.release import publish as publish_module
from gme_release.release.bundle import read_digest
from gme_release.release.publish import publish_release
from gme_release.release.record import BundleFile, read_record, write_record
from gme_release.release.signing import SIGNATURE, sign
from gme_release.release.verify import verify_release

WEIGHTS = "model/model-00001-of-00001.safetensors"


def complaint(folder: Path) -> str:
    with pytest.raises(FoundryError) as caught:
        verify_release(folder)
    return str(caught.value)


def in_record(old: str, new: str) -> Callable[[Path], object]:
    def change(copy: Path) -> None:
        path = copy / "record.json"
        text = path.read_text()
        assert old in text
        path.write_bytes(text.replace(old, new, 1).encode(errors="surrogatepass"))

    return change


def pipe(name: str) -> Callable[[Path], object]:
    def change(copy: Path) -> None:
        (copy / name).unlink(missing_ok=True)
        os.mkfifo(copy / name)

    return change


def folder_in_place(name: str) -> Callable[[Path], object]:
    def change(copy: Path) -> None:
        (copy / name).unlink()
        (copy / name).mkdir()

    return change


def renamed(name: str, other: str) -> Callable[[Path], object]:
    return lambda copy: (copy / name).rename(copy / other)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (in_record('"overall":0.7', '"overall":NaN'), "record.json is damaged"),
        (in_record('"overall":0.7', '"overall":1e999'), "record.json is damaged"),
        (in_record('"tag":"v1"', '"tag":"\\ud800"'), "record.json is damaged"),
        (in_record('"tag":"v1"', '"tag":"\ud800"'), "record.json is damaged"),
        (in_record('"tag":"v1"', '"tag":1'), "record.json is damaged: tag"),
        (in_record('"config":{', '"config":{"x":' + "[" * 9999 + "]" * 9999 + ","), "record.json is damaged"),
        (in_record('"config":{', '"config":{"x":' + "9" * 5000 + ","), "record.json is damaged"),
        (in_record('"path":"requirements.txt"', '"path":"../requirements.txt"'), "no path below the folder"),
        (in_record('"path":"requirements.txt"', '"path":"/etc/passwd"'), "no path below the folder"),
        (pipe("record.json"), "no regular file"),
        (pipe("record.sha256"), "record.sha256: a device or pipe"),
        (pipe("release.sig"), "release.sig: a device or pipe"),
        (pipe("README.md"), "README.md: a device or pipe"),
        (pipe(WEIGHTS), f"{WEIGHTS}: a device or pipe"),
        (pipe("model/extra"), "model/extra: extra"),
        (folder_in_place("requirements.txt"), "requirements.txt: missing"),
        (folder_in_place("record.json"), "no regular file"),
        (lambda copy: (copy / "requirements.txt").unlink(), "requirements.txt: missing"),
        (lambda copy: (copy / "record.sha256").write_bytes(b"\xff\xfe"), "record.sha256 says"),
        (renamed(WEIGHTS, "model/Model-00001-of-00001.safetensors"), "model/Model-00001-of-00001.safetensors: extra"),
        (lambda copy: shutil.copy(copy / WEIGHTS, copy / "model" / "x.safetensors"), "model/x.safetensors: extra"),
        (lambda copy: (copy / "model" / "later").symlink_to("/etc/passwd"), "model/later: extra"),
        (lambda copy: (copy / "weights").symlink_to(copy / "model"), "weights: extra"),
    ],
)  # fmt: skip
@pytest.mark.hardening("attacks", "A10", "A signed release, changed")
def test_it_is_told_by_its_name(copy: Path, change: Callable[[Path], object], told: str) -> None:
    change(copy)
    assert told in complaint(copy)
    assert run(["release", "verify", str(copy)]) in (1, 2)


@pytest.mark.hardening("attacks", "A10", "A signed release, changed")
def test_what_somebody_signed_himself(copy: Path, finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a key to expect anyone can sign; what he signs may still not fall."""
    lock = copy / "requirements.txt"
    lock.write_bytes(b"numpy==2.4.6\xff\n")
    sha256, size = read_digest(lock)
    record = read_record(copy)
    others = tuple(entry for entry in record.files if entry.path != lock.name)
    write_record(
        copy, record.model_copy(update={"files": (*others, BundleFile(path=lock.name, sha256=sha256, bytes=size))})
    )
    sign(copy, finished.key)
    assert "requirements.txt is not UTF-8" in complaint(copy)
    lock.write_bytes(b"numpy==2.4.6\n")
    sha256, size = read_digest(lock)
    for changes in ({"name": ""}, {"model": ""}, {"licence": "\n---\n"}, {"base_model": {}}, {"model": "x" * 5000}):
        entry = BundleFile(path=lock.name, sha256=sha256, bytes=size)
        write_record(copy, record.model_copy(update={"files": (*others, entry), **changes}))
        sign(copy, finished.key)
        complaint(copy)
        assert run(["release", "verify", str(copy)]) == 1
    assert "Internal error" not in capsys.readouterr().err


@pytest.mark.hardening("attacks", "A10", "A signed release, changed")
def test_what_is_published_is_what_was_verified(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file put among the others, and one changed, after the check and before the copy."""

    def verified(folder: Path, public: Path | None = None) -> object:
        found = verify_release(folder, public)
        (copy / "model" / "planted.safetensors").write_bytes(b"x")
        return found

    monkeypatch.setattr(publish_module, "verify_release", verified)
    assert "planted.safetensors" not in publish_release(copy, tmp_path / "hub")
    (copy / "model" / "planted.safetensors").unlink()

    def changed(folder: Path, public: Path | None = None) -> object:
        found = verify_release(folder, public)
        (copy / WEIGHTS).write_bytes(b"x" * (copy / WEIGHTS).stat().st_size)
        return found

    monkeypatch.setattr(publish_module, "verify_release", changed)
    with pytest.raises(FoundryError, match="changed while it was copied"):
        publish_release(copy, tmp_path / "hub2")
    assert not list(tmp_path.glob("*hub2*"))


@pytest.mark.parametrize(
    "name", ["record.json", "record.sha256", "requirements.txt", "release.sig", "model/_manifest.json"]
)
@pytest.mark.hardening("fuzz", "Z7", "releases and outboxes")
def test_no_changed_byte_of_what_is_read_passes(copy: Path, name: str) -> None:
    path = copy / name
    whole = path.read_bytes()

    def verify(data: bytes) -> None:
        path.write_bytes(data)
        if data == whole:
            verify_release(copy)
        elif name != SIGNATURE:
            complaint(copy)
        else:  # an envelope of JSON and base64 that says the same in other bytes is the same signature
            with suppress(FoundryError):
                verify_release(copy)

    assert try_damaged(whole, verify, share=1 / 40, fields=True) == 0
