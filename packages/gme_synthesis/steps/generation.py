"""Step 5b, pictures of the entity by generation: a caption by a language model, a picture of it by a diffusion model.

Production uses FLUX.1-dev through diffusers. Seeds are digests of the captions and recorded, so a picture can be
generated again on the same machine. Generated pictures are not filtered, as in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar, Literal, Protocol

from PIL import Image
from pydantic import Field

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_data.images import ImageRecord, encode_png
from gme_data.settings import Frozen
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.llm.answers import CaptionAnswer
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import CompletionRequest
from gme_synthesis.stages import Stage
from gme_synthesis.steps.picture_search import StorePicture


class GenerationConfig(Frozen):
    """A diffusion model and its settings."""

    RENAMED: ClassVar[Mapping[str, str]] = {"most_caption_tokens": "max_sequence_length"}

    path: str
    """Folder of a diffusers FLUX pipeline in safetensors."""
    licence: str = "LicenseRef-FLUX.1-dev-Non-Commercial"
    """Licence of the generated pictures, by that of the model."""
    device: str = "cuda"
    """Device as torch names it."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the weights."""
    size: int = Field(default=1024, ge=16, multiple_of=16)
    """Width and height in pixels."""
    steps: int = Field(default=28, ge=1)
    """Number of denoising steps."""
    guidance: float = Field(default=3.5, ge=0)
    """Scale of classifier-free guidance."""
    batch: int = Field(default=4, ge=1)
    """Number of pictures generated together."""
    share: float = Field(default=1.0, gt=0, le=1)
    """Share of the questions that get a generated picture; each takes some 20 s of a GPU, more than all other steps."""
    max_sequence_length: int = Field(default=256, ge=8)
    """Most tokens of a caption; the text encoder cuts longer ones."""


class ImageGenerator(Protocol):
    """Generates pictures of captions."""

    @property
    def name(self) -> str:
        """Model and settings, which are recorded with each picture."""

    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """Returns an RGB picture of each caption, decided by its seed."""


class FluxGenerator:
    """An `ImageGenerator` by a FLUX pipeline, which is loaded with the first picture."""

    def __init__(self, config: GenerationConfig) -> None:
        self._config = config

    @property
    def name(self) -> str:
        """See `ImageGenerator`."""
        return f"{self._config.path} {self._config.size}px {self._config.steps} steps guidance {self._config.guidance}"

    def generate(self, captions: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        """See `ImageGenerator`."""
        import torch

        config, pictures = self._config, []
        for start in range(0, len(captions), config.batch):
            batch = slice(start, start + config.batch)
            # A generator for each picture, on the CPU: the noise does not depend on its neighbours in the batch.
            generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds[batch]]
            output = _load_pipeline(config.path, config.device, config.dtype)(
                prompt=list(captions[batch]),
                height=config.size,
                width=config.size,
                num_inference_steps=config.steps,
                guidance_scale=config.guidance,
                max_sequence_length=config.max_sequence_length,
                generator=generators,
            )
            pictures += [picture.convert("RGB") for picture in output.images]
        return pictures


@cache
def _load_pipeline(path: str, device: str, dtype: str) -> Any:  # noqa: ANN401 - diffusers is untyped
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
    """Writes captions for the picture generator; a candidate for which that fails goes on without one, marked.

    Args:
        client: The language model that writes.
        share: Share of the candidates that get a caption.
        seed: Decides which candidates do, together with their subjects alone.
    """

    def __init__(self, client: LLMClient, share: float = 1.0, seed: int = 0) -> None:
        self._client, self._prompt, self._share, self._seed = client, load_prompt("caption"), share, seed

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("caption", ("entity", "text"), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `entity`, `text`. Output columns: `caption`, which may stay empty, and then `marks`."""
        sampled = [candidate for candidate in candidates if self._is_sampled(candidate)]
        requests = [
            CompletionRequest(self._prompt, {"entity": each.entity, "passage": each.text}, each.hints)
            for each in sampled
        ]
        answers = dict(zip([candidate.subject for candidate in sampled], self._client.ask(requests), strict=True))
        for candidate in candidates:
            answer = answers.get(candidate.subject)
            if answer is None:
                yield candidate
            elif isinstance(answer, CaptionAnswer):
                yield replace(candidate, caption=answer.caption)
            else:
                yield replace(candidate, marks=(*candidate.marks, f"no-caption:{answer}"))

    def _is_sampled(self, candidate: Candidate) -> bool:
        return int(sha256_json([self._seed, "drawn", candidate.subject])[:12], 16) < self._share * 16**12


class GenerationStep:
    """Generates a picture for each candidate that has a caption, and adds it.

    Args:
        generator: The picture generator.
        store_picture: Stores a picture.
        licence: Licence of the pictures.
        seed: Decides the seed of a picture, together with subject and caption.
    """

    def __init__(self, generator: ImageGenerator, store_picture: StorePicture, licence: str, seed: int) -> None:
        self._generator, self._store_picture, self._licence, self._seed = generator, store_picture, licence, seed

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("generate", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `caption`, `entity_images`. Output column: `entity_images`, which may stay empty."""
        captioned = [candidate for candidate in candidates if candidate.caption]
        seeds = [int(sha256_json([self._seed, "draw", each.subject, each.caption])[:8], 16) for each in captioned]
        captions = [candidate.caption for candidate in captioned]
        pictures = self._generator.generate(captions, seeds) if captioned else []
        subjects = [candidate.subject for candidate in captioned]
        generated = dict(zip(subjects, zip(seeds, pictures, strict=True), strict=True))
        for candidate in candidates:
            if candidate.subject not in generated:
                yield candidate
                continue
            seed, picture = generated[candidate.subject]
            origin = f"{self._generator.name} seed {seed}"
            record = ImageRecord.from_bytes(encode_png(picture), source=origin, licence=self._licence)
            self._store_picture(record)
            yield replace(
                candidate, entity_images=(*candidate.entity_images, EntityImage(record.id, "generation", origin))
            )
