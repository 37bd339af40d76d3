"""`gme corpus import`: passages and pictures of one's own become a corpus on disk.

Rows that can't be used are counted with a reason and left out; a column that isn't there stops the import. Cleans
nothing: that is synthesis' first step, and on record there.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from gme_data.digests import sha256_file, sha256_json
from gme_data.errors import FoundryError
from gme_data.images import ALLOWED_FORMATS, MAX_BYTES, ROW_GROUP_ROWS, SCHEMA, ImageRecord, decode_rgb
from gme_data.parquet import write_shards
from gme_data.settings import Frozen
from gme_data.steps import Counts, Step, StepContext
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.store import IMAGES, Caption, write_captions, write_passages
from gme_synthesis.corpus.tables import read_table_rows, renamed, require_columns
from gme_synthesis.funnel import write_rejects
from gme_synthesis.records import Reject

_PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
_LONGEST_ID = 200
_SHOWN = ("picture", "page")


class ImportConfig(Frozen):
    """Where passages and pictures are, and what their columns mean."""

    passages: Path = Path("passages.jsonl")
    """A .parquet, .jsonl, .csv or .tsv file, or a folder of them."""
    pictures: Path | None = None
    """A folder of pictures, or a parquet file with `bytes` (or `image`), `name` and perhaps `caption`."""
    columns: dict[str, str] = Field(default={})
    """Our name of a column -> theirs, where it differs, such as ``{text: body, title: heading}``."""
    licence: str = Field(default="LicenseRef-unknown", min_length=1)
    """SPDX expression of passages and pictures that say none themselves."""
    source: str = "own"
    """What the corpus is called in the records."""
    digest: str = ""
    """Of the files; worked out by `sealed`, so that a change of them is a change of the step's key."""

    def sealed(self) -> ImportConfig:
        """The same with the digest of what is there now."""
        files = [file for path in (self.passages, self.pictures) if path for file in _files(path)]
        return self.model_copy(update={"digest": sha256_json([[file.name, sha256_file(file)] for file in files])})


