"""Step 6, the picture filter: a picture that does not look like what is said of it goes (paper: CLIP score < 0.2).

Scorers: a CLIP model, or an embedder of ours, such as the champion of the last run. Both give the cosine of picture and
text, on scales of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.structured import StructureError, read_json
from gme_synthesis.candidates import Candidate, Route, Sight
from gme_synthesis.pictures import picture_problem
from gme_synthesis.records import Reject, Stage

_BATCH = 32
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
    ) -> None:
        self._load, self._scorer, self._min_score, self._routes = load, scorer, min_score, routes
        self._min_side, self._min_std = min_side, min_std

    def stage(self) -> Stage[Candidate]:
        """As a step of a chain."""
        return Stage("picture-filter", ("sights",), ("sights",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `sights`, `entity`, `caption`. Output column: `sights`, judged."""
        pairs = [(candidate, sight) for candidate in candidates for sight in candidate.sights]
        judged: dict[str, list[Sight]] = {candidate.id: [] for candidate in candidates}
        reasons: dict[str, str] = {}
        for start in range(0, len(pairs), _BATCH):
            part = pairs[start : start + _BATCH]
            for (candidate, _), outcome in zip(part, self._judge(part), strict=True):
                if isinstance(outcome, Sight):
                    judged[candidate.id].append(outcome)
                else:
                    reasons[candidate.id] = outcome
        for candidate in candidates:
            if judged[candidate.id]:
                yield replace(candidate, sights=tuple(judged[candidate.id]))
            else:
                reason = reasons.get(candidate.id, "no-picture")
                yield Reject("picture-filter", reason, candidate.id, candidate.entity)

    def _judge(self, pairs: Sequence[tuple[Candidate, Sight]]) -> list[Sight | str]:
        """Each picture with its score, or why it goes."""
        looked = [self._look(sight.image) for _, sight in pairs]
        outcomes: list[Sight | str] = [
            seen if isinstance(seen, str) else sight for (_, sight), seen in zip(pairs, looked, strict=True)
        ]
        if self._scorer is None:
            return outcomes
        asked = [
            (place, seen)
            for place, seen in enumerate(looked)
            if not isinstance(seen, str) and pairs[place][1].route in self._routes
        ]
        if asked:
            texts = [pairs[place][0].caption or pairs[place][0].entity for place, _ in asked]
            scores = self._scorer.score([seen for _, seen in asked], texts)
            for (place, _), score in zip(asked, scores.tolist(), strict=True):
                low = score < self._min_score
                outcomes[place] = "low-score" if low else replace(pairs[place][1], score=round(score, 4))
        return outcomes

    def _look(self, id_: str) -> Image.Image | str:
        try:
            picture = self._load(id_)
        except FoundryError:
            return "picture-not-decodable"
        return picture_problem(picture, self._min_side, self._min_std) or picture
