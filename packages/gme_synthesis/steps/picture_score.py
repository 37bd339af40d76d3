"""Step 6, the picture filter: drops pictures that do not match the text of their entity (paper: CLIP score < 0.2).

Each picture is scored once for each text, however many candidates have it. The picture scorer is a CLIP model or an
embedder of ours, such as the champion of the last run. Both return the cosine of picture and text, but on different
scales, so a threshold is for one scorer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.structured import StructureError, read_json
from gme_synthesis.candidates import Candidate, EntityImage, Route
from gme_synthesis.stages import Reject, Stage

_BATCH_SIZE = 32
_CACHED_RESULTS = 100_000
"""Number of results that are cached; candidates of one entity follow each other, so old ones are rarely needed."""
_SIGNATURE_SIDE = 24
_PictureText = tuple[str, str]
"""An image id and the text that it is scored against, which is empty for a picture that needs no score."""
Scores = NDArray[np.float32]
LoadPicture = Callable[[str], Image.Image]
"""Returns an RGB picture by its id; raises `FoundryError` if it can't be read."""


class PictureTextScorer(Protocol):
    """Scores how well pictures match texts."""

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """Returns the cosine of each picture with its text, float32 [n]."""


class ClipScorer:
    """A `PictureTextScorer` by a CLIP model of transformers, such as clip-vit-large-patch14."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from transformers import AutoTokenizer, CLIPModel
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        self._device = device
        clip: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
        self._model = clip.to(device).eval()
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._processor: Any = CLIPImageProcessorPil.from_pretrained(folder, local_files_only=True)

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """See `PictureTextScorer`."""
        import torch

        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        pixels = self._processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            output = self._model(**tokens.to(self._device), **pixels.to(self._device))
            # The embeddings of the output are unit vectors.
            scores: Scores = (output.image_embeds * output.text_embeds).sum(-1).float().cpu().numpy()
        return scores


class EmbedderScorer:
    """A `PictureTextScorer` by an embedder of ours."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from gme_embedder.embedder import Embedder

        self._embedder = Embedder.load(folder, device=device)

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """See `PictureTextScorer`."""
        picture_vectors = self._embedder.encode([{"image": picture} for picture in pictures])
        text_vectors = self._embedder.encode([{"text": text} for text in texts])
        scores: Scores = (picture_vectors * text_vectors).sum(axis=1)
        return scores


def load_scorer(folder: Path, device: str = "cpu") -> PictureTextScorer:
    """Loads the picture scorer in a model folder: CLIP if ``config.json`` says so, else an embedder.

    Raises:
        FoundryError: The folder holds no model.
    """
    try:
        kind = read_json(folder / "config.json", dict[str, Any]).get("model_type")
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(
            f"{folder}: no model to score pictures with: {error}",
            hint="Give the folder of a CLIP model or an embedder.",
        ) from error
    return ClipScorer(folder, device) if kind == "clip" else EmbedderScorer(folder, device)


