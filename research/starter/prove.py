"""Reads a finished set of starter data and Atlas, and raises if anything of a held-out entity is in it.

Shares the judgement of `heldout` and nothing of how the data were made: every image, text, group and symbol is read
from disk again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from gme_data.digests import sha256_bytes
from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples
from gme_data.images import ImageRecord, decode_rgb
from gme_data.items import Item
from gme_data.parquet import read_shards
from research.starter.heldout import HeldOut, region
from research.starter.names import readable

_SHOWN = 5
_JUDGED_AT_ONCE = 1024
_FLAG_FOR = "flag-for-"
_CAPTIONED = ("starter-icon-name", "starter-photo")


def prove_disjoint(folder: Path, held_out: HeldOut) -> None:
    """Check the finished data in `folder`.

    Raises:
        FoundryError: Something held out is in it; names the first few findings of each kind.
    """
    examples = read_examples(folder / "train")
    records = [ImageRecord(**row) for row in read_shards(folder / "images", "images")]
    findings = [*_splits(examples, held_out), *_images(examples, records, held_out), *_texts(examples, held_out)]
    findings += [*_sources(records, held_out), *_looks(records, held_out)]
    if findings:
        shown = "\n".join(f"  {finding}" for finding in findings[:_SHOWN])
        raise FoundryError(
            f"{folder}: {len(findings)} finding(s) of what Atlas holds out, such as\n{shown}",
            hint="Build it again; if they stay, the makers of the data miss a rule of research.starter.heldout.",
        )


def _splits(examples: Sequence[Example], held_out: HeldOut) -> Iterator[str]:
    for example in examples:
        if example.split != "train":
            yield f"example {example.id}: split {example.split}"
        if example.entity_group in held_out.groups:
            yield f"example {example.id}: held-out group {example.entity_group}"


def _images(examples: Sequence[Example], records: Sequence[ImageRecord], held_out: HeldOut) -> Iterator[str]:
    """Pictures of Atlas by their ids, and pictures that nobody can judge."""
    used = {item.image for example in examples for item in _items(example) if item.image}
    stored = {record.id for record in records}
    yield from (f"picture {id_} of Atlas is held out" for id_ in sorted((used | stored) & held_out.pictures))
    yield from (f"picture {id_} is used and not there" for id_ in sorted(used - stored))
    for record in records:
        if record.id != sha256_bytes(record.bytes):
            yield f"picture {record.source}: stored under the id of another"


def _items(example: Example) -> tuple[Item, ...]:
    return (example.query, example.positive, *example.negatives)


def _texts(examples: Sequence[Example], held_out: HeldOut) -> Iterator[str]:
    for example in examples:
        for text in (item.text for item in _items(example) if item.text):
            if example.source in _CAPTIONED and held_out.shows(text):
                yield f"{example.source} {example.id}: something held out in {text!r}"
            elif held_out.named(text):
                yield f"{example.source} {example.id}: held-out name {text!r}"
            elif example.source != "starter-flag-description" and held_out.tells_of_place(text):
                yield f"{example.source} {example.id}: held-out place in {text!r}"
        for word in (example.answer or "").split("; "):
            if word and held_out.called(word):
                yield f"{example.source} {example.id}: explains the held-out name {word!r}"


def _sources(records: Sequence[ImageRecord], held_out: HeldOut) -> Iterator[str]:
    """What a picture's own source tells: the emoji, the code of a place, or a name."""
    for record in records:
        name, _, symbol = record.source.partition("/")[2].partition("#")[0].partition("@")
        is_code = not symbol and re.fullmatch(r"[a-z]{2}(-4x3)?", name)
        code = name.removesuffix("-4x3") if is_code else region(symbol)
        if symbol and held_out.symbol(symbol):
            yield f"picture {record.source}: symbol of a held-out pictograph"
        elif code and held_out.place(code):
            yield f"picture {record.source}: flag of a held-out place"
        elif name.startswith(_FLAG_FOR):  # of a place, though a pictograph of its map may be held out
            if held_out.place_called(readable(name.removeprefix(_FLAG_FOR))):
                yield f"picture {record.source}: flag of a held-out place"
        elif not code and held_out.named(readable(name)):
            yield f"picture {record.source}: name of something held out"


def _looks(records: Sequence[ImageRecord], held_out: HeldOut) -> Iterator[str]:
    foreign = [record for record in records if record.id not in held_out.own_pictures]
    for start in range(0, len(foreign), _JUDGED_AT_ONCE):
        part = foreign[start : start + _JUDGED_AT_ONCE]
        seen = held_out.seen(decode_rgb(record.bytes, record.source) for record in part)
        yield from (
            f"picture {one.source}: looks like a held-out picture" for one, bad in zip(part, seen, strict=True) if bad
        )
