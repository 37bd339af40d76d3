"""Steps 4 and 5, the picture attached and the picture filter.

Paper: image search or a text-to-image model, then CLIP ViT-L/14 (score < 0.2 refused). Here the corpus itself says
which picture shows which entity, and no CLIP weights come in an installable package, so the filter asks what can be
told without a model: that it decodes, is large enough, is not blank, and that no flag of another entity group looks the
same. A scorer of picture against caption belongs here once there is one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_synthesis.config import SynthesisConfig
from gme_synthesis.records import Draft, Place, Reject, shuffled
from gme_synthesis.world import World

_SIGNATURE_SIDE = 24


class PictureAttacher:
    """Gives a draft a flag in one style, the same flag in the other, and an illustration for its passage."""

    def __init__(self, world: World, seed: int) -> None:
        self._places, self._facts, self._passages, self._seed = world.places, world.facts, world.passages, seed

    def run(self, drafts: Sequence[Draft]) -> Iterator[Draft | Reject]:
        """Input columns: `fact_id`, `wording`. Output columns: `flag`, `other_flag`, `illustration`."""
        for draft in drafts:
            fact = self._facts[draft.fact_id]
            place = self._places[fact.place_id]
            if not place.flags:
                yield Reject("picture", "place-without-flag", draft.fact_id, draft.question)
                continue
            styles = shuffled(sorted(place.flags), self._seed, "style", draft.fact_id, draft.wording)
            flag, other = place.flags[styles[0]], place.flags[styles[-1]]
            yield replace(
                draft, flag=flag, other_flag=other, illustration=self._passages[fact.passage_id].illustration or other
            )


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


@dataclass(frozen=True, slots=True)
class _Look:
    """What a model-free look at a picture tells. `signature`: float32 [24 * 24 * 3], 0-255."""

    problem: str | None
    signature: NDArray[np.float32] | None = None


class PictureFilter:
    """Refuses drafts whose pictures can't stand for their entity; see the module's docstring.

    Each picture is looked at once, however many drafts carry it.
    """

    def __init__(self, store: ImageStore, places: Iterable[Place], config: SynthesisConfig) -> None:
        self._store, self._config = store, config
        self._looks: dict[str, _Look] = {}
        self._ambiguous = self._look_alikes(places)

    def run(self, drafts: Sequence[Draft]) -> Iterator[Draft | Reject]:
        """Input columns: `flag`, `other_flag`, `illustration`. Output columns: none."""
        for draft in drafts:
            pictures = dict.fromkeys((draft.flag, draft.other_flag, draft.illustration))
            problem = next((found for id_ in pictures if (found := self._problem(id_))), None)
            if problem is None:
                yield draft
            else:
                yield Reject("picture-filter", problem, draft.fact_id, draft.fused)

    def _problem(self, id_: str) -> str | None:
        return "look-alike-flag" if id_ in self._ambiguous else self._look(id_).problem

    def _look(self, id_: str) -> _Look:
        if id_ not in self._looks:
            self._looks[id_] = self._look_at(id_)
        return self._looks[id_]

    def _look_at(self, id_: str) -> _Look:
        if id_ not in self._store:
            return _Look("picture-missing")
        try:
            picture = self._store.load(id_)
        except FoundryError:
            return _Look("picture-not-decodable")
        problem = picture_problem(picture, self._config.min_picture_side, self._config.min_picture_std)
        if problem:
            return _Look(problem)
        small = picture.resize((_SIGNATURE_SIDE, _SIGNATURE_SIDE))
        return _Look(None, np.asarray(small, dtype=np.float32).ravel())

    def _look_alikes(self, places: Iterable[Place]) -> frozenset[str]:
        """Flags that look like one of another entity group in the same style."""
        by_style: dict[str, list[tuple[str, str]]] = {}
        for place in places:
            for style, id_ in place.flags.items():
                by_style.setdefault(style, []).append((id_, place.entity_group))
        return frozenset(id_ for flags in by_style.values() for id_ in self._too_near(flags))

    def _too_near(self, flags: Sequence[tuple[str, str]]) -> list[str]:
        seen = [(id_, group, look) for id_, group in flags if (look := self._look(id_).signature) is not None]
        if not seen:
            return []
        signatures = np.stack([look for _, _, look in seen])  # [flags, 1728]
        groups = np.array([group for _, group, _ in seen])
        found = []
        for id_, group, look in seen:
            distance = np.abs(signatures - look).mean(axis=1)
            if bool(((distance < self._config.look_alike_distance) & (groups != group)).any()):
                found.append(id_)
        return found
