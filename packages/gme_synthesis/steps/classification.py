"""Step 1, the class of a passage, for even sampling; the unsure ones are refused (paper: confidence < 0.5).

By the text encoder of the consistency filter (no request is sent), or by a language model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import get_args

import numpy as np

from gme_data.digests import sha256_json
from gme_synthesis.candidates import Candidate
from gme_synthesis.llm.answers import Domain, DomainAnswer
from gme_synthesis.llm.asking import Asker
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import Request
from gme_synthesis.stages import Reject, Stage
from gme_synthesis.steps.consistency import Encode

_DESCRIBED: Mapping[str, str] = {
    "animal": "an animal species, a bird, insect, fish or mammal and how it lives",
    "plant": "a plant species, a tree, flower, herb or fungus and where it grows",
    "architecture": "a building, bridge, castle, church, temple or monument and its construction",
    "artwork": "a painting, sculpture or other work of visual art and its artist",
    "currency": "a currency, coin or banknote and its history",
    "entertainment": "a film, television series, video game, song, album or band",
    "event": "a historical event, battle, war, festival, election or sports competition",
    "food": "a dish, drink, ingredient or cuisine and how it is prepared",
    "language": "a language, dialect, alphabet or writing system and its grammar",
    "literature": "a novel, poem, play, comic or book and its plot",
    "mythology": "a god, hero, legend, myth or religious figure",
    "organization": "a company, university, political party, club or institution",
    "person": "a person, their life, birth, work and death",
    "place": "a country, city, village, island, mountain, river or region, its people, government and economy",
    "vehicle": "a ship, aircraft, car, train, spacecraft or other machine and its engine",
}
assert set(_DESCRIBED) == set(get_args(Domain))  # noqa: S101 - a table beside the type that it describes
UNSURE = "unsure"
"""The reason that is a matter of taste: no sign that anything is wrong."""
_SHARPNESS = 30.0
"""Turns cosines into odds: 0.1 of cosine is a factor of 20."""


class EncoderClassifier:
    """The class whose description is nearest to the passage; confidence is its softmax over the 15 cosines.

    Args:
        encode: Texts to unit vectors.
        min_confidence: Below it a passage is refused.
    """

    def __init__(self, encode: Encode, min_confidence: float) -> None:
        self._encode, self._least = encode, min_confidence
        self._domains = sorted(_DESCRIBED)
        self._classes = encode([f"This text is about {_DESCRIBED[name]}." for name in self._domains])  # [15, d]

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("classify", ("text",), ("domain",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`, `domain` (kept if the corpus gives one). Output column: `domain`."""
        unknown = [candidate for candidate in candidates if not candidate.domain]
        found = dict(zip([one.id for one in unknown], self._classify([one.text for one in unknown]), strict=True))
        for candidate in candidates:
            if candidate.domain:
                yield candidate
                continue
            domain, confidence = found[candidate.id]
            yield _decided(candidate, domain, confidence, self._least)

    def _classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        if not texts:
            return []
        odds = np.exp(_SHARPNESS * (self._encode(texts) @ self._classes.T))  # [n, 15]
        shares = odds / odds.sum(axis=1, keepdims=True)
        best = shares.argmax(axis=1)
        return [(self._domains[place], float(row[place])) for place, row in zip(best, shares, strict=True)]


class ModelClassifier:
    """The class that a language model says."""

    def __init__(self, asker: Asker, min_confidence: float) -> None:
        self._asker, self._least, self._prompt = asker, min_confidence, load_prompt("domain")

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("classify", ("text",), ("domain",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`, `domain` (kept if the corpus gives one). Output column: `domain`."""
        unknown = [one for one in candidates if not one.domain]
        requests = [Request(self._prompt, {"passage": one.text}, one.hints) for one in unknown]
        answers = dict(zip([one.id for one in unknown], self._asker.ask(requests), strict=True))
        for candidate in candidates:
            answer = answers.get(candidate.id)
            if answer is None:
                yield candidate
            elif isinstance(answer, DomainAnswer):
                yield _decided(candidate, answer.domain, answer.confidence, self._least)
            else:
                yield Reject("classify", str(answer), candidate.id, candidate.text[:200])


def _decided(candidate: Candidate, domain: str, confidence: float, least: float) -> Candidate | Reject:
    if confidence < least:
        return Reject("classify", UNSURE, candidate.id, f"{domain} {confidence:.2f}: {candidate.text[:160]}")
    return replace(candidate, domain=domain)


def sample_evenly(domains: Mapping[str, str], wanted: int, seed: int) -> frozenset[str]:
    """`wanted` ids (all, if there are no more) with as even a share of each class as their numbers allow.

    Args:
        domains: Class by id.
        wanted: How many.
        seed: Decides which, together with the ids alone.
    """
    turns: Counter[str] = Counter()
    order: list[tuple[int, int, str]] = []
    for id_ in sorted(domains, key=lambda one: sha256_json([seed, "sample", one])):
        order.append((turns[domains[id_]], len(order), id_))
        turns[domains[id_]] += 1
    return frozenset(id_ for _, _, id_ in sorted(order)[:wanted])
