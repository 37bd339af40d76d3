"""Step 6, the picture filter: a picture that does not look like what is said of it goes (paper: CLIP score < 0.2).

Each picture is looked at once for each text, however many candidates carry it. Scorers: a CLIP model, or an embedder of
ours, such as the champion of the last run. Both give the cosine of picture and text, on scales of their own.
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

_BATCH = 32
_REMEMBERED = 100_000
"""Verdicts that are kept: candidates of one entity come close together."""
_SIGNATURE_SIDE = 24
_Asked = tuple[str, str]
"""An image id and the text that it is scored against; empty if it isn't."""
Scores = NDArray[np.float32]
LoadPicture = Callable[[str], Image.Image]
"""Image id to RGB picture; raises `FoundryError`."""


class PictureTextScorer(Protocol):
    """Says how well pictures and texts go together."""

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """Cosine of each pair, float32 [n]."""


class ClipScorer:
    """A transformers CLIP model, such as clip-vit-large-patch14."""

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

        words = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        pixels = self._processor(images=list(pictures), return_tensors="pt")
        with torch.inference_mode():
            found = self._model(**words.to(self._device), **pixels.to(self._device))
            scores: Scores = (found.image_embeds * found.text_embeds).sum(-1).float().cpu().numpy()
        return scores


class EmbedderScorer:
    """A universal embedder of ours."""

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        from gme_embedder.embedder import Embedder

        self._embedder = Embedder.load(folder, device=device)

    def score(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> Scores:
        """See `PictureTextScorer`."""
        seen = self._embedder.encode([{"image": picture} for picture in pictures])
        said = self._embedder.encode([{"text": text} for text in texts])
        scores: Scores = (seen * said).sum(axis=1)
        return scores


def load_scorer(folder: Path, device: str = "cpu") -> PictureTextScorer:
    """The scorer in a model folder: CLIP by its ``config.json``, else an embedder.

    Raises:
        FoundryError: Not a model folder.
    """
    try:
        kind = read_json(folder / "config.json", dict[str, Any]).get("model_type")
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(
            f"{folder}: no model to judge pictures by: {error}", hint="Give the folder of a CLIP model or an embedder."
        ) from error
    return ClipScorer(folder, device) if kind == "clip" else EmbedderScorer(folder, device)


class PictureFilter:
    """Drops pictures that are unfit or score too low; a candidate without any left is refused.

    Args:
        load: Reads a picture.
        scorer: None judges by size and content alone.
        min_score: The paper's 0.2 is for CLIP ViT-L/14.
        routes: Which pictures are scored; the paper lets generated ones through.
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
        self._known: OrderedDict[_Asked, str | float | None] = OrderedDict()

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("picture-filter", ("entity_images",), ("entity_images",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `entity_images`, `entity`, captions. Output column: `entity_images`, judged."""
        asked = {self._asked(one, sight): None for one in candidates for sight in one.entity_images}
        self._judge([each for each in asked if each not in self._known])
        for one in candidates:
            verdicts = [(sight, self._known[self._asked(one, sight)]) for sight in one.entity_images]
            fit = tuple(
                sight if verdict is None else replace(sight, score=verdict)
                for sight, verdict in verdicts
                if not isinstance(verdict, str)
            )
            if fit:
                yield replace(one, entity_images=fit)
            else:
                reason = next((verdict for _, verdict in reversed(verdicts) if isinstance(verdict, str)), "no-picture")
                yield Reject("picture-filter", reason, one.subject, one.entity)
        while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)

    def _asked(self, one: Candidate, sight: EntityImage) -> _Asked:
        scored = self._scorer is not None and sight.route in self._routes
        return sight.image, (one.caption or one.portrait_caption or one.entity) if scored else ""

    def _judge(self, asked: Sequence[_Asked]) -> None:
        """Notes of each picture with its text why it goes, else its score, None if nobody scores it."""
        for start in range(0, len(asked), _BATCH):
            looked = {each: self._look(each[0]) for each in asked[start : start + _BATCH]}
            self._known.update({each: seen if isinstance(seen, str) else None for each, seen in looked.items()})
            scored = {each: seen for each, seen in looked.items() if each[1] and not isinstance(seen, str)}
            if scored and self._scorer is not None:
                scores = self._scorer.score(list(scored.values()), [text for _, text in scored])
                for each, score in zip(scored, scores.tolist(), strict=True):
                    self._known[each] = "low-score" if score < self._min_score else round(score, 4)

    def _look(self, id_: str) -> Image.Image | str:
        if id_ in self._ambiguous:
            return "look-alike"
        try:
            picture = self._load(id_)
        except FoundryError:
            return "picture-not-decodable"
        return picture_problem(picture, self._min_side, self._min_std) or picture


def picture_problem(picture: Image.Image, min_side: int, min_std: float) -> str:
    """Why a picture can stand for nothing, as far as no model is needed to tell; empty if it can.

    Args:
        picture: RGB.
        min_side: Pixels of the shorter side.
        min_std: Standard deviation of grey values, 0-255.
    """
    if min(picture.size) < min_side:
        return "picture-too-small"
    if float(np.asarray(picture.convert("L"), dtype=np.float32).std()) < min_std:
        return "picture-blank"
    return ""


def look_alikes(owned: Sequence[tuple[str, str]], load: LoadPicture, distance: float) -> frozenset[str]:
    """All pictures of the entity groups of which one looks like a picture of another group.

    A flag that can't be told from another country's in one drawing is no better in the next.

    Args:
        owned: Pictures as entity group and image id.
        load: Reads a picture; what can't be read looks like nothing.
        distance: Mean absolute difference of 24x24 RGB, 0-255, below which two look alike.
    """
    seen = [(group, signature) for group, id_ in owned if (signature := _signature(load, id_)) is not None]
    if not seen:
        return frozenset()
    signatures = np.stack([signature for _, signature in seen])  # [pictures, 1728]
    groups = np.array([group for group, _ in seen])
    unclear = set()
    for group, signature in seen:
        near = np.abs(signatures - signature).mean(axis=1) < distance
        if bool((near & (groups != group)).any()):
            unclear.add(group)
    return frozenset(id_ for group, id_ in owned if group in unclear)


def _signature(load: LoadPicture, id_: str) -> NDArray[np.float32] | None:
    try:
        small = load(id_).resize((_SIGNATURE_SIDE, _SIGNATURE_SIDE))
    except FoundryError:
        return None
    return np.asarray(small, dtype=np.float32).ravel()
