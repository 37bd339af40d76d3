"""What scoring a model on a suite takes, before anything is fetched: items, tokens, bytes, operations, hours.

Sizes are those of the statistics that mteb publishes with its tasks, operations those of `gme_embedder.costs`. Knows
neither data nor weights, and no accelerator but by its speed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mteb

from gme_embedder.costs import Architecture, EncodingLoad, encoding_load, forward_flops
from umrb.registry import Dataset
from umrb.systems import sides

PAPER_HOURS = {"umrb": 400.0, "umrb-partial": 80.0}
"""A100-80G hours that the paper states for GME-7B; its partial selection is another than ours."""

_CHARACTERS_PER_TOKEN = 4.3
"""Of English text in Qwen2's vocabulary, measured."""
_HEAD, _DEFAULT_INSTRUCTION, _TAIL, _VISION = 8, 6, 6, 2
"""Tokens of the prompt: before the content without the instruction, the default one, after the content, around a
picture."""
_PIXELS_PER_TOKEN, _MOST_VISUAL = 28 * 28, 1280
_PADDING = 2.19
"""Tokens computed for each real one when texts are padded in batches of 32 in the order of a corpus, measured."""
_UNPUBLISHED = {
    "T": ("text_statistics", {"average_text_length": 86.0}),
    "I": ("image_statistics", {"average_image_width": 444.0, "average_image_height": 444.0}),
}
"""Assumed of items whose sizes nobody published: 20 tokens of text, and a picture of the 252 tokens of UMRB's mean."""
_MADE_OF = {"classification": "IT->T", "vqa": "IT->T", "retrieval": "IT->IT", "grounding": "IT->I"}
"""Of MMEB's types, none of which is smaller."""
_STORED = 4
"""Bytes of a number in the store."""


@dataclass(frozen=True, slots=True)
class SidePlan:
    """One side of a task.

    Attributes:
        items: Rows; 0 where nobody says how many.
        distinct: Of them, with another content than all before, as far as it is published.
        elsewhere: Of the distinct ones, encoded for another task of the plan, or in the store already.
        text: Tokens of a mean text.
        picture: Visual tokens of a mean picture.
        instruction: Tokens of the instruction.
    """

    items: int
    distinct: int
    elsewhere: int
    text: float
    picture: float
    instruction: float

    @property
    def length(self) -> float:
        """Tokens of an item without the head of its prompt."""
        return self.text + self.picture + (_VISION if self.picture else 0) + _TAIL

    @property
    def head(self) -> float:
        """Tokens that all items share."""
        return _HEAD + self.instruction


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """One task of a dataset; `done` if it has a result already, and then it costs nothing."""

    dataset: str
    task: str
    task_type: str
    queries: SidePlan
    docs: SidePlan
    done: bool

    @property
    def sides(self) -> tuple[SidePlan, SidePlan]:
        """Both."""
        return self.queries, self.docs


@dataclass(frozen=True, slots=True)
class Saving:
    """A step from the stock way to ours.

    Attributes:
        name: What is done.
        flop: Operations with this step and all before it.
        hours: Wall time of the same.
    """

    name: str
    flop: float
    hours: float


@dataclass(frozen=True, slots=True)
class SuitePlan:
    """The whole.

    Attributes:
        tasks: In the order of the suite.
        flop: Operations of each task's encoding, by task, as we do it.
        savings: From the stock way to ours.
        tokens: That the language part computes, as we do it.
        vectors_bytes: On disk.
        search_flop: Of exact search.
        hours: Wall time on the devices.
        device_hours: Their sum over devices.
    """

    tasks: tuple[TaskPlan, ...]
    flop: dict[str, float]
    savings: tuple[Saving, ...]
    tokens: float
    vectors_bytes: float
    search_flop: float
    hours: float
    device_hours: float


def plan_suite(
    datasets: Sequence[Dataset],
    shape: Architecture,
    *,
    devices: int,
    speed: float,
    done: Collection[str] = (),
    kept: Mapping[str, tuple[int, int]] | None = None,
) -> SuitePlan:
    """Plan a run.

    Args:
        datasets: Of a suite.
        shape: Of the model.
        devices: How many.
        speed: FLOP/s that one of them reaches.
        done: Tasks that have a result.
        kept: Queries and documents of a task that are in the store, by task.
    """
    tasks = tuple(_tasks(datasets, frozenset(done), kept or {}))
    todo = [task for task in tasks if not task.done]
    planned = [side for task in todo for side in task.sides]
    flop = {task.task: sum(map(_flop(shape), task.sides)) if not task.done else 0.0 for task in tasks}
    encoded = [side.distinct - side.elsewhere for side in planned]
    search = sum(2.0 * task.queries.items * task.docs.items * shape.language.width for task in todo)
    total = sum(flop.values())
    hours = (total + search) / (devices * speed) / 3600
    return SuitePlan(
        tasks=tasks,
        flop=flop,
        savings=tuple(_savings(planned, shape, devices * speed)),
        tokens=sum(count * side.length for count, side in zip(encoded, planned, strict=True)),
        vectors_bytes=float(sum(encoded)) * shape.language.width * _STORED,
        search_flop=search,
        hours=hours,
        device_hours=hours * devices,
    )


