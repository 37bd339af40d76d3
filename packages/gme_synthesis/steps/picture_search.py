"""Step 5a, pictures of the entity by search: up to 5 for each, from the corpus itself or from a search service.

A search says which pictures may show an entity; whether they do is for the picture filter. Steps hand the pictures
themselves to a `keep` function, and candidates carry ids.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gme_data.images import ImageRecord
from gme_synthesis.candidates import Candidate, EntityImage
from gme_synthesis.stages import Reject, Stage, shuffled
from gme_synthesis.steps.consistency import Encode

Keep = Callable[[ImageRecord], None]
"""Takes a picture that did not come with the corpus."""


class PictureSearch(Protocol):
    """Finds pictures by the name of what they show."""

    def find(self, names: Sequence[str], count: int) -> list[list[EntityImage]]:
        """Up to `count` pictures for each name, best first. New ones are kept before this returns."""


class PictureBank:
    """Pictures with captions, in an index of the captions.

    Args:
        captions: Caption of each picture, by image id.
        encode: Captions and names into one space.
        min_similarity: Cosine of name and caption below which a picture is none of the entity's.
    """

    def __init__(self, captions: Mapping[str, str], encode: Encode, min_similarity: float) -> None:
        self._ids = sorted(captions)
        self._vectors = encode([captions[id_] for id_ in self._ids])  # [pictures, d]
        self._encode, self._least = encode, min_similarity

    def find(self, names: Sequence[str], count: int) -> list[list[EntityImage]]:
        """See `PictureSearch`."""
        if not names or not self._ids:
            return [[] for _ in names]
        distinct = sorted(set(names))
        from gme_embedder.index import search  # torch, which who reads a config alone does not need

        scores, rows = search(self._encode(distinct), self._vectors, count)
        found = {
            name: [EntityImage(self._ids[row], "search", "bank") for row in nearest[score >= self._least]]
            for name, score, nearest in zip(distinct, scores, rows, strict=True)
        }
        return [found[name] for name in names]


class SearchStep:
    """Adds what a search finds to the pictures of a candidate.

    Args:
        searcher: Where to look.
        count: Pictures for each entity (the paper's 5).
    """

    def __init__(self, searcher: PictureSearch, count: int) -> None:
        self._searcher, self._count = searcher, count

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("search", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `entity`. Output columns: `entity_images`, which may stay empty."""
        found = self._searcher.find([one.entity for one in candidates], self._count)
        for candidate, entity_images in zip(candidates, found, strict=True):
            yield replace(candidate, entity_images=(*candidate.entity_images, *entity_images))


class PortraitStep:
    """Adds the pictures that the corpus itself says show the entity, in an order that the candidate decides.

    Args:
        count: Pictures for each entity.
        seed: Decides the order, together with fact and wording.
    """

    def __init__(self, count: int, seed: int) -> None:
        self._count, self._seed = count, seed

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("search", ("entity",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate]:
        """Input columns: `portraits`, `fact`, `wording`. Output columns: `entity_images`, which may stay empty."""
        for one in candidates:
            styles = shuffled(sorted(one.portraits), self._seed, "style", one.fact or one.id, one.wording)
            entity_images = (EntityImage(one.portraits[style], "search", style) for style in styles[: self._count])
            yield replace(one, entity_images=(*one.entity_images, *entity_images))


class SightCheck:
    """Refuses candidates that no route found a picture for."""

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("pictures", ("entity",), ("entity_images",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `entity_images`. Output columns: none."""
        for candidate in candidates:
            if candidate.entity_images:
                yield candidate
            else:
                yield Reject("pictures", "no-picture", candidate.subject, candidate.entity)
