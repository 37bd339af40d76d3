"""Step 5a, pictures of the entity by search: up to 5 for each, from the corpus itself or from a search service.

A search returns pictures that may show an entity; the picture filter decides whether they do. Steps hand the pictures
themselves to a `StorePicture` function, and candidates carry their ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gme_data.images import ImageRecord
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.stages import Reject, Stage, shuffled
from gme_synthesis.steps.consistency import Encode

StorePicture = Callable[[ImageRecord], None]
"""Stores a picture that did not come with the corpus."""


class PictureSearch(Protocol):
    """Finds pictures by the name of the entity that they show."""

    def find(self, names: Sequence[str], count: int) -> list[list[EntityImage]]:
        """Returns up to `count` pictures for each name, best first. New pictures are stored before it returns."""


class PictureBank:
    """A `PictureSearch` in the captions of the corpus' own pictures.

    Args:
        captions: Caption of each picture, by image id.
        encode: Encodes captions and names into one space.
        min_similarity: Least cosine of name and caption for a picture to be returned.
    """

    def __init__(self, captions: Mapping[str, str], encode: Encode, min_similarity: float) -> None:
        self._ids = sorted(captions)
        self._vectors = encode([captions[id_] for id_ in self._ids])  # [pictures, d]
        self._encode, self._min_similarity = encode, min_similarity

    def find(self, names: Sequence[str], count: int) -> list[list[EntityImage]]:
        """See `PictureSearch`."""
        if not names or not self._ids:
            return [[] for _ in names]
        distinct = sorted(set(names))
        # Imported late, as it imports torch, which reading a config does not need.
        from gme_embedder.vectors.exact import search

        scores, rows = search(self._encode(distinct), self._vectors, count)
        images = {
            name: [EntityImage(self._ids[row], "search", "bank") for row in nearest[score >= self._min_similarity]]
            for name, score, nearest in zip(distinct, scores, rows, strict=True)
        }
        return [images[name] for name in names]


class SearchStep:
    """Adds the results of a search to the pictures of a candidate.

    Args:
        searcher: The search.
        count: Most pictures for each entity (the paper's 5).
    """

    def __init__(self, searcher: PictureSearch, count: int) -> None:
        self._searcher, self._count = searcher, count

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("search", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `entity`. Output columns: `entity_images`, which may stay empty."""
        results = self._searcher.find([candidate.entity for candidate in candidates], self._count)
        for candidate, images in zip(candidates, results, strict=True):
            yield replace(candidate, entity_images=(*candidate.entity_images, *images))


class PortraitStep:
    """Adds the pictures that the corpus itself declares to show the entity, in an order that the candidate decides.

    Args:
        count: Most pictures for each entity.
        seed: Decides the order, together with fact and wording.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("search", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `portraits`, `fact`, `wording`. Output columns: `entity_images`, which may stay empty."""
        for candidate in candidates:
            # The order differs from wording to wording, so questions about one fact have different pictures.
            subject = candidate.fact or candidate.id
            styles = shuffled(sorted(candidate.portraits), self._seed, "style", subject, candidate.wording)
            images = (EntityImage(candidate.portraits[style], "search", style) for style in styles[: self._count])
            yield replace(candidate, entity_images=(*candidate.entity_images, *images))


class RequirePictures:
    """Refuses candidates for which neither search nor generation gave a picture."""

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("pictures", ("entity",), ("entity_images",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `entity_images`. Output columns: none."""
        for candidate in candidates:
            if candidate.entity_images:
                yield candidate
            else:
                yield Reject("pictures", "no-picture", candidate.subject, candidate.entity)