class PictureFilter:
    """Drops pictures that are unfit or score too low; a candidate without any left is refused.

    Args:
        load: Reads a picture.
        scorer: The picture scorer; None filters by size and content alone.
        min_score: Lower scores are dropped; the paper's 0.2 is for CLIP ViT-L/14.
        routes: Routes whose pictures are scored; the paper does not score generated ones.
        min_side: See `picture_problem`.
        min_std: See `picture_problem`.
        ambiguous: Image ids that can't tell one entity from another; see `look_alikes`.
    """

    def __init__(
        self,
        load: LoadPicture,
        scorer: PictureTextScorer | None,
        *,
        min_score: float = 0.2,
        routes: Sequence[Route] = ("search",),
        min_side: int = 32,
        min_std: float = 4.0,
        ambiguous: Container[str] = (),
    ) -> None:
        self._load, self._scorer, self._min_score, self._routes = load, scorer, min_score, routes
        self._min_side, self._min_std, self._ambiguous = min_side, min_std, ambiguous
        self._results: OrderedDict[_PictureText, str | float | None] = OrderedDict()

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("picture-filter", ("entity_images",), ("entity_images",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `entity_images`, `entity`, captions. Output column: `entity_images`, with scores."""
        pairs = {self._pair(candidate, image): None for candidate in candidates for image in candidate.entity_images}
        self._evaluate([pair for pair in pairs if pair not in self._results])
        for candidate in candidates:
            results = [(image, self._results[self._pair(candidate, image)]) for image in candidate.entity_images]
            fit = tuple(
                image if result is None else replace(image, score=result)
                for image, result in results
                if not isinstance(result, str)
            )
            if fit:
                yield replace(candidate, entity_images=fit)
            else:
                reason = next((result for _, result in reversed(results) if isinstance(result, str)), "no-picture")
                yield Reject("picture-filter", reason, candidate.subject, candidate.entity)
        # After the shard, not within it: what is evaluated above is read below, whatever the size of a shard.
        while len(self._results) > _CACHED_RESULTS:
            self._results.popitem(last=False)

    def _pair(self, candidate: Candidate, image: EntityImage) -> _PictureText:
        text = candidate.caption or candidate.portrait_caption or candidate.entity
        return image.image, text if self._scorer is not None and image.route in self._routes else ""

    def _evaluate(self, pairs: Sequence[_PictureText]) -> None:
        """Caches the result of each pair: the reason to drop the picture, else its score, None for one without text."""
        for start in range(0, len(pairs), _BATCH_SIZE):
            loaded = {pair: self._load_fit(pair[0]) for pair in pairs[start : start + _BATCH_SIZE]}
            self._results.update({pair: fit if isinstance(fit, str) else None for pair, fit in loaded.items()})
            to_score = {pair: fit for pair, fit in loaded.items() if pair[1] and not isinstance(fit, str)}
            if to_score and self._scorer is not None:
                scores = self._scorer.score(list(to_score.values()), [text for _, text in to_score])
                for pair, score in zip(to_score, scores.tolist(), strict=True):
                    self._results[pair] = "low-score" if score < self._min_score else round(score, 4)

    def _load_fit(self, id_: str) -> Image.Image | str:
        """Returns a picture, or the reason why it must be dropped without scoring."""
        if id_ in self._ambiguous:
            return "look-alike"
        try:
            picture = self._load(id_)
        except FoundryError:
            return "picture-not-decodable"
        return picture_problem(picture, self._min_side, self._min_std) or picture


def picture_problem(picture: Image.Image, min_side: int, min_std: float) -> str:
    """Returns why a picture can't show any entity, by size and contrast; empty if it may.

    Args:
        picture: An RGB picture.
        min_side: Least pixels of the shorter side.
        min_std: Least standard deviation of grey values, 0-255; below it a picture counts as blank.
    """
    if min(picture.size) < min_side:
        return "picture-too-small"
    if float(np.asarray(picture.convert("L"), dtype=np.float32).std()) < min_std:
        return "picture-blank"
    return ""


def look_alikes(pictures: Sequence[tuple[str, str]], load: LoadPicture, distance: float) -> frozenset[str]:
    """Returns the ids of all pictures of entity groups that have a picture which looks like one of another group.

    All pictures of such a group are ambiguous: a flag that equals another country's in one drawing does in the next.

    Args:
        pictures: Entity group and image id of each picture.
        load: Reads a picture; one that can't be read looks like no other.
        distance: Mean absolute difference of 24x24 RGB, 0-255, below which two pictures look alike.
    """
    loaded = [(group, signature) for group, id_ in pictures if (signature := _signature(load, id_)) is not None]
    if not loaded:
        return frozenset()
    signatures = np.stack([signature for _, signature in loaded])  # [pictures, 1728]
    groups = np.array([group for group, _ in loaded])
    ambiguous_groups = set()
    for group, signature in loaded:
        is_near = np.abs(signatures - signature).mean(axis=1) < distance
        if bool((is_near & (groups != group)).any()):
            ambiguous_groups.add(group)
    return frozenset(id_ for group, id_ in pictures if group in ambiguous_groups)


def _signature(load: LoadPicture, id_: str) -> NDArray[np.float32] | None:
    try:
        small = load(id_).resize((_SIGNATURE_SIDE, _SIGNATURE_SIDE))
    except FoundryError:
        return None
    return np.asarray(small, dtype=np.float32).ravel()
