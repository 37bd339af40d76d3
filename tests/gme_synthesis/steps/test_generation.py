"""Captions become pictures: a real FLUX pipeline with random weights."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tiny_models import save_flux

from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, decode_rgb
from gme_data.settings import parse_config
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.steps.generation import CaptionStep, FluxGenerator, GenerationConfig, GenerationStep

PANDA = Candidate("p", "The red panda lives in trees.", entity="red panda", fused="Where does this animal live?")


def picture(seed: int, size: int = 48) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8))


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
    (image,) = drawn[2].entity_images
    assert (image.image, image.route) == (kept[2].id, "generation")
    assert " seed " in image.origin
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


def test_a_field_of_an_earlier_version_is_told_by_its_new_name() -> None:
    with pytest.raises(FoundryError, match="most_caption_tokens: this field is called max_sequence_length now"):
        parse_config({"most_caption_tokens": 8, "path": "flux"}, GenerationConfig, where="x.yaml")
