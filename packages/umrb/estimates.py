"""Estimates what scoring a model on a suite takes, before anything is fetched: items, tokens, bytes, FLOPs, hours.

Sizes come from the statistics that mteb publishes with its tasks, FLOPs from `gme_embedder.costs`. Knows neither data
nor weights, and an accelerator only by its speed.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mteb

from gme_embedder.costs import Architecture, EncodingLoad, encoding_load, forward_flops
from umrb.registry import Dataset
from umrb.systems.base import sides

PAPER_HOURS = {"umrb": 400.0, "umrb-partial": 80.0}
"""A100-80G hours that the paper states for GME-7B; its partial selection differs from that of `umrb-partial`."""

_CHARACTERS_PER_TOKEN = 4.3
"""Characters per token of English text in Qwen2's vocabulary, by measurement."""
_PREFIX, _DEFAULT_INSTRUCTION, _SUFFIX, _VISION = 8, 6, 6, 2
"""Tokens of the prompt before the content, of the default instruction in it, after the content, and around a
picture."""
_PIXELS_PER_TOKEN, _MAX_VISUAL_TOKENS = 28 * 28, 1280
_PADDING = 2.19
"""Computed tokens per real token, by measurement, if texts are padded in batches of 32 in the order of a corpus."""
_UNPUBLISHED = {
    "T": ("text_statistics", {"average_text_length": 86.0}),
    "I": ("image_statistics", {"average_image_width": 444.0, "average_image_height": 444.0}),
}
"""Assumed statistics where none are published: texts of 20 tokens, and pictures of 252 tokens, which is UMRB's mean."""
_MODALITIES = {"classification": "IT->T", "vqa": "IT->T", "retrieval": "IT->IT", "grounding": "IT->I"}
"""The largest modalities that tasks of MMEB's types have."""
_BYTES_PER_VALUE = 4
"""Bytes of a vector's value in the store, at its default precision."""


@dataclass(frozen=True, slots=True)
class SideEstimate:
    """The estimated size of one side of a task.

    Attributes:
        items: Rows; 0 where their number is not published.
        distinct: Rows with distinct contents; all rows where their number is not published.
        reused: Distinct contents that are encoded for an earlier task, or are in the store already.
        text: Tokens of an average text.
        picture: Visual tokens of an average picture.
        instruction: Tokens of the instruction.
    """

    items: int
    distinct: int
    reused: int
    text: float
    picture: float
    instruction: float

    @property
    def length(self) -> float:
        """Tokens of an average item without the shared prefix of its prompt."""
        return self.text + self.picture + (_VISION if self.picture else 0) + _SUFFIX

    @property
    def prefix(self) -> float:
        """Tokens at the start of the prompt that all items of the side share."""
        return _PREFIX + self.instruction


@dataclass(frozen=True, slots=True)
class TaskEstimate:
    """The estimate of one task of a dataset; a task that is `done`, since it has a result, costs nothing."""

    dataset: str
    task: str
    task_type: str
    queries: SideEstimate
    docs: SideEstimate
    done: bool

    @property
    def sides(self) -> tuple[SideEstimate, SideEstimate]:
        """Queries and documents."""
        return self.queries, self.docs


@dataclass(frozen=True, slots=True)
class Saving:
    """One of the optimisations that lie between a stock implementation and this package.

    Attributes:
        name: Name of the optimisation.
        flop: FLOPs of encoding with it and all optimisations before it.
        hours: Wall time of these FLOPs.
    """

    name: str
    flop: float
    hours: float


@dataclass(frozen=True, slots=True)
class SuiteEstimate:
    """The estimate of a run on a suite.

    Attributes:
        tasks: Estimates of the tasks, in the order of the suite.
        flop: FLOPs of encoding, by task, with all optimisations.
        savings: The optimisations, from a stock implementation to this package.
        tokens: Tokens that the language model computes, with all optimisations.
        vectors_bytes: Bytes of the vectors on disk.
        search_flop: FLOPs of exact search.
        hours: Wall time on all devices together.
        device_hours: Wall time times the number of devices.
    """

    tasks: tuple[TaskEstimate, ...]
    flop: dict[str, float]
    savings: tuple[Saving, ...]
    tokens: float
    vectors_bytes: float
    search_flop: float
    hours: float
    device_hours: float


def estimate_suite(
    datasets: Sequence[Dataset],
    shape: Architecture,
    *,
    devices: int,
    speed: float,
    done: Collection[str] = (),
    cached: Mapping[str, tuple[int, int]] | None = None,
) -> SuiteEstimate:
    """Estimate a run.

    Args:
        datasets: Datasets of a suite.
        shape: Architecture of the model.
        devices: Number of devices.
        speed: FLOP/s that one device reaches.
        done: Tasks that have a result.
        cached: Numbers of queries and documents whose vectors are in the store, by task.
    """
    tasks = tuple(_estimate_tasks(datasets, frozenset(done), cached or {}))
    todo = [task for task in tasks if not task.done]
    sides_todo = [side for task in todo for side in task.sides]
    flop = {task.task: sum(map(_flop(shape), task.sides)) if not task.done else 0.0 for task in tasks}
    encoded = [side.distinct - side.reused for side in sides_todo]
    # A multiplication and an addition for each number of each pair of vectors.
    search = sum(2.0 * task.queries.items * task.docs.items * shape.language.width for task in todo)
    total = sum(flop.values())
    hours = (total + search) / (devices * speed) / 3600
    return SuiteEstimate(
        tasks=tasks,
        flop=flop,
        savings=tuple(_savings(sides_todo, shape, devices * speed)),
        tokens=sum(count * side.length for count, side in zip(encoded, sides_todo, strict=True)),
        vectors_bytes=float(sum(encoded)) * shape.language.width * _BYTES_PER_VALUE,
        search_flop=search,
        hours=hours,
        device_hours=hours * devices,
    )


