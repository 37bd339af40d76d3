"""Pictures from the bank and from FLUX, judged by CLIP or an embedder of ours: real pipelines with random weights."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tiny_models import save_clip, save_flux, save_language_model

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb
from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.encoders import load_encoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.local import LocalConfig, LocalModel
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import Reject
from gme_synthesis.steps.generation import CaptionStep, FluxGenerator, GenerationConfig, GenerationStep
from gme_synthesis.steps.picture_score import PictureFilter, load_scorer
from gme_synthesis.steps.picture_search import PictureBank, RequirePictures, SearchStep

PANDA = Candidate("p", "The red panda lives in trees.", entity="red panda", fused="Where does this animal live?")


def picture(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


def test_the_bank_finds_by_name_and_nothing_that_is_too_far() -> None:
    captions = {"1": "red panda", "2": "red panda in a tree", "3": "the Forth Bridge", "4": "a bowl of soup"}
    bank = PictureBank(captions, load_encoder("minilm").passages, min_similarity=0.7)
    panda, nothing = SearchStep(bank, 5).run([PANDA, replace(PANDA, entity="quantum chromodynamics")])
    assert [sight.image for sight in panda.entity_images] == ["1", "2"]
    assert bank.find(["red panda"], 1) == [[EntityImage("1", "search", "bank")]]
    kept, refused = RequirePictures().run([panda, nothing])
    assert kept == panda
    assert refused == Reject("pictures", "no-picture", "p", "quantum chromodynamics")


class Describes:
    """Answers captions."""

    name, reads_hints = "describes", False

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, request in enumerate(requests):
            caption = f"A {request.inputs['entity']} on a branch."
            on_completion(number, Completion(json.dumps({"caption": caption})))


def test_captions_are_drawn_by_flux_the_same_again_and_apart_from_their_batch(tmp_path: Path) -> None:
    save_flux(tmp_path)
    config = GenerationConfig(
        path=str(tmp_path), device="cpu", dtype="float32", size=32, steps=2, batch=2, max_sequence_length=16
    )
    described = list(CaptionStep(LLMClient(Describes(), None)).run([replace(PANDA, id=str(n)) for n in range(3)]))
    assert {one.caption for one in described if isinstance(one, Candidate)} == {"A red panda on a branch."}
    candidates = [one for one in described if isinstance(one, Candidate)]
    kept: list[ImageRecord] = []
    step = GenerationStep(FluxGenerator(config), kept.append, config.licence, seed=0)
    drawn = list(step.run(candidates))
    assert len({record.id for record in kept}) == 3
    assert all(decode_rgb(record.bytes).size == (32, 32) for record in kept)
    (sight,) = drawn[2].entity_images
    assert (sight.image, sight.route) == (kept[2].id, "generation")
    assert " seed " in sight.origin
    (alone,) = step.run([candidates[2]])
    assert alone == drawn[2]


class Refuses:
    """Describes nothing."""

    name, reads_hints = "refuses", False

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, _ in enumerate(requests):
            on_completion(number, Completion("I'm sorry, I can't."))


class Draws:
    """Draws captions as noise."""

    name = "noise"

    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        assert all(captions)
        return [picture(seed) for seed in seeds]


def test_without_a_caption_a_candidate_goes_on_with_the_pictures_that_it_has() -> None:
    found = replace(PANDA, entity_images=(EntityImage("1", "search"),))
    (marked,) = CaptionStep(LLMClient(Refuses(), None, attempts=1)).run([found])
    assert marked == replace(found, marks=("no-caption:refusal",))
    assert list(GenerationStep(Draws(), lambda _: None, "CC0-1.0", seed=0).run([marked])) == [marked]


def test_a_share_is_drawn_and_it_does_not_depend_on_the_batch() -> None:
    many = [replace(PANDA, id=str(n)) for n in range(200)]
    step = CaptionStep(LLMClient(Describes(), None), share=0.25, seed=3)
    described = list(step.run(many))
    assert 30 <= sum(bool(one.caption) for one in described) <= 70
    assert [one for start in range(0, 200, 7) for one in step.run(many[start : start + 7])] == described
    drawn = list(GenerationStep(Draws(), lambda _: None, "CC0-1.0", seed=0).run(described))
    assert [len(one.entity_images) for one in drawn] == [int(bool(one.caption)) for one in described]


def test_a_device_that_is_not_there_is_a_clear_error(tmp_path: Path) -> None:
    save_flux(tmp_path)
    with pytest.raises(FoundryError, match="device 'cuda:9'"):
        FluxGenerator(GenerationConfig(path=str(tmp_path), device="cuda:9", dtype="float32")).generate(["x"], [0])


def test_a_folder_without_flux_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="not a FLUX pipeline"):
        FluxGenerator(GenerationConfig(path=str(tmp_path), device="cpu", dtype="float32")).generate(["x"], [0])


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

    judge = PictureFilter(load, Colour(), min_score=0.5)
    entity_images = tuple(EntityImage(id_, "search") for id_ in ("red", "blue", "small", "blank", "nowhere"))
    (kept,) = judge.run([replace(PANDA, entity_images=(*entity_images, EntityImage("blue", "generation")))])
    assert isinstance(kept, Candidate)
    assert [(one.image, one.route) for one in kept.entity_images] == [("red", "search"), ("blue", "generation")]
    assert kept.entity_images[0].score == pytest.approx(float(np.asarray(reds)[..., 0].mean()) / 255, abs=1e-3)
    assert kept.entity_images[1].score is None
    (refused,) = judge.run([replace(PANDA, entity_images=entity_images[1:2])])
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


def test_any_causal_model_can_write_in_this_process(tmp_path: Path) -> None:
    save_language_model(tmp_path)
    model = LocalModel(LocalConfig(path=str(tmp_path), batch=2))
    requests = [CompletionRequest(load_prompt("entity"), {"question": f"Where is number {n}?"}) for n in range(3)]
    replies: dict[int, Completion] = {}
    model.complete(requests, replies.__setitem__)
    assert sorted(replies) == [0, 1, 2]
    assert all(set(json.loads(reply.text)) <= {"entity", "question"} for reply in replies.values())
    assert all(reply.tokens_in > 50 and reply.tokens_out > 0 for reply in replies.values())
    with pytest.raises(FoundryError, match="not a language model"):
        LocalModel(LocalConfig(path=str(tmp_path / "nowhere"))).complete(requests, replies.__setitem__)


def test_smollm_writes_questions_from_its_package() -> None:
    model = LocalModel(LocalConfig(batch=2))
    passages = (
        "The Eiffel Tower is a wrought-iron lattice tower in Paris, built for the world's fair of 1889.",
        "Marie Curie was a Polish and French physicist who won the Nobel Prize in Physics in 1903.",
    )
    replies: dict[int, Completion] = {}
    model.complete(
        [CompletionRequest(load_prompt("question"), {"passage": one}) for one in passages], replies.__setitem__
    )
    questions = [json.loads(replies[n].text)["question"] for n in range(2)]
    assert all(question.endswith("?") for question in questions)
    assert "Eiffel" in questions[0]
