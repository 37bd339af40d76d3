"""Does a bundle still hold what was released? Every byte, the record, the signature. Says all that is wrong.

Needs no registry, no network and no model. Re-scoring is a matter of the chain; see `flows.release`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_release.release.bundle import MADE, MODEL, SCORES, listing, rendered
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
    problems = [*record_problems(folder, record), *_file_problems(folder, record), *signature_problems(folder, public)]
    if not problems:
        # Only what was signed is rendered again: a card that says something else was signed by mistake or on purpose.
        problems += [
            f"{name}: does not say what the record says"
            for name, text in rendered(folder, record).items()
            if (folder / name).read_bytes() != text.encode()
        ]
    if problems:
        lines = "\n  ".join(problems)
        raise FoundryError(
            f"{folder} is not what was released:\n  {lines}", hint="Don't use it; fetch the release again.", exit_code=1
        )
    key = fingerprint(public or folder / PUBLIC_KEY)
    return Verified(record, release_id(record), key, len(listing(folder)), trusted=public is not None)


def _file_problems(folder: Path, record: ReleaseRecord) -> Iterator[str]:
    there = set(listing(folder))
    expected = {entry.path: entry for entry in record.files}
    # A record that names nothing agrees with any folder.
    for name in sorted({LOCK, SCORES} - set(expected)):
        yield f"{RECORD}: does not name {name}"
    if not any(name.startswith(f"{MODEL}/") for name in expected):
        yield f"{RECORD}: names no file of the model"
    for field in ("tasks", "datasets"):
        if not getattr(record, field):
            yield f"{RECORD}: names no {field}"
    for name in sorted({*expected, *MADE} - there):
        yield f"{name}: missing"
    for name in sorted(there - {*expected, *MADE}):
        yield f"{name}: extra, nothing in the record names it"
    for name in sorted(there & set(expected)):
        path = folder / name
        if path.is_symlink():
            yield f"{name}: a link, not a file"
        elif sha256_file(path) != expected[name].sha256:
            yield f"{name}: content changed"
