"""Checks that a bundle still holds what was released: every byte, the record, the signature. Reports all that is wrong.

Only files that the record names are opened; any other file is refused by its name, unopened. Needs no registry, no
network and no model. Re-scoring is in `flows.release`, since it runs a step.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.structured import read_regular
from gme_release.release.bundle import GENERATED_FILES, MODEL, SCORES, list_files, read_digest, render_generated
from gme_release.release.record import RECORD, ReleaseRecord, read_record, record_problems, release_id
from gme_release.release.signing import PUBLIC_KEY, fingerprint, signature_problems
from gme_release.release.source import LOCK


@dataclass(frozen=True, slots=True)
class VerifiedRelease:
    """A release that passed every check.

    Attributes:
        id: The release's id.
        key: Fingerprint of the key that signed it.
        files: Number of files in the bundle.
        trusted: Whether the caller gave that key; else it is the bundle's own.
    """

    record: ReleaseRecord
    id: str
    key: str
    files: int
    trusted: bool


def verify_release(folder: Path, public: Path | None = None) -> VerifiedRelease:
    """Checks a bundle against itself and, with `public`, against the key of the expected signer.

    Raises:
        FoundryError: Anything differs; the message has a line for each problem.
    """
    if public is not None and not public.is_file():
        raise FoundryError(f"{public} is missing.", hint="Give the file of the public key with --key.")
    record = read_record(folder)
    names = list(_name_problems(folder, record))
    # The signature's library opens every file, so it runs only where all files are, by name and kind, the record's.
    signature = [] if names else signature_problems(folder, public)
    problems = [*_record_problems(record), *record_problems(folder, record), *names]
    problems += [*_content_problems(folder, record), *signature]
    if not problems:
        # The bytes are those that were signed. A card that differs from the record was signed by mistake or on purpose.
        problems += _card_problems(folder, record)
    # All problems at once: which files differ tells a damaged copy from an edited one.
    if problems:
        lines = "\n  ".join(problems)
        raise FoundryError(
            f"{folder} is not what was released:\n  {lines}", hint="Don't use it; fetch the release again.", exit_code=1
        )
    key = fingerprint(public or folder / PUBLIC_KEY)
    return VerifiedRelease(record, release_id(record), key, len(list_files(folder)), trusted=public is not None)


def _record_problems(record: ReleaseRecord) -> Iterator[str]:
    """Yields what a record fails to name: a record that names nothing would agree with any folder."""
    named = {entry.path for entry in record.files}
    for name in sorted({LOCK, SCORES} - named):
        yield f"{RECORD}: does not name {name}"
    if not any(name.startswith(f"{MODEL}/") for name in named):
        yield f"{RECORD}: names no file of the model"
    for field in ("tasks", "datasets"):
        if not getattr(record, field):
            yield f"{RECORD}: names no {field}"


def _name_problems(folder: Path, record: ReleaseRecord) -> Iterator[str]:
    """Yields files that are missing, extra, or no regular files; nothing is opened."""
    present = set(list_files(folder))
    expected = {*(entry.path for entry in record.files), *GENERATED_FILES}
    for name in sorted(expected - present):
        yield f"{name}: missing"
    for name in sorted(present - expected):
        yield f"{name}: extra, nothing in the record names it"
    for name in sorted(present & expected):
        mode = (folder / name).lstat().st_mode
        if not stat.S_ISREG(mode):
            yield f"{name}: {'a link' if stat.S_ISLNK(mode) else 'a device or pipe'}, not a file"


def _content_problems(folder: Path, record: ReleaseRecord) -> Iterator[str]:
    """Yields files whose bytes differ from the record; each is read once."""
    for entry in record.files:
        path = folder / entry.path
        if path.is_file() and not path.is_symlink() and read_digest(path) != (entry.sha256, entry.bytes):
            yield f"{entry.path}: content changed"


def _card_problems(folder: Path, record: ReleaseRecord) -> list[str]:
    try:
        texts = render_generated(folder, record)
    except FoundryError as error:
        return [str(error)]
    except Exception as error:  # a crafted record can make the libraries of cards and bills raise anything
        return [f"{RECORD}: no cards can be made of it: {type(error).__name__}: {error}"]
    return [
        f"{name}: does not say what the record says"
        for name, text in texts.items()
        if read_regular(folder / name) != text.encode()
    ]
