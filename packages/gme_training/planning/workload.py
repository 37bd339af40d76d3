"""What a rank encodes in a step, worked out from a stage's mixture and from lengths that are assumed.

Knows configurations and counts of tokens; neither memory nor time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gme_embedder.config import InputConfig
from gme_embedder.costs import EncodingLoad, encoding_load
from gme_training.config import SourceShare, TrainingConfig
from gme_training.planning.activations import MicroBatch, Numerics
from gme_training.planning.memory import Step

_CLOSING, _BRACKETS = 7, 2  # tokens that end every prompt, and that enclose a picture's
_DEAREST = "IT->IT"


@dataclass(frozen=True, slots=True)
class Lengths:
    """Tokens of items.

    Attributes:
        text: Of a text.
        picture: Visual ones of a picture.
        prompt: Of the prompt's head, which the items of a micro-batch share.
        longest: Of a whole prompt with its head, at most.
    """

    text: float
    picture: float
    prompt: float
    longest: float

    def item(self, modality: str) -> tuple[float, float]:
        """Tokens of an item of modality ``T``, ``I``, ``VD`` or ``IT`` without the head, and its visual ones."""
        picture = 0.0 if modality == "T" else self.picture
        text = self.text if "T" in modality else 0.0
        brackets = _BRACKETS if picture else 0
        return max(1.0, min(text + picture + brackets + _CLOSING, self.longest - self.prompt)), picture


def usual_lengths(config: TrainingConfig, text: float, picture: float, prompt: float) -> Lengths:
    """Those of average items, within the limits of the stage; pictures of one size have that size."""
    limits = _inputs(config)
    pictures = limits.pictures
    if pictures.fit == "square":
        visual: float = (pictures.side // pictures.token_side) ** 2
    else:
        visual = min(max(picture, pictures.min_image_tokens), pictures.max_image_tokens)
    return Lengths(min(text, limits.max_tokens), visual, prompt, limits.max_tokens)


def longest_lengths(config: TrainingConfig, prompt: float) -> Lengths:
    """Those of items that are as long as the stage allows."""
    limits = _inputs(config)
    pictures = limits.pictures
    square = (pictures.page_side // pictures.token_side) ** 2
    visual = square if pictures.fit == "square" else pictures.max_image_tokens
    return Lengths(limits.max_tokens, visual, prompt, limits.max_tokens)


def _inputs(config: TrainingConfig) -> InputConfig:
    if config.base is None:
        return config.model.inputs
    pictures = config.model.inputs.pictures.model_copy(
        update={
            "fit": "aspect",
            "min_image_tokens": config.base.min_image_tokens,
            "max_image_tokens": config.base.max_image_tokens,
        }
    )
    return InputConfig(max_tokens=config.base.max_tokens, pictures=pictures)


@dataclass(frozen=True, slots=True)
class Kind:
    """Items of one kind in a batch.

    Attributes:
        items: How many, over all ranks.
        length: Tokens of each without the prompt's head.
        picture: Visual tokens among them.
    """

    items: float
    length: float
    picture: float


def kinds_of(share: SourceShare, task_types: Mapping[str, str], lengths: Lengths, queries: float) -> tuple[Kind, Kind]:
    """Queries and candidates of a batch.

    Args:
        share: Names the source and its hard negatives; each candidate is counted as if it were drawn once.
        task_types: Of sources whose share names none, without the corpus that stands before a source where there are
            several; an unknown one counts as the dearest, ``IT->IT``.
        lengths: Of items.
        queries: In the batch, over all ranks.
    """
    asked, found = (share.task_type or task_types.get(share.source.rpartition("/")[2], _DEAREST)).split("->")
    return (
        Kind(queries, *lengths.item(asked)),
        Kind(queries * (1 + share.negatives), *lengths.item(found)),
    )


def step_of(kinds: tuple[Kind, ...], config: TrainingConfig, ranks: int, prompt: float, how: Numerics) -> Step:
    """A rank's part of a batch in micro-batches of at most `cache.tokens` tokens, one kind in each."""
    micro_batches: list[tuple[MicroBatch, int]] = []
    for kind in kinds:
        if how.tower_only and not kind.picture:
            continue  # words are looked up in the token table
        own = kind.items / ranks
        most = max(1, config.cache.tokens // kind.length)
        full = int(own // most)
        parts = [(most, full), (own - full * most, 1)]
        micro_batches += [
            (MicroBatch(items, kind.length, prompt, kind.picture), count) for items, count in parts if items and count
        ]
    vectors = sum(kind.items for kind in kinds)
    return Step(tuple(micro_batches), config.cache.kept_mib * 2**20, vectors, kinds[0].items / ranks)


def load_of_step(step: Step) -> list[tuple[EncodingLoad, int]]:
    """The load of each micro-batch of a step, the shared head among it, and how many are alike."""
    loads = []
    for batch, count in step.micro_batches:
        items = encoding_load(batch.items, batch.length, prefix=batch.head, visual=batch.picture)
        loads.append((items + EncodingLoad(batch.head, 0, batch.head**2, 0), count))
    return loads


def tokens_of(kinds: tuple[Kind, ...]) -> float:
    """Tokens of a batch without the prompts' heads."""
    return math.fsum(kind.items * kind.length for kind in kinds)
