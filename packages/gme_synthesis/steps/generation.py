"""Step 5b, pictures of the entity by generation: a caption by a language model, drawn by a diffusion model.

Production: FLUX.1-dev through diffusers. Seeds are digests of what is drawn and go on record, so a picture can be drawn
again on the same machine. Generated pictures are not filtered, as in the paper.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal, Protocol

from PIL import Image
from pydantic import Field

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord
from gme_data.settings import Frozen
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.llm.answers import CaptionAnswer
from gme_synthesis.llm.asking import Asker
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Request
from gme_synthesis.stages import Stage
from gme_synthesis.steps.picture_search import Keep


class GenerationConfig(Frozen):
    """A diffusion model and how it draws."""

    path: str
    """Folder of a diffusers FLUX pipeline in safetensors."""
    licence: str = "LicenseRef-FLUX.1-dev-Non-Commercial"
    """What the model's licence says of its pictures."""
    device: str = "cuda"
    """As torch names it."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Of the weights."""
    size: int = Field(default=1024, ge=16, multiple_of=16)
    """Pixels of a side."""
    steps: int = Field(default=28, ge=1)
    """Denoising steps."""
    guidance: float = Field(default=3.5, ge=0)
    """Guidance scale."""
    batch: int = Field(default=4, ge=1)
    """Pictures drawn together."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the questions that get a drawn picture; at some 20 s each, drawing is what GPU-hours go to."""
    most_caption_tokens: int = Field(default=256, ge=8)
    """Longer captions are cut by the text encoder."""


class Illustrator(Protocol):
    """Draws captions."""

    @property
    def name(self) -> str:
        """Model and settings, for the record."""

    def draw(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """An RGB picture of each caption, decided by its seed."""


class Flux:
    """See `Illustrator`. The pipeline is loaded with the first picture."""

    def __init__(self, config: GenerationConfig) -> None:
        self._config = config

    @property
    def name(self) -> str:
        """See `Illustrator`."""
        return f"{self._config.path} {self._config.size}px {self._config.steps} steps guidance {self._config.guidance}"

    def draw(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """See `Illustrator`."""
        import torch

        config, pictures = self._config, []
        for start in range(0, len(captions), config.batch):
            part = slice(start, start + config.batch)
            # A generator for each picture, on the CPU: what is drawn does not depend on its neighbours in the batch.
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[part]]
            made = _pipeline(config.path, config.device, config.dtype)(
                prompt=list(captions[part]),
                height=config.size,
                width=config.size,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                max_sequence_length=config.most_caption_tokens,
                generator=generators,
            )
            pictures += [picture.convert("RGB") for picture in made.images]
        return pictures


@cache
def _pipeline(path: str, device: str, dtype: str) -> Any:  # noqa: ANN401 - diffusers is untyped
    import diffusers
    import torch

    diffusers.utils.logging.disable_progress_bar()
    flux: Any = diffusers.FluxPipeline

    try:
        pipeline = flux.from_pretrained(path, dtype=getattr(torch, dtype), use_safetensors=True, local_files_only=True)
    except (OSError, ValueError) as error:
        raise FoundryError(f"{path}: not a FLUX pipeline that diffusers can read: {error}") from error
    pipeline.set_progress_bar_config(disable=True)
    try:
        return pipeline.to(device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        reason = str(error).splitlines()[0]
        raise FoundryError(
            f"{path} can't be loaded to the device {device!r}: {reason}",
            hint="Say which device draws: `synthesis: {generation: {device: cpu}}`.",
        ) from error


class CaptionStep:
    """Describes a picture of the entity; without a description nothing is drawn, and the candidate goes on, marked.

    Args:
        asker: Whom to ask.
        share: Of the candidates, that get one.
        seed: Decides which, together with the ids alone.
    """

    def __init__(self, asker: Asker, share: float = 1.0, seed: int = 0) -> None:
        self._asker, self._prompt, self._share, self._seed = asker, load_prompt("caption"), share, seed

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("caption", ("entity", "text"), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `entity`, `text`. Output columns: `caption`, which may stay empty, and then `marks`."""
        drawn = [one for one in candidates if self._is_drawn(one)]
        requests = [Request(self._prompt, {"entity": one.entity, "passage": one.text}, one.hints) for one in drawn]
        answers = dict(zip([one.subject for one in drawn], self._asker.ask(requests), strict=True))
        for candidate in candidates:
            answer = answers.get(candidate.subject)
            if answer is None:
                yield candidate
            elif isinstance(answer, CaptionAnswer):
                yield replace(candidate, caption=answer.caption)
            else:
                yield replace(candidate, marks=(*candidate.marks, f"no-caption:{answer}"))

    def _is_drawn(self, candidate: Candidate) -> bool:
        return int(sha256_json([self._seed, "drawn", candidate.subject])[:12], 16) < self._share * 16**12


class GenerationStep:
    """Draws the caption of each candidate that has one, and adds the picture.

    Args:
        illustrator: Who draws.
        keep: Takes the pictures.
        licence: Of the pictures.
        seed: With the caption, decides the seed of a picture.
    """

    def __init__(self, illustrator: Illustrator, keep: Keep, licence: str, seed: int) -> None:
        self._illustrator, self._keep, self._licence, self._seed = illustrator, keep, licence, seed

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("generate", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `caption`, `entity_images`. Output column: `entity_images`, which may stay empty."""
        described = [one for one in candidates if one.caption]
        seeds = [int(sha256_json([self._seed, "draw", one.subject, one.caption])[:8], 16) for one in described]
        pictures = self._illustrator.draw([one.caption for one in described], seeds) if described else []
        drawn = {one.subject: (seed, picture) for one, seed, picture in zip(described, seeds, pictures, strict=True)}
        for candidate in candidates:
            if candidate.subject not in drawn:
                yield candidate
                continue
            seed, picture = drawn[candidate.subject]
            origin = f"{self._illustrator.name} seed {seed}"
            record = ImageRecord.from_bytes(_png(picture), source=origin, licence=self._licence)
            self._keep(record)
            yield replace(
                candidate, entity_images=(*candidate.entity_images, EntityImage(record.id, "generation", origin))
            )


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
