"""Suites over the training set: its examples, its mix of task types, its funnel and its rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import NonNegativeInt

from gme_data.errors import FoundryError
from gme_data.examples import Example
from gme_data.funnel import FUNNEL, FunnelStep, read_funnel
from gme_data.items import TASK_TYPES, Item, modalities_of
from gme_data.parquet import read_shards
from gme_data.structured import StructureError, read_json
from gme_validation.config import AtlasValidationConfig, ValidationConfig
from gme_validation.suites import TableSuite, between, covers, holds, lengths, one_of, unique
from gme_validation.tables import EntitySplits, TrainingSet, modality

_REQUIRED = ("id", "task_type", "source", "instruction", "entity_group", "batch_key", "licence", "split")
FILTERS = (
    *("clean", "near-duplicate", "question", "consistency", "entity", "leak", "pictures", "picture-filter"),
    *("deduplicate", "decontaminate"),
)
"""Steps of synthesis that may reject, each of which must have run."""
_NOT_COUNTED = ("draft", "assemble", "merge")
"""Steps whose output is of another kind than their input, so that their numbers can't be compared."""


def examples_suite(
    training: TrainingSet,
    splits: EntitySplits,
    pictures: Container[str],
    config: ValidationConfig,
    task_types: Sequence[str] = (),
) -> TableSuite:
    """Returns the suite over the training examples; each of `task_types` must have examples."""
    rows = [_row(example, splits, pictures) for example in training.examples]
    blank = [{name: row[name] for name in _REQUIRED} | {"items_are_something": False} for row in training.blank]
    return TableSuite(
        "training.examples",
        pd.DataFrame([*rows, *blank]),
        (config.min_examples, None),
        _REQUIRED,
        (
            unique("id"),
            holds("items_are_something", "query, positive and negatives have a text or a picture"),
            one_of("task_type", TASK_TYPES, "the task types that there are"),
            *([covers("task_type", task_types, "every task type has examples")] if task_types else []),
            one_of("split", ("train",), "only the train part is trained on"),
            one_of("group_split", ("train",), "no entity group of dev or test is trained on"),
            one_of("picture_split", ("train",), "no picture of a dev or test entity is trained on"),
            holds("pictures_stored", "pictures are in the store"),
            holds("fits_type", "query, positive and negatives have the modalities of the task type"),
            holds("query_is_not_positive", "a query is not its own answer"),
            holds("positive_is_not_negative", "an answer is not among its negatives"),
            lengths("instruction", 1, 300, "an instruction is short and not empty"),
            between("longest_text", 0, config.max_text_chars, "characters of the longest text"),
        ),
    )


def _row(example: Example, splits: EntitySplits, pictures: Container[str]) -> dict[str, Any]:
    items = (example.query, example.positive, *example.negatives)
    images = [item.image for item in items if item.image]
    query, document = modalities_of(example.task_type)
    return {
        "id": example.id,
        "task_type": example.task_type,
        "source": example.source,
        "instruction": example.instruction,
        "query": example.query.text,
        "query_image": example.query.image,
        "entity_group": example.entity_group,
        "batch_key": example.batch_key,
        "licence": example.licence,
        "split": example.split,
        "items_are_something": True,
        "group_split": splits.groups.get(example.entity_group, "unknown"),
        "picture_split": _most_held_out(splits.pictures.get(image, "unknown") for image in images),
        "pictures_stored": all(image in pictures for image in images),
        "fits_type": _modality(example.query) == query and all(_modality(item) == document for item in items[1:]),
        "query_is_not_positive": example.query != example.positive,
        "positive_is_not_negative": example.positive not in example.negatives,
        "longest_text": max(len(item.text or "") for item in items),
    }


def _most_held_out(splits: Iterable[str]) -> str:
    # One held-out picture in an example is a leak, however many others are trained on.
    present = set(splits)
    return next((split for split in ("unknown", "test", "dev") if split in present), "train")


def _modality(item: Item) -> str:
    return modality(item.text, item.image)


