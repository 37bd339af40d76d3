"""The picture filter, by size and content, by CLIP with random weights and by an embedder of ours."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_models import save_clip

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.stages import Reject
from gme_synthesis.steps.picture_score import PictureFilter, load_scorer, look_alikes

NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)


def flag(colour: tuple[int, int, int], size: int = 48) -> ImageRecord:
    picture = Image.new("RGB", (size, size), "white")
    picture.paste(colour, (0, 0, size, size // 2))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")


@pytest.fixture
def flags(tmp_path: Path) -> tuple[dict[str, str], ImageStore]:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 48), "white").save(buffer, "PNG")
    blank = ImageRecord.from_bytes(buffer.getvalue(), source="test", licence="CC0-1.0")
    red = flag((200, 0, 0))
    torn = replace(red, id="torn", bytes=red.bytes[:60])
    named = {
        "red": red, "near": flag((202, 0, 0)), "blue": flag((0, 0, 200)), "small": flag((0, 99, 0), 16),
        "blank": blank, "torn": torn, "green": flag((0, 99, 0)),
    }  # fmt: skip
    write_images(tmp_path, named.values())
    return {name: record.id for name, record in named.items()}, ImageStore([tmp_path])


@pytest.mark.parametrize(
    ("picture", "reason"),
    [
        ("blue", None),
        ("red", "look-alike"),
        ("near", "look-alike"),
        ("green", "look-alike"),  # the other drawing of one that looks like another's
        ("small", "picture-too-small"),
        ("blank", "picture-blank"),
        ("torn", "picture-not-decodable"),
        ("nowhere", "picture-not-decodable"),
    ],
)
def test_picture_filter(flags: tuple[dict[str, str], ImageStore], picture: str, reason: str | None) -> None:
    ids, store = flags
    pictures = [("place:red", ids["red"]), ("place:red", ids["green"]), ("place:near", ids["near"]), ("b", ids["blue"])]
    picture_filter = PictureFilter(store.load, None, ambiguous=look_alikes(pictures, store.load, 3.0))
    draft = replace(NORWAY, entity_images=(EntityImage(ids.get(picture, "nowhere"), "search"),))
    (outcome,) = picture_filter.run([draft])
    assert (outcome.reason if isinstance(outcome, Reject) else None) == reason


def test_look_alikes_of_one_entity_group_are_no_trouble(flags: tuple[dict[str, str], ImageStore]) -> None:
    ids, store = flags
    assert not look_alikes([("place:one", ids["red"]), ("place:one", ids["near"]), ("x", "no")], store.load, 3.0)


def test_each_picture_is_looked_at_once_however_many_carry_it(flags: tuple[dict[str, str], ImageStore]) -> None:
    ids, store = flags
    looked: list[str] = []

    def load(id_: str) -> Image.Image:
        looked.append(id_)
        return store.load(id_)

    picture_filter = PictureFilter(load, None)
    drafts = [replace(NORWAY, wording=n, entity_images=(EntityImage(ids["blue"], "search"),)) for n in range(5)]
    assert list(picture_filter.run(drafts)) == drafts == list(picture_filter.run(drafts))
    assert looked == [ids["blue"]]


PANDA = Candidate("p", "The red panda lives in trees.", entity="red panda", fused="Where does this animal live?")


def picture(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


class Colour:
    """Scores how red a picture is."""

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> NDArray[np.float32]:
        assert set(texts) == {"red panda"}
        return np.array([np.asarray(one)[..., 0].mean() / 255 for one in pictures], np.float32)


def test_the_filter_drops_what_scores_low_but_not_what_was_drawn() -> None:
    noise = np.asarray(picture(0))
    reds = Image.fromarray(noise // np.array([1, 4, 4], np.uint8) | np.array([128, 0, 0], np.uint8))
    blues = Image.fromarray(noise // np.array([8, 1, 1], np.uint8))
    store = {"red": reds, "blue": blues, "small": picture(2, 8), "blank": Image.new("RGB", (48, 48))}

    def load(id_: str) -> Image.Image:
        if id_ not in store:
            raise FoundryError("nowhere")
        return store[id_]

    picture_filter = PictureFilter(load, Colour(), min_score=0.5)
    entity_images = tuple(EntityImage(id_, "search") for id_ in ("red", "blue", "small", "blank", "nowhere"))
    (kept,) = picture_filter.run([replace(PANDA, entity_images=(*entity_images, EntityImage("blue", "generation")))])
    assert isinstance(kept, Candidate)
    assert [(one.image, one.route) for one in kept.entity_images] == [("red", "search"), ("blue", "generation")]
    assert kept.entity_images[0].score == pytest.approx(float(np.asarray(reds)[..., 0].mean()) / 255, abs=1e-3)
    assert kept.entity_images[1].score is None
    (refused,) = picture_filter.run([replace(PANDA, entity_images=entity_images[1:2])])
    assert refused == Reject("picture-filter", "low-score", "p", "red panda")
    (unscored,) = PictureFilter(load, None).run([replace(PANDA, entity_images=entity_images)])
    assert isinstance(unscored, Candidate)
    assert [one.image for one in unscored.entity_images] == ["red", "blue"]


def test_clip_scores_as_its_own_cosine(tmp_path: Path) -> None:
    import torch
    from transformers import CLIPModel

    save_clip(tmp_path)
    scorer = load_scorer(tmp_path)
    pictures, texts = [picture(n) for n in range(3)], ["a b c", "d", "e f"]
    scores = scorer.score(pictures, texts)
    assert scores.shape == (3,)
    assert np.abs(scores).max() <= 1
    np.testing.assert_allclose(
        [scorer.score([p], [t])[0] for p, t in zip(pictures, texts, strict=True)], scores, atol=1e-5
    )
    model = CLIPModel.from_pretrained(tmp_path).eval()
    words = scorer._tokenizer(texts, padding=True, return_tensors="pt")  # type: ignore[attr-defined]
    pixels = scorer._processor(images=pictures, return_tensors="pt")  # type: ignore[attr-defined]
    with torch.inference_mode():
        logits = model(**words, **pixels).logits_per_image.diagonal() / model.logit_scale.exp()
    np.testing.assert_allclose(logits.numpy(), scores, atol=1e-5)


def test_an_embedder_of_ours_scores_by_its_own_vectors(tmp_path: Path) -> None:
    embedder = Embedder.fresh(ModelConfig(text_layers=1), seed=1)
    embedder.save(tmp_path / "model")
    pictures = [picture(n) for n in range(2)]
    scores = load_scorer(tmp_path / "model").score(pictures, ["a", "b"])
    seen, said = embedder.encode([{"image": one} for one in pictures]), embedder.encode(["a", "b"])
    np.testing.assert_allclose(scores, (seen * said).sum(1), atol=1e-4)
    with pytest.raises(FoundryError, match="no model to score pictures with"):
        load_scorer(tmp_path)


def test_a_picture_that_is_html_is_none() -> None:
    with pytest.raises(FoundryError):
        ImageRecord.from_bytes(b"<html></html>", source="x", licence="x")
    buffer = io.BytesIO()
    picture(1).save(buffer, "PNG")
    assert ImageRecord.from_bytes(buffer.getvalue(), source="x", licence="x").width == 48
