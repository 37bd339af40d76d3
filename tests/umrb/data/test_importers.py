"""The other suites' datasets, each from a tiny copy of the layout in which it is published."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from upstream import COLOURS, NAMES, square, write_repository

from gme_data.errors import FoundryError
from gme_data.items import Item
from umrb.baselines import raw_pixels
from umrb.data.loading import LoadedTask, data_version, load_suite_task
from umrb.data.mteb_data import local_copy
from umrb.data.sides import unchanged
from umrb.data.video import frames_of
from umrb.registry import choose
from umrb.systems.base import DenseSystem, Encoder
from umrb.systems.vectors import VectorStore


def load(suite: str, name: str, data: Path, **options: int) -> LoadedTask:
    (dataset,) = choose(suite, [name])
    return load_suite_task(dataset, dataset.tasks[0], data, **options)


def write_flickr30k_cn(data: Path) -> None:
    folder = data / "Flickr30k-CN"
    folder.mkdir(parents=True)
    lines = [
        json.dumps({"text_id": number, "text": f"{name} 方块", "image_ids": [1000 + number % len(NAMES)]})
        for number, name in enumerate([*NAMES, *NAMES])
    ]
    (folder / "test_texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [f"{1000 + number}\t{base64.b64encode(square(name, 6)).decode()}" for number, name in enumerate(NAMES)]
    (folder / "test_imgs.tsv").write_text("\n".join(rows) + "\n")


def write_dci(data: Path) -> None:
    home = data / "densely_captioned_images"
    for folder in ("annotations", "photos"):
        (home / folder).mkdir(parents=True)
    for name in NAMES:
        (home / "photos" / f"sa_{name}.jpg").write_bytes(square(name, 6))
        row = {"image": f"sa_{name}.jpg", "short_caption": f"A {name} square.", "extra_caption": f"All of it {name}."}
        (home / "annotations" / f"sa_{name}.json").write_text(json.dumps({**row, "mask_data": {}}))
    names = [f"sa_{name}.json" for name in NAMES]
    (home / "splits.json").write_text(json.dumps({"train": names[:5], "valid": names[5:6], "test": names[6:]}))


def write_mmeb(data: Path, task: str, rows: list[dict[str, object]]) -> None:
    folder = data / "MMEB-eval" / task
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "test-00000-of-00001.parquet")
    for name in NAMES:
        path = data / "MMEB-eval" / "images" / task / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(square(name, 6))


def film(names: list[str], frames: int = 6) -> bytes:
    """An MP4 of some colours, one after the other."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for name in names:
            for _ in range(frames):
                picture = np.full((64, 64, 3), COLOURS[name], np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "queries", "pool", "asks", "answers"),
    [("Flickr30K-CN-T2I", 16, 8, "T", "I"), ("Flickr30K-CN-I2T", 8, 16, "I", "T")],
)
def test_flickr30k_cn(name: str, queries: int, pool: int, asks: str, answers: str, tmp_path: Path) -> None:
    write_flickr30k_cn(tmp_path)
    loaded = load("retrieval-page", name, tmp_path)
    task = loaded.task
    assert (len(task.queries), len(task.docs)) == (queries, pool)
    assert (str(task.queries[0].item.modality), str(task.docs[0].item.modality)) == (asks, answers)
    relevant = [2] * 8 if asks == "I" else [1] * 16
    assert task.judgements.relevant.tolist() == relevant
    for query, doc in zip(task.judgements.query, task.judgements.doc, strict=True):
        text, image = (task.queries[query], task.docs[doc]) if asks == "T" else (task.docs[doc], task.queries[query])
        name_of = NAMES[int(image.id) - 1000]
        assert text.item.text == f"{name_of} 方块"
    assert task.card.instruction is not None
    assert len(loaded.revision) > 20


def test_dci_takes_whole_captions_of_all_splits(tmp_path: Path) -> None:
    write_dci(tmp_path)
    task = load("retrieval-page", "DCI-I2T", tmp_path).task
    assert (len(task.queries), len(task.docs)) == (8, 8)
    for query, doc in zip(task.judgements.query, task.judgements.doc, strict=True):
        colour = task.queries[query].id[3:-5]
        assert task.docs[doc].item.text == f"A {colour} square.\nAll of it {colour}."


