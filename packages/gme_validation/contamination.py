"""Is the benchmark in the training set? Each query of dev and test is looked for among the training queries.

Looked for are: the same query (text and picture); the same wording once the names of places are masked; shared word
n-grams; and, for entities that count as unseen, the same picture anywhere in training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gme_data.examples import Example
from gme_validation.config import ValidationConfig
from gme_validation.suites import Suite, between, holds
from gme_validation.tables import Corpus, Task

_SLOT = "<name>"
_POINTER = (
    r"(?:this|the)(?: pictured)? (?:country|place|nation|land|state|territory)"
    r"(?: shown here| in the picture| on the map| (?:with|under) this (?:flag|banner)| this image belongs to)?"
)
"""Phrases that point at a picture instead of naming a place."""
Ngrams = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class Trained:
    """What training shows: queries as (words, picture), masked wordings with their picture, n-grams, pictures."""

    queries: dict[tuple[str, str | None], str]
    wordings: dict[str, str]
    ngrams: Ngrams
    pictures: frozenset[str]


Mask = Callable[[str], str]
"""Puts a slot for every name in a text and normalises it."""


def contamination_suites(
    mask: Mask, examples: Sequence[Example], tasks: Sequence[Task], config: ValidationConfig
) -> list[Suite]:
    """One suite for each split that has tasks, a row for each query of each task."""
    trained = gather(examples, mask, config.ngram)
    splits = dict.fromkeys(task.card.split for task in tasks)
    return [
        _suite(split, [task for task in tasks if task.card.split == split], trained, mask, config) for split in splits
    ]


def name_mask(corpus: Corpus) -> Mask:
    """A function that puts a slot for every name of a place and every phrase that points at one, and normalises."""
    names = {words(name) for name in corpus.places["name"].dropna()}
    names |= {
        words(alias) for aliases in corpus.places["aliases"].dropna() for alias in aliases if alias and len(alias) > 3
    }
    alternatives = "|".join(re.escape(name) for name in sorted(names - {""}, key=lambda name: (-len(name), name)))
    pattern = re.compile(rf"\b(?:(?:the )?(?:{alternatives})|{_POINTER})\b")
    return lambda text: pattern.sub(_SLOT, words(text))


def gather(examples: Sequence[Example], mask: Mask, ngram: int) -> Trained:
    """Index the training set once; where several examples match, the first is named."""
    queries: dict[tuple[str, str | None], str] = {}
    wordings: dict[str, str] = {}
    grams: set[tuple[str, ...]] = set()
    for example in examples:
        text = words(example.query.text or "")
        queries.setdefault((text, example.query.image), example.id)
        if (masked := mask(text)).count(_SLOT):
            wordings.setdefault(masked, example.id)
        grams |= ngrams(text, ngram)
    pictures = (item.image for e in examples for item in (e.query, e.positive, *e.negatives))
    return Trained(queries, wordings, frozenset(grams), frozenset(id_ for id_ in pictures if id_))


def words(text: str) -> str:
    """Lower case, words and single spaces only, so that case and punctuation hide nothing."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def ngrams(text: str, n: int) -> Ngrams:
    """The word n-grams of a text; empty if it is shorter."""
    parts = text.split()
    return frozenset(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))


def _suite(split: str, tasks: Iterable[Task], trained: Trained, mask: Mask, config: ValidationConfig) -> Suite:
    rows = [
        _row(task, query, trained, mask, config.ngram)
        for task in tasks
        for query in task.queries[["id", "text", "image"]].to_dict("records")
    ]
    return Suite(
        f"contamination.{split}",
        pd.DataFrame(rows),
        (1, None),
        ("task", "id"),
        (
            holds("query_not_trained", "no query of the benchmark is a training query"),
            holds("wording_not_trained", "no wording of the benchmark is a training wording"),
            holds("picture_not_trained", "no picture of an unseen entity is in the training set"),
            between("ngram_share", 0, config.max_ngram_share, f"share of {config.ngram}-grams found in training"),
        ),
    )


def _row(task: Task, query: dict[Any, Any], trained: Trained, mask: Mask, n: int) -> dict[str, Any]:
    text = words(query["text"]) if isinstance(query["text"], str) else ""
    image = query["image"] if isinstance(query["image"], str) else None
    same = trained.queries.get((text, image))
    worded = trained.wordings.get(mask(text)) if text else None
    grams = ngrams(text, n)
    unseen = task.card.subset != "seen"
    return {
        "task": task.card.name,
        "id": query["id"],
        "text": query["text"],
        "image": image,
        "trained_as": same or worded or "",
        "query_not_trained": same is None,
        "wording_not_trained": worded is None,
        "picture_not_trained": not (unseen and image in trained.pictures),
        "ngram_share": len(grams & trained.ngrams) / len(grams) if grams else 0.0,
    }
