"""Lays a release out as a model hub expects it: the model's files and its card at the top. Uploads nothing."""

from __future__ import annotations

import shutil
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.manifest import NAME
from gme_data.structured import read_regular
from gme_release.release.bom import BOM
from gme_release.release.bundle import copy_model
from gme_release.release.cards import DATASET_CARD, MODEL_CARD, model_card
from gme_release.release.record import ID, RECORD
from gme_release.release.verify import verify_release

_COPIED = (DATASET_CARD, BOM, RECORD, ID)
"""Files of the bundle that are published beside the model."""


def require_new(target: Path) -> None:
    """Checks that `target` does not exist, or is an empty folder.

    Raises:
        FoundryError: It is a file, or a folder with content.
    """
    if target.exists() and not target.is_dir():
        raise FoundryError(f"{target} is a file.", hint="Give a new folder with --to.")
    if target.exists() and any(target.iterdir()):
        raise FoundryError(f"{target} is not empty.", hint="Give a new folder with --to.")


def publish_release(folder: Path, target: Path, public: Path | None = None) -> list[str]:
    """Writes what an upload needs into `target`, and returns the files.

    The card's ``Embedder.load("model")`` is rewritten to load the folder itself.

    Raises:
        FoundryError: The bundle does not verify, or `target` is not empty.
    """
    record = verify_release(folder, public).record
    require_new(target)
    # A file in the release would make it fail its next verification.
    if target.resolve().is_relative_to(folder.resolve()):
        raise FoundryError(
            f"{target} lies in the release, which has no place for it.", hint="Give a new folder with --to."
        )
    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        copy_model(folder, record, part, leave_out=(NAME,))
        for name in _COPIED:
            (part / name).write_bytes(read_regular(folder / name))
        card = model_card(record).replace('Embedder.load("model")', 'Embedder.load(".")')
        (part / MODEL_CARD).write_text(card, encoding="utf-8")
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    if target.exists():
        target.rmdir()
    part.rename(target)
    return sorted(path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file())