def mmeb_rows() -> list[dict[str, object]]:
    return [
        {
            "qry_text": "<|image_1|>\nIdentify the object.",
            "qry_img_path": f"ImageNet-1K/{name}.png",
            "tgt_text": [name, *(other for other in NAMES if other != name)],
            "tgt_img_path": [""] * len(NAMES),
        }
        for name in NAMES
    ]


def test_mmeb_ranks_the_candidates_of_each_query_alone(tmp_path: Path) -> None:
    rows = mmeb_rows()
    rows[2]["tgt_text"] = rows[2]["tgt_text"][:3]
    rows[2]["tgt_img_path"] = rows[2]["tgt_img_path"][:3]
    write_mmeb(tmp_path, "ImageNet-1K", rows)
    task = load("mmeb", "ImageNet-1K", tmp_path).task
    assert task.card.task_type == "IT->T"
    assert task.queries[0].item.text == "Identify the object."
    assert task.candidates is not None
    assert [len(among) for among in task.candidates] == [8, 8, 3, 8, 8, 8, 8, 8]

    def encode(items: list[Item], instruction: str | None, images: object) -> np.ndarray:
        """A candidate points along the axis of its number, a query towards the last of its candidates."""
        if items[0].text != "Identify the object.":
            return np.eye(8, dtype=np.float32)[[NAMES.index(item.text) for item in items]]
        return np.tile(np.arange(1, 9, dtype=np.float32), (len(items), 1))

    outcome = DenseSystem("axes", Encoder("axes", encode), VectorStore(tmp_path / "vectors")).score(
        task, ["hit_rate_at_1"], 10
    )
    assert outcome.ranking is not None
    best = [task.docs[row].item.text for row in outcome.ranking.rows[:, 0]]
    assert best == [NAMES[7]] * 2 + [max(rows[2]["tgt_text"], key=NAMES.index)] + [NAMES[7]] * 5
    hits = outcome.metrics["hit_rate_at_1"]
    # Only for the last colour is the last candidate the right one, and for the cut list if it is last of it.
    assert hits.tolist() == [float(best[q] == NAMES[q]) for q in range(8)]
    assert hits[7] == 1.0


def test_mmeb_with_pictures_as_candidates(tmp_path: Path) -> None:
    rows = [
        {
            "qry_text": f"Find the {name} square",
            "qry_img_path": "",
            "tgt_text": ["<|image_1|>\nRepresent the given image."] * 3,
            "tgt_img_path": [f"EDIS/{other}.png" for other in (name, *[wrong for wrong in NAMES if wrong != name][:2])],
        }
        for name in NAMES
    ]
    write_mmeb(tmp_path, "EDIS", rows)
    task = load("mmeb", "EDIS", tmp_path).task
    assert task.card.task_type == "T->IT"
    outcome = DenseSystem("pixels", raw_pixels_of_all(), VectorStore(tmp_path / "vectors")).score(
        task, ["hit_rate_at_1"], 10
    )
    assert outcome.ranking.rows.shape == (8, 3)


def raw_pixels_of_all() -> Encoder:
    pixels = raw_pixels(8)

    def encode(items, instruction, images):
        pictured = [item for item in items if item.image is not None]
        return pixels.encode(pictured, instruction, images) if pictured else np.ones((len(items), 192), np.float32)

    return Encoder("pixels", encode)


def test_frames_of_a_video_are_spread_evenly() -> None:
    video = film(["red", "green", "blue"])

    def colour(frame: bytes) -> str:
        mean = np.asarray(Image.open(io.BytesIO(frame))).mean(axis=(0, 1))
        return min(COLOURS, key=lambda name: float(np.abs(mean - COLOURS[name]).sum()))

    assert [colour(frame) for frame in frames_of(video, 1)] == ["green"]
    assert [colour(frame) for frame in frames_of(video, 3)] == ["red", "green", "blue"]
    with pytest.raises(FoundryError, match="not a readable video"):
        frames_of(b"no video", 1)


