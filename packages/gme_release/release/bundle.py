"""What lies in a bundle, by name. The same for who writes it and for who checks it."""

from __future__ import annotations

import shutil
from pathlib import Path

from gme_data.digests import sha256_file
from gme_release.release.bom import BOM, render_bom
from gme_release.release.cards import DATASET_CARD, MODEL_CARD, dataset_card, model_card
from gme_release.release.record import ID, RECORD, BundleFile, ReleaseRecord
from gme_release.release.signing import PUBLIC_KEY, SIGNATURE
from gme_release.release.source import LOCK

MODEL = "model"
"""Folder of the safetensors."""
SCORES = "scores.json"
"""The scores, task by task."""
MADE = (RECORD, ID, MODEL_CARD, DATASET_CARD, BOM, PUBLIC_KEY, SIGNATURE)
"""Files that are made from the record, or about it, and so can't stand in it."""


def fill(folder: Path, model: Path, lock: Path, scores: Path) -> tuple[BundleFile, ...]:
    """Copy model, lock and scores into `folder` and list them."""
    shutil.copytree(model, folder / MODEL, ignore=shutil.ignore_patterns(".*"))
    shutil.copy(lock, folder / LOCK)
    shutil.copy(scores, folder / SCORES)
    for path in folder.rglob("*"):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return tuple(
        BundleFile(path=name, sha256=sha256_file(folder / name), bytes=(folder / name).stat().st_size)
        for name in listing(folder)
    )


def write_made(folder: Path, record: ReleaseRecord) -> None:
    """Write cards and bill of materials."""
    for name, text in rendered(folder, record).items():
        (folder / name).write_text(text, encoding="utf-8")


def rendered(folder: Path, record: ReleaseRecord) -> dict[str, str]:
    """What cards and bill of materials must say, by file name."""
    lock = (folder / LOCK).read_text(encoding="utf-8")
    return {
        MODEL_CARD: model_card(record),
        DATASET_CARD: dataset_card(record),
        BOM: render_bom(record, lock),
    }


def listing(folder: Path) -> list[str]:
    """Every file below `folder`, and every link, relative to it, sorted."""
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_symlink() or not p.is_dir())
