"""Near duplicates are found, classes are sampled evenly, and nothing of a benchmark is trained on."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.images import ImageRecord, write_images
from gme_data.items import Item
from gme_data.tasks import Document, Query, RetrievalTask, TaskCard, save_task
from gme_synthesis.candidates import Candidate
from gme_synthesis.encoders import load_encoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.protocol import Completion, CompletionRequest, OnCompletion
from gme_synthesis.stages import Reject
from gme_synthesis.steps.classification import EncoderClassifier, ModelClassifier, sample_evenly
from gme_synthesis.steps.contamination import BenchmarkIndex
from gme_synthesis.steps.near_duplicates import MinHashIndex, PictureHashIndex, difference_hash

LONG = " ".join(f"word{n % 37} goes{n % 11} on{n}" for n in range(60))


def test_near_texts() -> None:
    near = MinHashIndex(0.8)
    assert near.find_or_add("a", LONG) is None
    assert near.find_or_add("b", LONG.upper() + "!") == "a"
    assert near.find_or_add("c", LONG.replace("on17", "off17")) == "a"
    assert near.find_or_add("d", " ".join(reversed(LONG.split()))) is None
    assert near.find_or_add("e", "日本の首都は東京です") is None
    assert near.find_or_add("f", "日本の首都は東京です。") == "e"
    exact = MinHashIndex(1)
    assert exact.find_or_add("a", LONG) is None
    assert exact.find_or_add("b", LONG.replace("on17", "off17")) is None


def test_near_texts_among_thousands() -> None:
    near = MinHashIndex(0.8)
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{n}" for n in rng.integers(0, 500, 40)) for _ in range(3000)]
    assert [near.find_or_add(str(n), text) for n, text in enumerate(texts)] == [None] * 3000
    changed = [text.rsplit(" ", 1)[0] + " end" for text in texts]  # one word of forty
    assert [near.find_or_add("x", text) for text in changed] == [str(n) for n in range(3000)]


def scene(seed: int, size: int = 64) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size, size), Image.Resampling.BICUBIC)


def test_near_pictures() -> None:
    near = PictureHashIndex([difference_hash(scene(n)) for n in range(50)], distance=4)
    assert near.contains_near(difference_hash(scene(7, 200)))
    buffer = io.BytesIO()
    scene(7).save(buffer, "JPEG", quality=60)
    assert near.contains_near(difference_hash(Image.open(buffer)))
    assert sum(near.contains_near(difference_hash(scene(n))) for n in range(50, 150)) <= 1


def record(picture: Image.Image) -> ImageRecord:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return ImageRecord.from_bytes(buffer.getvalue(), source="t", licence="CC0-1.0")


def example(query: Item, positive: Item) -> Example:
    return Example("x", "T->T", "s", None, query, positive, (), "g", "b", None, "CC0-1.0", "train")


@pytest.fixture
def benchmark(tmp_path: Path) -> tuple[Path, ImageRecord]:
    picture = record(scene(1))
    write_images(tmp_path / "images", [picture])
    card = TaskCard(
        name="t", task_type="IT->T", metric="ndcg_at_10", instruction=None, split="test", subset="unseen",
        description="", relevance="", licences=("CC0-1.0",), images="../../images", queries=1, pool=1,
    )  # fmt: skip
    query = Query("q", Item("how tall is this bridge", picture.id), "g", "s", "CC0-1.0")
    task = RetrievalTask(card, (Document("d", Item(LONG), "g", "CC0-1.0"),), (query,), {"q": {"d": 1}})
    save_task(tmp_path / "test" / "t", task)
    return tmp_path, picture


def test_contamination(benchmark: tuple[Path, ImageRecord]) -> None:
    folder, picture = benchmark
    judge = BenchmarkIndex([folder], ngram=13, distance=4)
    resized = record(scene(1, 128))
    hashes = {picture.id: 0, resized.id: difference_hash(scene(1, 128)), "other": difference_hash(scene(2))}
    cases: Sequence[tuple[Item, str | None]] = [
        (Item("How tall is THIS bridge?"), "query-of-a-benchmark"),
        (Item("and so " + " ".join(LONG.split()[20:33])), "13-words-of-a-benchmark"),
        (Item("and so " + " ".join(LONG.split()[20:32])), None),
        (Item(image=picture.id), "picture-of-a-benchmark"),
        (Item(image=resized.id), "picture-of-a-benchmark"),
        (Item("fine", "other"), None),
    ]
    for item, reason in cases:
        for one in (example(item, Item("ok")), example(Item("ok"), item)):
            refused = judge.reject(one, hashes.__getitem__)
            assert (refused.reason if refused else None) == reason


def test_a_folder_without_tasks_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FoundryError, match="no evaluation tasks"):
        BenchmarkIndex([tmp_path], 13, 4)


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
    asker = LLMClient(Classifies(), None, attempts=1)
    texts = {"a": "a plant", "b": "a bridge", "c": "a soup"}
    known = Candidate("d", "a plant", domain="artwork")
    outcomes = list(ModelClassifier(asker, 0.5).run([*(Candidate(*pair) for pair in texts.items()), known]))
    assert [one.domain if isinstance(one, Candidate) else one.reason for one in outcomes] == [
        "plant", "unsure", "invalid-json", "artwork",
    ]  # fmt: skip
    assert asker.sent == 3  # what the corpus says is not asked for