def test_didemo_by_one_frame_or_the_mean_of_several(tmp_path: Path) -> None:
    rows = [
        {"video": {"bytes": film([name, "grey", "grey"] if name == "red" else [name]), "path": None},
         "caption": f"a {name} film"}
        for name in NAMES
    ]  # fmt: skip
    write_repository(local_copy(tmp_path, "mteb/DiDeMo"), {("default", "test"): rows})
    task = load("retrieval-page", "DiDeMo", tmp_path).task
    assert (task.card.task_type, len(task.docs)) == ("T->I", 8)
    red = [doc.id for doc in task.docs].index(str(NAMES.index("red")))
    items, images, parts = task.docs.window([red])
    assert (len(items), parts) == (1, 1)
    assert np.abs(np.asarray(images.load(items[0].image)).mean(axis=(0, 1)) - COLOURS["grey"]).max() < 12

    several = load("retrieval-page", "DiDeMo", tmp_path, frames=3).task
    assert not np.array_equal(several.docs.digests(unchanged), task.docs.digests(unchanged))
    system = DenseSystem("pixels", raw_pixels_of_all(), VectorStore(tmp_path / "vectors"))
    system.prepare([several])
    part = system.encoded_sides(several)[1]
    items, images, parts = several.docs.window([red])
    mean = raw_pixels(8).encode(items, None, images).mean(axis=0)
    np.testing.assert_allclose(part.space.take(part.digests[[red]])[0], mean / np.linalg.norm(mean), atol=1e-6)


def remove(path: str) -> Callable[[Path], None]:
    return lambda data: (data / path).unlink()


