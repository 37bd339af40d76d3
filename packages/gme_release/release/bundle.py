"""The files of a bundle, for `gme_release.release.create` and `gme_release.release.verify` alike."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Collection
from contextlib import ExitStack
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.structured import open_regular, read_regular
from gme_release.release.bom import BOM, render_bom
from gme_release.release.cards import DATASET_CARD, MODEL_CARD, dataset_card, model_card
from gme_release.release.record import ID, RECORD, BundleFile, ReleaseRecord
from gme_release.release.signing import PUBLIC_KEY, SIGNATURE
from gme_release.release.source import LOCK

_BLOCK_BYTES = 2**22
MODEL = "model"
"""Folder of the model's files."""
SCORES = "scores.json"
"""File of the scores, task by task."""
GENERATED_FILES = (RECORD, ID, MODEL_CARD, DATASET_CARD, BOM, PUBLIC_KEY, SIGNATURE)
"""Files that are made from the record, or about it, and so can't be listed in it."""


def copy_into_bundle(folder: Path, model: Path, lock: Path, scores: Path) -> tuple[BundleFile, ...]:
    """Copies model, lock and scores into `folder`, and returns them with their sha256."""
    # Hidden files are scratch, which no manifest names.
    shutil.copytree(model, folder / MODEL, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(lock, folder / LOCK)
    shutil.copy(scores, folder / SCORES)
    # The files of the model may be read-only or private, depending on where they come from.
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    entries = []
    for name in list_files(folder):
        sha256, size = read_digest(folder / name)
        entries.append(BundleFile(path=name, sha256=sha256, bytes=size))
    return tuple(entries)


def write_generated(folder: Path, record: ReleaseRecord) -> None:
    """Writes cards and bill of materials."""
    for name, text in render_generated(folder, record).items():
        (folder / name).write_text(text, encoding="utf-8")


def render_generated(folder: Path, record: ReleaseRecord) -> dict[str, str]:
    """Returns the texts of cards and bill of materials, by file name.

    Raises:
        FoundryError: The lock is missing or no text, or a value of the record does not fit a card or the bill.
    """
    path = folder / LOCK
    try:
        lock = read_regular(path).decode()
    except FileNotFoundError as error:
        raise FoundryError(f"{path} is missing.", hint="Fetch the release again.") from error
    except UnicodeDecodeError as error:
        raise FoundryError(f"{path} is not UTF-8: {error.reason} at byte {error.start}.") from error
    return {
        MODEL_CARD: model_card(record),
        DATASET_CARD: dataset_card(record),
        BOM: render_bom(record, lock),
    }


def read_digest(path: Path, target: Path | None = None) -> tuple[str, int]:
    """Returns ``(sha256, size)`` of a regular file, read once; the bytes that were read are written to `target`.

    Raises:
        StructureError: It is a folder, FIFO or device.
        FileNotFoundError: There is no such file.
    """
    digest, size = hashlib.sha256(), 0
    with os.fdopen(open_regular(path), "rb") as source, ExitStack() as stack:
        copy = stack.enter_context(target.open("wb")) if target else None
        while block := source.read(_BLOCK_BYTES):
            digest.update(block)
            size += len(block)
            if copy:
                copy.write(block)
    return digest.hexdigest(), size


def copy_model(folder: Path, record: ReleaseRecord, target: Path, leave_out: Collection[str] = ()) -> None:
    """Copies the files of the model that the record names, and no others, and hashes what is copied.

    Raises:
        FoundryError: A file is not what the record says.
    """
    for entry in record.files:
        top, _, name = entry.path.partition("/")
        if top != MODEL or name in leave_out:
            continue
        copied = target / name
        copied.parent.mkdir(parents=True, exist_ok=True)
        if read_digest(folder / entry.path, copied) != (entry.sha256, entry.bytes):
            raise FoundryError(f"{folder / entry.path} changed while it was copied.", hint="Run the command again.")


def list_files(folder: Path) -> list[str]:
    """Returns every file and link below `folder`, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