def import_corpus(config: ImportConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write the corpus; see `gme_synthesis.corpus.store`.

    Raises:
        FoundryError: A file or column is missing, or no passage is of use.
    """
    del inputs
    rejects: list[Reject] = []
    pictures: Pictures = {}
    rows = _picture_rows(config, pictures, rejects)
    write_shards(context.staging / IMAGES, "images", rows, SCHEMA, row_group_rows=ROW_GROUP_ROWS)
    index = _Index()
    write_passages(context.staging, map(index.noted, _passages(config, pictures, rejects)))
    if not index.passages:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in Counter(one.reason for one in rejects).items())
        raise FoundryError(
            f"{config.passages}: no passage that can be used: {reasons or 'no rows'}.",
            hint="The column `text` must not be empty, and `facts` is a JSON object of field: value.",
        )
    write_captions(context.staging, index.captions(pictures))
    write_rejects(context.staging / "rejects", rejects)
    return {
        "passages": index.passages,
        "pictures": len({shown.image for shown in pictures.values()}),
        "with_title": index.titled,
        "with_picture": index.pictured,
        "rejects": len(rejects),
    }


Pictures = dict[str, Caption]
"""What is known of a picture, by the name that passages call it; no entity group yet."""


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path] * path.is_file()


def _picture_rows(config: ImportConfig, pictures: Pictures, rejects: list[Reject]) -> Iterator[dict[str, Any]]:
    """Rows for the store, each picture once; notes every name in `pictures`."""
    written: set[str] = set()
    for name, data, caption, licence in _picture_files(config):
        try:
            decode_rgb(data, name)
            record = ImageRecord.from_bytes(data, source=f"{config.source}:{name}", licence=licence or config.licence)
        except FoundryError as error:
            rejects.append(Reject("import", "not-a-picture", name, str(error)))
            continue
        pictures[name] = Caption(record.id, caption, "", record.licence)
        if record.id not in written:
            written.add(record.id)
            yield asdict(record)


def _picture_files(config: ImportConfig) -> Iterator[tuple[str, bytes, str, str]]:
    """Name, bytes, caption and licence of each picture."""
    path = config.pictures
    if path is None:
        return
    if path.is_dir():
        for file in (file for file in _files(path) if file.suffix.lower() in _PICTURE_SUFFIXES):
            with file.open("rb") as handle:  # one byte more than allowed is enough to be refused
                yield file.relative_to(path).as_posix(), handle.read(MAX_BYTES + 1), "", ""
        return
    if path.suffix != ".parquet":
        missing = "" if path.exists() else "There is no such folder. "
        raise FoundryError(f"{path}: {missing}Pictures are a folder ({', '.join(ALLOWED_FORMATS)}) or a parquet file.")
    for number, row in enumerate(read_table_rows(path)):
        data: Any = row.get("bytes") or row.get("image")
        if isinstance(data, dict):  # as Hugging Face datasets keeps them
            row = {**row, "path": data.get("path")}  # noqa: PLW2901 - the same row, opened up
            data = data.get("bytes")
        if not isinstance(data, bytes):
            raise FoundryError(f"{path}, row {number}: no picture in `bytes` or `image`; found {', '.join(row)}.")
        names = [_said(row.get(column)) for column in ("name", "id", "path")]
        yield next(filter(None, names), str(number)), data, _said(row.get("caption")), _said(row.get("licence"))


def _passages(config: ImportConfig, pictures: Pictures, rejects: list[Reject]) -> Iterator[Candidate]:
    seen: set[str] = set()
    by_stem = {Path(name).stem: name for name in sorted(pictures, reverse=True)}
    for number, raw in enumerate(read_table_rows(config.passages)):
        if number == 0:
            require_columns(raw, config.columns, config.passages)
        row = renamed(raw, config.columns)
        id_ = (_said(row["id"]) or f"{number:08d}")[:_LONGEST_ID]
        text, facts = _said(row["text"]), _facts(row["facts"])
        problem = "same-id-twice" if id_ in seen else "no-text" if not text.strip() else "bad-facts" * (facts is None)
        if problem or facts is None:
            rejects.append(Reject("import", problem, id_, _said(row["facts"])[:200] if text.strip() else text[:200]))
            continue
        seen.add(id_)
        shown = {kind: _find(row, kind, pictures, by_stem, rejects, id_) for kind in _SHOWN}
        yield _passage(id_, text, facts, row, config, shown)


def _find(
    row: Mapping[str, Any], kind: str, pictures: Pictures, by_stem: Mapping[str, str], rejects: list[Reject], id_: str
) -> str:
    """Image id of the picture that a row names; without a name, the picture that is called as the passage."""
    name = _said(row[kind])
    if not name and kind == "picture":
        name = by_stem.get(id_, "")
    if name and name not in pictures:
        rejects.append(Reject("import", f"{kind}-not-found", id_, name))
    return pictures[name].image if name in pictures else ""


def _passage(
    id_: str,
    text: str,
    facts: Mapping[str, str],
    row: Mapping[str, Any],
    config: ImportConfig,
    shown: Mapping[str, str],
) -> Candidate:
    title = " ".join(_said(row["title"]).split())
    return Candidate(
        id=id_,
        text=text,
        title=title,
        aliases=tuple(_list(row["aliases"])),
        kind=_said(row["kind"]),
        domain=_said(row["domain"]),
        entity_group=_said(row["entity_group"]) or title.casefold() or id_,
        facts=facts,
        licence=_said(row["licence"]) or config.licence,
        source=_said(row["source"]) or config.source,
        picture=shown["picture"],
        page=shown["page"],
    )


def _said(value: Any) -> str:  # noqa: ANN401 - what a cell holds
    """A cell as text. Nothing is empty, and so is what data frames write for nothing; 0 is something."""
    return "" if value is None or value != value else str(value)  # noqa: PLR0124 - NaN alone differs from itself


def _list(value: Any) -> list[str]:  # noqa: ANN401 - a list, or a text with | or ; between its parts
    parts = value if isinstance(value, list) else re.split(r"[|;]", _said(value))
    return [part.strip() for part in map(_said, parts) if part.strip()]


def _facts(value: Any) -> dict[str, str] | None:  # noqa: ANN401 - a mapping, its JSON, or pairs
    """Field -> value, without those that say nothing; None if it is something else."""
    if not isinstance(value, list | dict) and not _said(value).strip():
        return {}
    try:
        loaded = json.loads(value) if isinstance(value, str) else value
        return {str(name): _said(said) for name, said in dict(loaded).items() if _said(said)}
    except (ValueError, TypeError, RecursionError):
        return None


class _Index:
    """What captions need to know of the passages that go by, and their counts."""

    def __init__(self) -> None:
        self.passages = self.titled = self.pictured = 0
        self._pages: set[str] = set()
        self._beside: dict[str, tuple[str, str]] = {}
        self._groups: dict[str, str] = {}

    def noted(self, passage: Candidate) -> Candidate:
        """Take note of a passage, and give it back."""
        self.passages += 1
        self.titled += bool(passage.title)
        self.pictured += bool(passage.picture)
        self._pages |= {passage.page} - {""}
        if passage.picture and passage.title:
            self._beside.setdefault(passage.picture, (passage.title, passage.entity_group))
        for name in passage.names:
            self._groups.setdefault(name.casefold(), passage.entity_group)
        return passage

    def captions(self, pictures: Pictures) -> list[Caption]:
        """One for each picture that is no page: its own, the title beside it, or the words of its file name."""
        found = {}
        for name, shown in sorted(pictures.items()):
            title, group = self._beside.get(shown.image, ("", ""))
            caption = shown.caption or title or _words_of(name)
            if caption and shown.image not in self._pages and shown.image not in found:
                about = group or self._groups.get(caption.casefold(), caption.casefold())
                found[shown.image] = replace(shown, caption=caption, entity_group=about)
        return list(found.values())


def _words_of(name: str) -> str:
    """``red_panda-02.jpg`` -> ``red panda``."""
    return re.sub(r"[\W_]+\d*$", "", " ".join(re.split(r"[_\-\s]+", Path(name).stem)))


CORPUS_IMPORT = Step("corpus-import", "data/corpus", import_corpus)