def rewrite(path: str, text: str) -> Callable[[Path], None]:
    return lambda data: (data / path).write_text(text) and None


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("DCI-T2I", remove("densely_captioned_images/photos/sa_red.jpg"), r"Missing file: .*sa_red\.jpg"),
        ("DCI-T2I", remove("densely_captioned_images/splits.json"), r"Missing file: .*splits\.json"),
        ("DCI-T2I", rewrite("densely_captioned_images/annotations/sa_red.json", "{"), "is not the JSON"),
        ("DCI-T2I", rewrite("densely_captioned_images/annotations/sa_red.json", '{"short_capton": ""}'),
         "field 'short_caption' is missing.*Did you mean 'short_capton'"),
        ("Flickr30K-CN-T2I", rewrite("Flickr30k-CN/test_imgs.tsv", "1000\t%%%"), "line 1: expected an id, a tab and"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(name: str, damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    write_dci(tmp_path)
    write_flickr30k_cn(tmp_path)
    damage(tmp_path)
    with pytest.raises(FoundryError, match=message):
        load("retrieval-page", name, tmp_path)


CAPTIONS, PICTURES = "Flickr30k-CN/test_texts.jsonl", "Flickr30k-CN/test_imgs.tsv"
DCI = "densely_captioned_images"


def annotated(**fields: object) -> str:
    return json.dumps({"image": "sa_red.jpg", "short_caption": "s", "extra_caption": "e", **fields})


@pytest.mark.parametrize(
    ("name", "path", "content", "message"),
    [
        ("Flickr30K-CN-T2I", CAPTIONS, '{"text_id": null, "text": "a", "image_ids": [1]}',
         r"test_texts\.jsonl, line 1, field 'text_id': expected an id, found nothing"),
        ("Flickr30K-CN-T2I", CAPTIONS, '{"text_id": 1, "text": {"zh": "a"}, "image_ids": [1]}',
         r"line 1, field 'text': expected a text, found an object"),
        ("Flickr30K-CN-T2I", CAPTIONS, '{"text_id": 1, "text": "a", "image_ids": "1000"}',
         r"line 1, field 'image_ids': expected a list, found str"),
        ("Flickr30K-CN-T2I", CAPTIONS, '{"text_id": 1, "text": "\\ud83d", "image_ids": [1]}', "text': a lone"),
        ("Flickr30K-CN-T2I", CAPTIONS, b'{"text_id": 1, "text": "\xb0", "image_ids": [1]}', "line 1: not UTF-8"),
        ("Flickr30K-CN-T2I", CAPTIONS, '["no object"]', r"test_texts\.jsonl, line 1: "),
        ("Flickr30K-CN-T2I", PICTURES, "1000", "line 1: expected an id, a tab and base64"),
        ("Flickr30K-CN-T2I", PICTURES, "1000\t", "line 1: expected an id, a tab and base64"),
        ("Flickr30K-CN-T2I", PICTURES, b"\xff\xfe1\x00", "UTF-16, not in UTF-8"),
        ("DCI-T2I", f"{DCI}/splits.json", '{"test": ["../../secret.json"]}', "no path of a file below"),
        ("DCI-T2I", f"{DCI}/splits.json", '{"test": ["/etc/passwd"]}', "no path of a file below"),
        ("DCI-T2I", f"{DCI}/splits.json", '{"test": "sa_red.json"}', "expected a list of names for each split"),
        ("DCI-T2I", f"{DCI}/splits.json", '["sa_red.json"]', "the whole: Input should be an object"),
        ("DCI-T2I", f"{DCI}/annotations/sa_red.json", annotated(short_caption={"a": 1}),
         r"sa_red\.json, field 'short_caption': expected a text, found an object"),
        ("DCI-T2I", f"{DCI}/annotations/sa_red.json", annotated(image="../splits.json"), "no path of a file below"),
        ("DCI-T2I", f"{DCI}/annotations/sa_red.json", b'{"image": "\xe9"}', "is not the JSON"),
    ],
)  # fmt: skip
def test_what_is_not_as_published_is_named(
    name: str, path: str, content: str | bytes, message: str, tmp_path: Path
) -> None:
    write_dci(tmp_path)
    write_flickr30k_cn(tmp_path)
    (tmp_path / path).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(FoundryError, match=message):
        load("retrieval-page", name, tmp_path)


def test_ids_that_stand_twice_are_defects_and_no_row_is_lost(tmp_path: Path) -> None:
    write_flickr30k_cn(tmp_path)
    path = tmp_path / CAPTIONS
    path.write_text(path.read_text() + '{"text_id": "0", "text": "another", "image_ids": [1000]}\n')
    loaded = load("retrieval-page", "Flickr30K-CN-T2I", tmp_path)
    assert "query id '0' stand(s) more than once" in loaded.defects
    assert len(loaded.task.queries) == 2 * len(NAMES) + 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qry_text": ["a"] * 1, "qry_img_path": "../x.png"}, "row 0: '../x.png' is no path of a file below"),
        ({"tgt_img_path": [""]}, "row 0: 8 tgt_text and 1 tgt_img_path"),
        ({"tgt_text": [], "tgt_img_path": []}, "row 0: 0 tgt_text and 0 tgt_img_path"),
    ],
)
def test_rows_of_mmeb_that_are_not_as_published(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    (row, *_) = mmeb_rows()
    write_mmeb(tmp_path, "ImageNet-1K", [{**row, **changes}])
    with pytest.raises(FoundryError, match=message):
        load("mmeb", "ImageNet-1K", tmp_path)


def test_the_version_of_data_follows_every_file_that_is_read(tmp_path: Path) -> None:
    write_dci(tmp_path)
    (dataset,) = choose("retrieval-page", ["DCI-T2I"])
    before = load("retrieval-page", "DCI-T2I", tmp_path)
    version = data_version(dataset, dataset.tasks[0], tmp_path)
    (tmp_path / DCI / "photos" / "sa_red.jpg").write_bytes(square("grey", 20))
    assert data_version(dataset, dataset.tasks[0], tmp_path) != version
    assert load("retrieval-page", "DCI-T2I", tmp_path).digest != before.digest
    assert data_version(dataset, dataset.tasks[0], tmp_path / "nowhere") is None


def test_mmeb_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="No test-"):
        load("mmeb", "RefCOCO", tmp_path)
    rows = mmeb_rows()
    rows[0]["qry_img_path"] = "ImageNet-1K/rde.png"
    write_mmeb(tmp_path, "ImageNet-1K", rows)
    with pytest.raises(FoundryError, match=r"Did you mean 'red\.png'"):
        load("mmeb", "ImageNet-1K", tmp_path)
