"""Passages are classified by an encoder or a model, and classes are sampled evenly."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable

from gme_synthesis.candidates import Candidate
from gme_synthesis.encoders import load_encoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import Reject
from gme_synthesis.steps.classification import EncoderClassifier, ModelClassifier, sample_evenly


def test_sampling_is_even_and_does_not_depend_on_order() -> None:
    domains = {
        f"{kind}{n}": kind for kind, count in (("plant", 100), ("animal", 30), ("food", 2)) for n in range(count)
    }
    drawn = sample_evenly(domains, 30, seed=0)
    assert Counter(domains[id_] for id_ in drawn) == {"plant": 14, "animal": 14, "food": 2}
    assert sample_evenly(dict(reversed(domains.items())), 30, seed=0) == drawn
    assert sample_evenly(domains, 30, seed=1) != drawn
    assert sample_evenly(domains, 999, seed=0) == set(domains)


def test_the_encoder_knows_the_classes_and_refuses_the_unsure() -> None:
    texts = {
        "animal": "The red panda is a small mammal that lives in the eastern Himalayas and eats bamboo.",
        "plant": "Iris pseudacorus is a flowering plant that grows in wetlands and on river banks.",
        "architecture": "The castle was built of stone in the 13th century, with four round towers and a moat.",
        "person": "She was born in Warsaw in 1867, studied in Paris, married in 1895 and died in 1934.",
        "currency": "The krone is the currency of Norway; banknotes of 50 to 1000 kroner are issued by the bank.",
        "food": "The soup is made of fermented beets, cooked with cabbage, and served with sour cream.",
    }
    classify = EncoderClassifier(load_encoder("minilm").passages, 0.5)
    outcomes = list(classify.run([Candidate(domain, text) for domain, text in texts.items()]))
    assert [one.domain if isinstance(one, Candidate) else one.reason for one in outcomes] == list(texts)
    unsure, known = classify.run(
        [Candidate("x", "Results were compared by analysis of variance."), Candidate("y", "lorem", domain="food")]
    )
    assert isinstance(unsure, Reject)
    assert unsure.reason == "unsure"
    assert isinstance(known, Candidate)


class Classifies:
    """Is sure of plants only."""

    name, reads_hints = "classifies", False

    def complete(self, requests: Iterable[CompletionRequest], on_completion: OnCompletion) -> None:
        for number, request in enumerate(requests):
            sure = "plant" in request.inputs["passage"]
            said = {"domain": "plant" if sure else "food", "confidence": 0.9 if sure else 0.4}
            on_completion(
                number, Completion(json.dumps(said) if "soup" not in request.inputs["passage"] else "no idea")
            )


def test_a_model_classifies_what_the_corpus_does_not() -> None:
    client = LLMClient(Classifies(), None, attempts=1)
    texts = {"a": "a plant", "b": "a bridge", "c": "a soup"}
    known = Candidate("d", "a plant", domain="artwork")
    outcomes = list(ModelClassifier(client, 0.5).run([*(Candidate(*pair) for pair in texts.items()), known]))
    assert [one.domain if isinstance(one, Candidate) else one.reason for one in outcomes] == [
        "plant", "unsure", "invalid-json", "artwork",
    ]  # fmt: skip
    assert client.sent == 3  # what the corpus says is not asked for
