"""The check finds every kind of planted leak in finished data that are clean without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageChops
from support.starter_packages import png

from gme_data.errors import FoundryError
from gme_data.examples import Example, read_examples, write_examples
from gme_data.images import ImageRecord, write_images
from gme_data.items import Item
from gme_data.parquet import read_shards
from research.starter.held_out import HeldOutEntities
from research.starter.leak_check import check_disjoint

Data = tuple[list[Example], list[ImageRecord]]


def _change(source: str, **fields: object) -> Callable[[Data, HeldOutEntities], Data]:
    """Change one example of a source."""

    def plant(data: Data, _: HeldOutEntities) -> Data:
        examples, records = data
        index = next(index for index, example in enumerate(examples) if example.source == source)
        return [*examples[:index], replace(examples[index], **fields), *examples[index + 1 :]], records

    return plant


def _source(name: str) -> Callable[[Data, HeldOutEntities], Data]:
    """Let one picture come from `name`."""

    def plant(data: Data, _: HeldOutEntities) -> Data:
        examples, records = data
        index = next(index for index, record in enumerate(records) if record.source.startswith("emoji-a/"))
        return examples, [*records[:index], replace(records[index], source=name), *records[index + 1 :]]

    return plant


def _add(make: Callable[[Image.Image], Image.Image]) -> Callable[[Data, HeldOutEntities], Data]:
    """Store a picture built from a held-out one."""

    def plant(data: Data, held_out: HeldOutEntities) -> Data:
        sponge = next(row for row in held_out.pictographs if row["id"] == "1f9fd")
        picture = png(make(held_out.store.load(sponge["twemoji"])))
        return data[0], [*data[1], ImageRecord.from_bytes(picture, source="other/gizmo", licence="MIT")]

    return plant


def _atlas_picture(field: str, *, stored: bool) -> Callable[[Data, HeldOutEntities], Data]:
    """Use or store a picture of a held-out place."""

    def plant(data: Data, held_out: HeldOutEntities) -> Data:
        id_ = next(row for row in held_out.places if row["split"] != "train" and row[field])[field]
        if not stored:
            return _change("starter-emoji", positive=Item(image=id_))(data, held_out)
        return data[0], [*data[1], ImageRecord.from_bytes(held_out.store.read(id_), source="atlas/x", licence="MIT")]

    return plant


def _under_train_id(data: Data, held_out: HeldOutEntities) -> Data:
    """A held-out picture under the id of a trained one, whose likeness is not checked."""
    sponge = next(row for row in held_out.pictographs if row["id"] == "1f9fd")
    index = next(index for index, record in enumerate(data[1]) if record.id in held_out.train_pictures)
    bad = replace(data[1][index], bytes=held_out.store.read(sponge["twemoji"]))
    return data[0], [*data[1][:index], bad, *data[1][index + 1 :]]


def _swapped(picture: Image.Image) -> Image.Image:
    red, green, blue = picture.split()
    return Image.merge("RGB", (blue, red, green))


LEAKS = {
    "group of a pictograph": (_change("starter-emoji", entity_group="pictograph:cow face"), "held-out group"),
    "group of a place": (_change("starter-flag", entity_group="place:ad"), "held-out group"),
    "split": (_change("starter-emoji", split="dev"), "split dev"),
    "Atlas's flag used": (_atlas_picture("flag_openmoji", stored=False), "of Atlas is held out"),
    "Atlas's map stored": (_atlas_picture("map", stored=True), "of Atlas is held out"),
    "picture that is missing": (_change("starter-emoji", positive=Item(image="0" * 64)), "used and not there"),
    "picture under another's id": (_under_train_id, "under the id of another"),
    "looks: shifted": (_add(lambda picture: ImageChops.offset(picture, 1, 1)), "looks like a held-out"),
    "looks: recoloured": (_add(_swapped), "looks like a held-out"),
    "looks: inverted": (_add(ImageChops.invert), "looks like a held-out"),
    "looks: smaller": (_add(lambda picture: picture.resize((48, 48))), "looks like a held-out"),
    "name": (_change("starter-name", query=Item("Cow-Faces")), "held-out name"),
    "name in another language": (_change("starter-name", query=Item("Kuhgesicht")), "held-out name"),
    "icon's name with a name in it": (_change("starter-icon-name", query=Item("big sponge")), "something held out"),
    "synonym in an icon's name": (_change("starter-icon-name", query=Item("moo-cow")), "something held out"),
    "caption": (_change("starter-photo", positive=Item("A brown cow.")), "something held out"),
    "place in a caption": (_change("starter-photo", positive=Item("Hills, Andorra")), "something held out"),
    "gloss of a name": (_change("starter-gloss", answer="milker; cow"), "explains the held-out name 'cow'"),
    "place in a gloss": (_change("starter-gloss", positive=Item("A peak of Andorra.")), "held-out place"),
    "people in a question": (_change("starter-gloss", query=Item("What do Andorrans eat?")), "held-out place"),
    "negative": (_change("starter-gloss", negatives=(Item("cow face"),)), "held-out name"),
    "symbol": (_source("other/x@1f42e"), "symbol of a held-out"),
    "symbol of another tone": (_source("other/x@1f9ce-1f3ff"), "symbol of a held-out"),
    "symbol of a gender": (_source("other/x@1f9ce-200d-2640-fe0f"), "symbol of a held-out"),
    "flag by symbol": (_source("other/x@1f1e6-1f1e9"), "flag of a held-out"),
    "flag by code": (_source("other/ad"), "flag of a held-out"),
    "wide flag by code": (_source("other/ad-4x3"), "flag of a held-out"),
    "flag by name": (_source("other/flag-for-andorra"), "flag of a held-out place"),
    "picture by name": (_source("other/cow-face-outline"), "name of something held out"),
}


@pytest.fixture(scope="module")
def clean(built) -> Data:
    records = [ImageRecord(**row) for row in read_shards(built.folder / "images", "images")]
    return read_examples(built.folder / "train"), records


def _check(data: Data, held_out: HeldOutEntities, folder: Path) -> None:
    write_examples(folder / "train", data[0])
    write_images(folder / "images", data[1])
    check_disjoint(folder, held_out)


def test_clean_data_pass(clean: Data, built, tmp_path: Path) -> None:
    _check(clean, built.held_out, tmp_path)


@pytest.mark.parametrize("leak", LEAKS)
def test_a_planted_leak_is_found(leak: str, clean: Data, built, tmp_path: Path) -> None:
    plant, finding = LEAKS[leak]
    with pytest.raises(FoundryError, match="of what Atlas holds out") as caught:
        _check(plant(clean, built.held_out), built.held_out, tmp_path)
    assert finding in str(caught.value)