def mix_suite(examples: Sequence[Example], config: AtlasValidationConfig) -> TableSuite:
    """Returns the suite over the shares of the task types."""
    counts = Counter(example.task_type for example in examples)
    total = max(len(examples), 1)
    rows = [{"task_type": name, "examples": counts[name], "share": counts[name] / total} for name in TASK_TYPES]
    limits = (config.min_type_share, config.max_type_share)
    return TableSuite(
        "training.mix",
        pd.DataFrame(rows),
        (len(TASK_TYPES), len(TASK_TYPES)),
        ("task_type", "examples", "share"),
        (unique("task_type"), between("share", *limits, "share of a task type in the training set")),
    )


@dataclass(frozen=True, slots=True)
class _FunnelSplits:
    """The examples by split in ``funnel.json``, where one funnel makes the examples of all splits."""

    splits: dict[str, NonNegativeInt]


def funnel_suites(synthetic: Path, examples: int, config: ValidationConfig) -> list[TableSuite]:
    """Returns the suites over ``funnel.json`` and ``rejects/``: every loss has a step and a reason, and numbers agree.

    Args:
        synthetic: Folder of the training set.
        examples: Examples of all splits, which the last step must have kept.
        config: Limit of the share that a filter rejects.

    Raises:
        FoundryError: ``funnel.json`` or the rejects are missing or unreadable.
    """
    path = synthetic / FUNNEL
    try:
        rows = [_funnel_row(step) for step in read_funnel(path)]
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(f"{path}: not a funnel: {error}", hint="Run `gme synthesize` again.") from error
    rejects = pd.DataFrame(read_shards(synthetic / "rejects", "rejects"))
    rejected = int(sum(row["rejected"] for row in rows))
    suites = [_funnel(pd.DataFrame(rows), examples, config)]
    # A funnel without a single reject is valid; then there is no table of rejects.
    return suites + ([_rejects(rejects, rejected, [row["step"] for row in rows])] if rejected or len(rejects) else [])


def read_splits(synthetic: Path) -> Mapping[str, int]:
    """Returns the examples by split that the funnel of an imported corpus states.

    Raises:
        FoundryError: ``funnel.json`` is missing or unreadable.
    """
    path = synthetic / FUNNEL
    try:
        return read_json(path, _FunnelSplits).splits
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(f"{path}: not a funnel: {error}", hint="Run `gme synthesize` again.") from error


def _funnel_row(step: FunnelStep) -> dict[str, Any]:
    rejected = sum(step.rejected.values())
    counted = step.step not in _NOT_COUNTED
    return {
        "step": step.step,
        "seen": step.seen,
        "kept": step.kept,
        "rejected": rejected,
        "unexplained": step.seen - step.kept - rejected if counted else 0,
        "filtered_share": rejected / max(step.seen, 1) if step.step in FILTERS else 0.0,
    }


def _funnel(frame: pd.DataFrame, examples: int, config: ValidationConfig) -> TableSuite:
    last = frame.index == len(frame) - 1  # the step that writes the examples
    frame["agrees_with_examples"] = ~last | (frame["kept"] == examples)
    return TableSuite(
        "synthesis.funnel",
        frame,
        (len(FILTERS), None),
        ("step", "seen", "kept", "rejected"),
        (
            unique("step"),
            covers("step", FILTERS, "every filter ran"),
            between("kept", 1, None, "no step loses everything"),
            between("unexplained", 0, 0, "what is lost has a reason"),
            between("filtered_share", 0, config.max_reject_share, "no filter refuses too much"),
            holds("agrees_with_examples", "the funnel ends in the number of examples written"),
        ),
    )


def _rejects(frame: pd.DataFrame, rejected: int, steps: Sequence[str]) -> TableSuite:
    return TableSuite(
        "synthesis.rejects",
        frame,
        (rejected, rejected),
        ("step", "reason", "subject", "text"),
        (
            one_of("step", steps, "steps of the funnel"),
            lengths("reason", 1, 100, "every reject has a reason"),
            lengths("subject", 1, 200, "every reject names what was refused"),
        ),
    )