def _estimate_tasks(
    datasets: Sequence[Dataset], done: frozenset[str], cached: Mapping[str, tuple[int, int]]
) -> Iterator[TaskEstimate]:
    # By the name of a shared pool, the documents of the largest task so far: smaller ones are parts of it.
    pools: dict[str, int] = {}
    for dataset in datasets:
        for task in dataset.tasks:
            statistics = _statistics(dataset, task)
            # Of a dataset of several tasks the registry has the sum.
            query_count = int(statistics.get("num_queries") or (dataset.queries or 0) / len(dataset.tasks))
            doc_count = int(statistics.get("num_documents") or (dataset.candidates or 0) / len(dataset.tasks))
            queries = _estimate_side(statistics, "queries", query_count, dataset.instruction)
            docs = _estimate_side(statistics, "documents", doc_count, None)
            if dataset.pool:
                shared = min(pools.get(dataset.pool, 0), docs.distinct)
                pools[dataset.pool] = max(pools.get(dataset.pool, 0), docs.distinct)
                docs = replace(docs, reused=shared)
            queries, docs = (
                replace(side, reused=min(side.distinct, side.reused + stored))
                for side, stored in zip((queries, docs), cached.get(task, (0, 0)), strict=True)
            )
            yield TaskEstimate(dataset.id, task, dataset.task_type, queries, docs, task in done or dataset.id in done)


def _statistics(dataset: Dataset, task: str) -> dict[str, Any]:
    """Mteb's statistics of the split that is scored; assumed ones for tasks that mteb does not have."""
    if dataset.source != "mteb":
        modalities_of_sides = sides(_MODALITIES.get(dataset.task_type, dataset.task_type))
        return {
            f"{side}_{kind}": value
            for side, modalities in zip(("queries", "documents"), modalities_of_sides, strict=True)
            for kind, value in (_UNPUBLISHED[modality] for modality in sorted(modalities))
        }
    by_split: dict[str, Any] = dict(mteb.get_task(task).metadata.descriptive_stats or {})
    return dict(by_split.get(dataset.split) or {})


def _estimate_side(statistics: dict[str, Any], side: str, items: int, instruction: str | None) -> SideEstimate:
    text = statistics.get(f"{side}_text_statistics") or {}
    image = statistics.get(f"{side}_image_statistics") or {}
    # Of fused items distinct texts and distinct pictures are counted apart, which says nothing of distinct pairs.
    unique = None if text and image else text.get("unique_texts") or image.get("unique_images")
    # A video counts as one frame, as GME was scored.
    video = statistics.get(f"{side}_video_statistics") or {}
    width, height = (image.get(f"average_image_{end}", video.get(f"average_{end}", 0)) for end in ("width", "height"))
    visual = width * height / _PIXELS_PER_TOKEN
    return SideEstimate(
        items=items,
        distinct=min(int(unique), items) if unique else items,
        reused=0,
        text=text.get("average_text_length", 0) / _CHARACTERS_PER_TOKEN,
        picture=min(visual, _MAX_VISUAL_TOKENS),
        instruction=len(instruction) / _CHARACTERS_PER_TOKEN if instruction else _DEFAULT_INSTRUCTION,
    )


def _load(side: SideEstimate, count: float) -> EncodingLoad:
    return encoding_load(count, side.length, prefix=side.prefix, visual=side.picture)


def _flop(shape: Architecture) -> Callable[[SideEstimate], float]:
    return lambda side: forward_flops(shape, _load(side, side.distinct - side.reused)).total


def _savings(sides: Sequence[SideEstimate], shape: Architecture, speed: float) -> Iterator[Saving]:
    """FLOPs and hours of a stock implementation, and then with one optimisation more each time."""

    def saving(name: str, flop: float) -> Saving:
        return Saving(name, flop, flop / speed / 3600)

    def all_layers(side: SideEstimate, *, padded: bool, own_prefix: bool) -> float:
        """FLOPs of a side if every layer computes every token."""
        length = side.length + (side.prefix if own_prefix else 0)
        # Padding costs texts alone, since pictures have one size in most of the datasets.
        length += (_PADDING - 1) * (length if not side.picture else 0) if padded else 0
        load = encoding_load(side.items, length, prefix=0 if own_prefix else side.prefix, visual=side.picture)
        text = shape.language
        # `forward_flops` counts the last layer for pooled tokens alone; here the others' part of it is added.
        last = 2 * (text.matrices - 2 * text.width * text.keys) * (load.tokens - load.sequences)
        return forward_flops(shape, load).total + last + 4 * text.queries * (load.pairs - load.pooled_pairs)

    yield saving(
        "padded batches in the order of the data", sum(all_layers(s, padded=True, own_prefix=True) for s in sides)
    )
    yield saving("packed without padding", sum(all_layers(s, padded=False, own_prefix=True) for s in sides))
    yield saving("the prompt's head once a batch", sum(all_layers(s, padded=False, own_prefix=False) for s in sides))
    yield saving(
        "the last layer for pooled tokens alone", sum(forward_flops(shape, _load(s, s.items)).total for s in sides)
    )
    yield saving("equal rows of a side once", sum(forward_flops(shape, _load(s, s.distinct)).total for s in sides))
    yield saving("pools of several tasks once", sum(map(_flop(shape), sides)))
