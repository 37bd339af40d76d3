"""Contamination checks: compares each query of dev and test with the training set.

The checks are: the same query (text and picture); the same wording once the names of places are masked; the share of
its word n-grams that occur in training queries; and, for entities that count as unseen, the same picture anywhere in
training.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from gme_data.examples import Example
from gme_validation.config import ValidationConfig
from gme_validation.suites import TableSuite, between, holds
from gme_validation.tables import AtlasFrames, TaskFrames

_PLACEHOLDER = "<name>"
_REFERENCE = (
    r"(?:this|the)(?: pictured)? (?:country|place|nation|land|state|territory)"
    r"(?: shown here| in the picture| on the map| (?:with|under) this (?:flag|banner)| this image belongs to)?"
)
"""Pattern of the phrases that point at a picture instead of naming a place."""
Ngrams = frozenset[tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TrainingIndex:
    """An index of the training set.

    Attributes:
        queries: Id of an example by the words and the picture of its query.
        wordings: Id of an example by the masked words of its query.
        ngrams: Word n-grams of all queries.
        pictures: Pictures of all queries, positives and negatives.
    """

    queries: dict[tuple[str, str | None], str]
    wordings: dict[str, str]
    ngrams: Ngrams
    pictures: frozenset[str]


Mask = Callable[[str], str]
"""Normalises a text and replaces every name in it by a placeholder."""


def contamination_suites(
    mask: Mask, examples: Sequence[Example], tasks: Sequence[TaskFrames], config: ValidationConfig
) -> list[TableSuite]:
    """Returns one suite for each split that has tasks, with a row for each query of each task."""
    training = index_training(examples, mask, config.ngram)
    splits = dict.fromkeys(task.card.split for task in tasks)
    return [
        _suite(split, [task for task in tasks if task.card.split == split], training, mask, config) for split in splits
    ]


def name_mask(atlas: AtlasFrames) -> Mask:
    """Returns a mask for every name of a place and every phrase that points at one."""
    names = {words(name) for name in atlas.places["name"].dropna()}
    names |= {
        words(alias) for aliases in atlas.places["aliases"].dropna() for alias in aliases if alias and len(alias) > 3
    }
    # Longer names come first, since a regular expression takes the first alternative that matches.
    alternatives = "|".join(re.escape(name) for name in sorted(names - {""}, key=lambda name: (-len(name), name)))
    pattern = re.compile(rf"\b(?:(?:the )?(?:{alternatives})|{_REFERENCE})\b")
    return lambda text: pattern.sub(_PLACEHOLDER, words(text))


def index_training(examples: Sequence[Example], mask: Mask, ngram: int) -> TrainingIndex:
    """Indexes the training set; of several examples with one query the first is kept."""
    queries: dict[tuple[str, str | None], str] = {}
    wordings: dict[str, str] = {}
    grams: set[tuple[str, ...]] = set()
    for example in examples:
        text = words(example.query.text or "")
        queries.setdefault((text, example.query.image), example.id)
        # A wording without a name isn't a template: it is compared as a query, above.
        if (masked := mask(text)).count(_PLACEHOLDER):
            wordings.setdefault(masked, example.id)
        grams |= ngrams(text, ngram)
    pictures = (item.image for e in examples for item in (e.query, e.positive, *e.negatives))
    return TrainingIndex(queries, wordings, frozenset(grams), frozenset(id_ for id_ in pictures if id_))


def words(text: str) -> str:
    """Returns the words of a text in lower case with single spaces, so that case and punctuation make no difference."""
    return " ".join(re.findall(r"\w+", text.casefold()))


def ngrams(text: str, n: int) -> Ngrams:
    """Returns the word n-grams of a text; there are none if it is shorter."""
    parts = text.split()
    return frozenset(tuple(parts[i : i + n]) for i in range(len(parts) - n + 1))


def _suite(
    split: str, tasks: Iterable[TaskFrames], training: TrainingIndex, mask: Mask, config: ValidationConfig
) -> TableSuite:
    rows = [
        _row(task, query, training, mask, config.ngram)
        for task in tasks
        for query in task.queries[["id", "text", "image"]].to_dict("records")
    ]
    return TableSuite(
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


def _row(task: TaskFrames, query: dict[Any, Any], training: TrainingIndex, mask: Mask, n: int) -> dict[str, Any]:
    text = words(query["text"]) if isinstance(query["text"], str) else ""
    image = query["image"] if isinstance(query["image"], str) else None
    same_query = training.queries.get((text, image))
    same_wording = training.wordings.get(mask(text)) if text else None
    grams = ngrams(text, n)
    unseen = task.card.subset != "seen"
    return {
        "task": task.card.name,
        "id": query["id"],
        "text": query["text"],
        "image": image,
        "trained_as": same_query or same_wording or "",
        "query_not_trained": same_query is None,
        "wording_not_trained": same_wording is None,
        "picture_not_trained": not (unseen and image in training.pictures),
        "ngram_share": len(grams & training.ngrams) / len(grams) if grams else 0.0,
    }
