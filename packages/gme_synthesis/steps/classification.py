"""Step 1, the class of a passage, for even sampling; uncertain passages are refused (paper: confidence < 0.5).

The class comes from the text encoder of the consistency filter, zero-shot and without a request, or from a language
model.
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
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.prompts import load_prompt
from gme_synthesis.llm.protocol import CompletionRequest
from gme_synthesis.stages import Reject, Stage
from gme_synthesis.steps.consistency import Encode

_CLASS_DESCRIPTIONS: Mapping[str, str] = {
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
assert set(_CLASS_DESCRIPTIONS) == set(get_args(Domain))  # noqa: S101 - a table beside the type that it describes
UNSURE = "unsure"
"""The reject reason of low confidence, which is no sign of a bad passage; the check of the reject rate ignores it."""
_INVERSE_TEMPERATURE = 30.0
"""The softmax over cosines is as sharp that 0.1 of cosine is a factor of 20 in odds."""


class EncoderClassifier:
    """Zero-shot classifier: the class whose description is nearest to the passage, with a softmax over the 15 cosines.

    Args:
        encode: Encodes texts as unit vectors.
        min_confidence: Passages of less confidence are refused.
    """

    def __init__(self, encode: Encode, min_confidence: float) -> None:
        self._encode, self._min_confidence = encode, min_confidence
        self._domains = sorted(_CLASS_DESCRIPTIONS)
        self._class_vectors = encode(
            [f"This text is about {_CLASS_DESCRIPTIONS[name]}." for name in self._domains]
        )  # [15, d]

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("classify", ("text",), ("domain",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`, `domain` (kept if the corpus gives one). Output column: `domain`."""
        unclassified = [candidate for candidate in candidates if not candidate.domain]
        classes = self._classify([candidate.text for candidate in unclassified])
        class_of = dict(zip([candidate.id for candidate in unclassified], classes, strict=True))
        for candidate in candidates:
            if candidate.domain:
                yield candidate
            else:
                yield _accept_if_confident(candidate, *class_of[candidate.id], self._min_confidence)

    def _classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """Returns class and confidence of each text."""
        if not texts:
            return []
        odds = np.exp(_INVERSE_TEMPERATURE * (self._encode(texts) @ self._class_vectors.T))  # [n, 15]
        probabilities = odds / odds.sum(axis=1, keepdims=True)
        best = probabilities.argmax(axis=1)
        return [(self._domains[index], float(row[index])) for index, row in zip(best, probabilities, strict=True)]


class ModelClassifier:
    """Classifies passages by a language model, with the confidence that it states."""

    def __init__(self, client: LLMClient, min_confidence: float) -> None:
        self._client, self._min_confidence, self._prompt = client, min_confidence, load_prompt("domain")

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("classify", ("text",), ("domain",), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `text`, `domain` (kept if the corpus gives one). Output column: `domain`."""
        unclassified = [candidate for candidate in candidates if not candidate.domain]
        requests = [CompletionRequest(self._prompt, {"passage": each.text}, each.hints) for each in unclassified]
        answers = dict(zip([candidate.id for candidate in unclassified], self._client.ask(requests), strict=True))
        for candidate in candidates:
            answer = answers.get(candidate.id)
            if answer is None:
                yield candidate
            elif isinstance(answer, DomainAnswer):
                yield _accept_if_confident(candidate, answer.domain, answer.confidence, self._min_confidence)
            else:
                yield Reject("classify", str(answer), candidate.id, candidate.text[:200])


def _accept_if_confident(
    candidate: Candidate, domain: str, confidence: float, min_confidence: float
) -> Candidate | Reject:
    if confidence < min_confidence:
        return Reject("classify", UNSURE, candidate.id, f"{domain} {confidence:.2f}: {candidate.text[:160]}")
    return replace(candidate, domain=domain)


def sample_evenly(domains: Mapping[str, str], count: int, seed: int) -> frozenset[str]:
    """Samples `count` ids (all, if there are fewer), as evenly over the classes as their sizes allow.

    Args:
        domains: Class by id.
        count: Number of ids to sample.
        seed: Decides the sample; other than the ids, nothing else does.
    """
    # Classes are served in rounds: the n-th id of every class comes before the next one of any, so that a large class
    # fills only what the small ones can't.
    rounds: Counter[str] = Counter()
    order: list[tuple[int, int, str]] = []
    for id_ in sorted(domains, key=lambda id_: sha256_json([seed, "sample", id_])):
        order.append((rounds[domains[id_]], len(order), id_))
        rounds[domains[id_]] += 1
    return frozenset(id_ for _, _, id_ in sorted(order)[:count])
