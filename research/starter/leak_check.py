"""Checks that the finished data of the starter have nothing of a held-out entity.

The check shares the tests of `held_out` with the build and nothing else: every image, text, group and symbol is read
from disk, so that an error in a reader is found.
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
from research.starter.held_out import HeldOutEntities, flag_code
from research.starter.names import readable

_MAX_FINDINGS = 5
"""Most findings in the error."""
_BATCH_PICTURES = 1024
_FLAG_FOR = "flag-for-"
_CAPTIONED = ("starter-icon-name", "starter-photo")


def check_disjoint(folder: Path, held_out: HeldOutEntities) -> None:
    """Checks the finished data in `folder`.

    Raises:
        FoundryError: The data have something of a held-out entity; the message has the first findings.
    """
    examples = read_examples(folder / "train")
    records = [ImageRecord(**row) for row in read_shards(folder / "images", "images")]
    findings = [*_splits(examples, held_out), *_images(examples, records, held_out), *_texts(examples, held_out)]
    findings += [*_sources(records, held_out), *_looks(records, held_out)]
    if findings:
        lines = "\n".join(f"  {finding}" for finding in findings[:_MAX_FINDINGS])
        raise FoundryError(
            f"{folder}: {len(findings)} finding(s) of what Atlas holds out, such as\n{lines}",
            hint="Build it again; if they stay, the makers of the data miss a rule of research.starter.held_out.",
        )


def _splits(examples: Sequence[Example], held_out: HeldOutEntities) -> Iterator[str]:
    for example in examples:
        if example.split != "train":
            yield f"example {example.id}: split {example.split}"
        if example.entity_group in held_out.groups:
            yield f"example {example.id}: held-out group {example.entity_group}"


def _images(examples: Sequence[Example], records: Sequence[ImageRecord], held_out: HeldOutEntities) -> Iterator[str]:
    """Finds held-out pictures of Atlas by id, missing pictures, and pictures with a wrong id."""
    used = {item.image for example in examples for item in _items(example) if item.image}
    stored = {record.id for record in records}
    yield from (f"picture {id_} of Atlas is held out" for id_ in sorted((used | stored) & held_out.pictures))
    yield from (f"picture {id_} is used and not there" for id_ in sorted(used - stored))
    for record in records:
        if record.id != sha256_bytes(record.bytes):
            yield f"picture {record.source}: stored under the id of another"


def _items(example: Example) -> tuple[Item, ...]:
    return (example.query, example.positive, *example.negatives)


def _texts(examples: Sequence[Example], held_out: HeldOutEntities) -> Iterator[str]:
    for example in examples:
        for text in (item.text for item in _items(example) if item.text):
            if example.source in _CAPTIONED and held_out.shown_by(text):
                yield f"{example.source} {example.id}: something held out in {text!r}"
            elif held_out.has_name(text):
                yield f"{example.source} {example.id}: held-out name {text!r}"
            elif example.source != "starter-flag-description" and held_out.place_mentioned_in(text):
                yield f"{example.source} {example.id}: held-out place in {text!r}"
        for word in (example.answer or "").split("; "):
            if word and held_out.has_english_name(word):
                yield f"{example.source} {example.id}: explains the held-out name {word!r}"


def _sources(records: Sequence[ImageRecord], held_out: HeldOutEntities) -> Iterator[str]:
    """Finds pictures whose source states a held-out emoji, code of a place, or name."""
    for record in records:
        name, _, symbol = record.source.partition("/")[2].partition("#")[0].partition("@")
        is_code = not symbol and re.fullmatch(r"[a-z]{2}(-4x3)?", name)
        code = name.removesuffix("-4x3") if is_code else flag_code(symbol)
        if symbol and held_out.has_symbol(symbol):
            yield f"picture {record.source}: symbol of a held-out pictograph"
        elif code and held_out.has_place_code(code):
            yield f"picture {record.source}: flag of a held-out place"
        elif name.startswith(_FLAG_FOR):  # only places count: a pictograph of the name, such as a map, may be held out
            if held_out.has_place_name(readable(name.removeprefix(_FLAG_FOR))):
                yield f"picture {record.source}: flag of a held-out place"
        elif not code and held_out.has_name(readable(name)):
            yield f"picture {record.source}: name of something held out"


def _looks(records: Sequence[ImageRecord], held_out: HeldOutEntities) -> Iterator[str]:
    not_of_atlas = [record for record in records if record.id not in held_out.train_pictures]
    for start in range(0, len(not_of_atlas), _BATCH_PICTURES):
        batch = not_of_atlas[start : start + _BATCH_PICTURES]
        look_alikes = held_out.look_alikes(decode_rgb(record.bytes, record.source) for record in batch)
        yield from (
            f"picture {record.source}: looks like a held-out picture"
            for record, alike in zip(batch, look_alikes, strict=True)
            if alike
        )
