"""Does a bundle still hold what was released? Every byte, the record, the signature. Says all that is wrong.

What is opened is what the record names; anything else that lies there is refused by its name, unopened. Needs no
registry, no network and no model. Re-scoring is a matter of the chain; see `flows.release`.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.structured import read_regular
from gme_release.release.bundle import MADE, MODEL, SCORES, listing, read_digest, rendered
from gme_release.release.record import RECORD, ReleaseRecord, read_record, record_problems, release_id
from gme_release.release.signing import PUBLIC_KEY, fingerprint, signature_problems
from gme_release.release.source import LOCK


@dataclass(frozen=True, slots=True)
class Verified:
    """A sound release.

    Attributes:
        id: Of the record.
        key: Fingerprint of the key that signed it.
        trusted: Whether that key was given, and not only found in the bundle.
    """

    record: ReleaseRecord
    id: str
    key: str
    files: int
    trusted: bool


def verify_release(folder: Path, public: Path | None = None) -> Verified:
    """Check a bundle against itself and, with `public`, against the key of who should have signed it.

    Raises:
        FoundryError: Anything differs; one line a problem.
    """
    if public is not None and not public.is_file():
        raise FoundryError(f"{public} is missing.", hint="Give the file of the public key with --key.")
    record = read_record(folder)
    names = list(_name_problems(folder, record))
    # The signature's library opens whatever lies there: only where that is, by name and kind, what the record names.
    signature = [] if names else signature_problems(folder, public)
    problems = [*_record_problems(record), *record_problems(folder, record), *names]
    problems += [*_content_problems(folder, record), *signature]
    if not problems:
        # Only what was signed is rendered again: a card that says something else was signed by mistake or on purpose.
        problems += _card_problems(folder, record)
    if problems:
        lines = "\n  ".join(problems)
        raise FoundryError(
            f"{folder} is not what was released:\n  {lines}", hint="Don't use it; fetch the release again.", exit_code=1
        )
    key = fingerprint(public or folder / PUBLIC_KEY)
    return Verified(record, release_id(record), key, len(listing(folder)), trusted=public is not None)


def _record_problems(record: ReleaseRecord) -> Iterator[str]:
    """What a record must name: one that names nothing agrees with any folder."""
    named = {entry.path for entry in record.files}
    for name in sorted({LOCK, SCORES} - named):
        yield f"{RECORD}: does not name {name}"
    if not any(name.startswith(f"{MODEL}/") for name in named):
        yield f"{RECORD}: names no file of the model"
    for field in ("tasks", "datasets"):
        if not getattr(record, field):
            yield f"{RECORD}: names no {field}"


def _name_problems(folder: Path, record: ReleaseRecord) -> Iterator[str]:
    """What is missing, extra or no file; nothing is opened."""
    there = set(listing(folder))
    expected = {*(entry.path for entry in record.files), *MADE}
    for name in sorted(expected - there):
        yield f"{name}: missing"
    for name in sorted(there - expected):
        yield f"{name}: extra, nothing in the record names it"
    for name in sorted(there & expected):
        mode = (folder / name).lstat().st_mode
        if not stat.S_ISREG(mode):
            yield f"{name}: {'a link' if stat.S_ISLNK(mode) else 'a device or pipe'}, not a file"


def _content_problems(folder: Path, record: ReleaseRecord) -> Iterator[str]:
    """Files that are there, each read once."""
    for entry in record.files:
        path = folder / entry.path
        if path.is_file() and not path.is_symlink() and read_digest(path) != (entry.sha256, entry.bytes):
            yield f"{entry.path}: content changed"


def _card_problems(folder: Path, record: ReleaseRecord) -> list[str]:
    try:
        texts = rendered(folder, record)
    except FoundryError as error:
        return [str(error)]
    except Exception as error:  # of the libraries of cards and bills, which a record made for it can make fall
        return [f"{RECORD}: no cards can be made of it: {type(error).__name__}: {error}"]
    return [
        f"{name}: does not say what the record says"
        for name, text in texts.items()
        if read_regular(folder / name) != text.encode()
    ]