def _tasks(
    datasets: Sequence[Dataset], done: frozenset[str], kept: Mapping[str, tuple[int, int]]
) -> Iterator[TaskPlan]:
    pools: dict[str, int] = {}
    for dataset in datasets:
        for task in dataset.tasks:
            found = _statistics(dataset, task)
            queries = _side(
                found, "queries", _count(found, "num_queries", dataset, dataset.queries), dataset.instruction
            )
            docs = _side(found, "documents", _count(found, "num_documents", dataset, dataset.candidates), None)
            if dataset.pool:
                shared = min(pools.get(dataset.pool, 0), docs.distinct)
                pools[dataset.pool] = max(pools.get(dataset.pool, 0), docs.distinct)
                docs = replace(docs, elsewhere=shared)
            queries, docs = (
                replace(side, elsewhere=min(side.distinct, side.elsewhere + known))
                for side, known in zip((queries, docs), kept.get(task, (0, 0)), strict=True)
            )
            yield TaskPlan(dataset.id, task, dataset.task_type, queries, docs, task in done or dataset.id in done)


def _statistics(dataset: Dataset, task: str) -> dict[str, Any]:
    """Of the split that is scored; of what mteb does not have, what is assumed."""
    if dataset.source != "mteb":
        made_of = sides(_MADE_OF.get(dataset.task_type, dataset.task_type))
        return {
            f"{side}_{kind}": value
            for side, modalities in zip(("queries", "documents"), made_of, strict=True)
            for kind, value in (_UNPUBLISHED[modality] for modality in sorted(modalities))
        }
    found: dict[str, Any] = dict(mteb.get_task(task).metadata.descriptive_stats or {})
    return dict(found.get(dataset.split) or {})


def _count(found: dict[str, Any], field: str, dataset: Dataset, whole: int | None) -> int:
    return int(found.get(field) or (whole or 0) / len(dataset.tasks))


def _side(found: dict[str, Any], side: str, items: int, instruction: str | None) -> SidePlan:
    text = found.get(f"{side}_text_statistics") or {}
    image = found.get(f"{side}_image_statistics") or {}
    # Of fused items only the parts are counted, which says nothing of the whole.
    unique = None if text and image else text.get("unique_texts") or image.get("unique_images")
    video = found.get(f"{side}_video_statistics") or {}  # one frame of it
    width, height = (image.get(f"average_image_{end}", video.get(f"average_{end}", 0)) for end in ("width", "height"))
    visual = width * height / _PIXELS_PER_TOKEN
    return SidePlan(
        items=items,
        distinct=min(int(unique), items) if unique else items,
        elsewhere=0,
        text=text.get("average_text_length", 0) / _CHARACTERS_PER_TOKEN,
        picture=min(visual, _MOST_VISUAL),
        instruction=len(instruction) / _CHARACTERS_PER_TOKEN if instruction else _DEFAULT_INSTRUCTION,
    )


def _load(side: SidePlan, count: float) -> EncodingLoad:
    return encoding_load(count, side.length, prefix=side.head, visual=side.picture)


def _flop(shape: Architecture) -> Any:  # noqa: ANN401 - a function of a side
    return lambda side: forward_flops(shape, _load(side, side.distinct - side.elsewhere)).total


def _savings(planned: Sequence[SidePlan], shape: Architecture, speed: float) -> Iterator[Saving]:
    """Each step with those before it; the first is the stock way."""

    def step(name: str, flop: float) -> Saving:
        return Saving(name, flop, flop / speed / 3600)

    def whole(side: SidePlan, count: float, *, padded: bool, own_head: bool) -> float:
        """With every layer computed for every token."""
        length = side.length + (side.head if own_head else 0)
        # Padding repeats the text; pictures have one size in most of the sets.
        length += (_PADDING - 1) * (length if not side.picture else 0) if padded else 0
        load = encoding_load(count, length, prefix=0 if own_head else side.head, visual=side.picture)
        text = shape.language
        last = 2 * (text.matrices - 2 * text.width * text.keys) * (load.tokens - load.sequences)
        return forward_flops(shape, load).total + last + 4 * text.queries * (load.pairs - load.pooled_pairs)

    yield step(
        "padded batches in the order of the data", sum(whole(s, s.items, padded=True, own_head=True) for s in planned)
    )
    yield step("packed without padding", sum(whole(s, s.items, padded=False, own_head=True) for s in planned))
    yield step("the prompt's head once a batch", sum(whole(s, s.items, padded=False, own_head=False) for s in planned))
    yield step(
        "the last layer for pooled tokens alone", sum(forward_flops(shape, _load(s, s.items)).total for s in planned)
    )
    yield step("equal rows of a side once", sum(forward_flops(shape, _load(s, s.distinct)).total for s in planned))
    yield step("pools of several tasks once", sum(map(_flop(shape), planned)))
