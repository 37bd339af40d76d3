"""What a rank encodes in a step, computed from the mixture of a stage and from assumed lengths.

Knows configurations and counts of tokens; neither memory nor time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gme_embedder.config import InputConfig
from gme_embedder.costs import EncodingLoad, encoding_load
from gme_training.config import SourceShare, TrainingConfig
from gme_training.planning.activations import MicroBatch, Numerics, RankStep

_CLOSING, _BRACKETS = 7, 2
"""The number of tokens that end every prompt, and of those that enclose a picture's."""
_UNKNOWN_TASK_TYPE = "IT->IT"
"""The task type of a source of which none is known: the most expensive one."""


@dataclass(frozen=True, slots=True)
class StageAssumptions:
    """What an estimate needs and no configuration says.

    Attributes:
        text: The tokens of an average text.
        picture: The visual tokens of an average picture that keeps its proportions.
        prompt: The tokens of the prompt's head.
        utilisation: The share of the peak speed that all operations together reach, recomputed ones among them.
        overhead: The bytes on each device for CUDA's context, NCCL's buffers and fragmentation.
        task_types: The task types of sources, such as ``T->I``; others count as ``IT->IT``.
        dollars: The price of a device and hour; None for an estimate without costs.
    """

    text: float = 100
    picture: float = 252
    prompt: float = 17
    utilisation: float = 0.35
    overhead: float = 3 * 2**30
    task_types: Mapping[str, str] = field(default_factory=dict)
    dollars: float | None = None


@dataclass(frozen=True, slots=True)
class Lengths:
    """Lengths of items, in tokens.

    Attributes:
        text: The tokens of a text.
        picture: The visual tokens of a picture.
        prompt: The tokens of the prompt's head, which the items of a micro-batch share.
        longest: The most tokens of a prompt with its head.
    """

    text: float
    picture: float
    prompt: float
    longest: float

    def item(self, modality: str) -> tuple[float, float]:
        """Returns the tokens of an item without the head, and its visual tokens.

        Args:
            modality: ``T``, ``I``, ``VD`` or ``IT``.
        """
        picture = 0.0 if modality == "T" else self.picture
        text = self.text if "T" in modality else 0.0
        brackets = _BRACKETS if picture else 0
        return max(1.0, min(text + picture + brackets + _CLOSING, self.longest - self.prompt)), picture


def average_lengths(config: TrainingConfig, assumptions: StageAssumptions) -> Lengths:
    """Returns the lengths of average items under the assumptions, within the limits of the stage."""
    limits = _input_limits(config)
    pictures = limits.pictures
    if pictures.fit == "square":  # all pictures are resized to one size
        visual: float = (pictures.side // pictures.token_side) ** 2
    else:
        visual = min(max(assumptions.picture, pictures.min_image_tokens), pictures.max_image_tokens)
    return Lengths(min(assumptions.text, limits.max_tokens), visual, assumptions.prompt, limits.max_tokens)


def longest_lengths(config: TrainingConfig, assumptions: StageAssumptions) -> Lengths:
    """Returns the lengths of items that are as long as the stage allows."""
    limits = _input_limits(config)
    pictures = limits.pictures
    square = (pictures.page_side // pictures.token_side) ** 2
    visual = square if pictures.fit == "square" else pictures.max_image_tokens
    return Lengths(limits.max_tokens, visual, assumptions.prompt, limits.max_tokens)


def _input_limits(config: TrainingConfig) -> InputConfig:
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
class ItemGroup:
    """Items of one length in a batch.

    Attributes:
        items: The number of items, over all ranks.
        length: The tokens of each without the prompt's head.
        picture: The visual tokens among them.
    """

    items: float
    length: float
    picture: float


def item_groups(
    share: SourceShare, task_types: Mapping[str, str], lengths: Lengths, queries: float
) -> tuple[ItemGroup, ItemGroup]:
    """Returns the queries and the candidates of a batch.

    Args:
        share: The source and its hard negatives; each candidate is counted as if it were sampled once.
        task_types: The task types of sources whose share names none, without the corpus that a source's name starts
            with where there are several corpora.
        lengths: The lengths of items.
        queries: The number of queries in the batch, over all ranks.
    """
    source = share.source.rpartition("/")[2]
    query, candidate = (share.task_type or task_types.get(source, _UNKNOWN_TASK_TYPE)).split("->")
    return (
        ItemGroup(queries, *lengths.item(query)),
        ItemGroup(queries * (1 + share.num_negatives), *lengths.item(candidate)),
    )


def rank_step(
    groups: tuple[ItemGroup, ...], config: TrainingConfig, ranks: int, prompt: float, numerics: Numerics
) -> RankStep:
    """Returns a rank's part of a batch, in micro-batches of one group each."""
    micro_batches: list[tuple[MicroBatch, int]] = []
    for group in groups:
        if numerics.tower_only and not group.picture:
            continue  # words are looked up in the token table
        items = group.items / ranks
        items_per_batch = max(1, config.gradient_cache.micro_batch_tokens // group.length)
        full = int(items // items_per_batch)
        sizes = [(items_per_batch, full), (items - full * items_per_batch, 1)]
        micro_batches += [
            (MicroBatch(size, group.length, prompt, group.picture), count) for size, count in sizes if size and count
        ]
    vectors = sum(group.items for group in groups)
    retained_bytes = config.gradient_cache.retained_mib * 2**20
    return RankStep(tuple(micro_batches), retained_bytes, vectors, groups[0].items / ranks)


def step_loads(step: RankStep) -> list[tuple[EncodingLoad, int]]:
    """Returns the load of each micro-batch of a step with its shared head, and how many micro-batches are alike."""
    loads = []
    for batch, count in step.micro_batches:
        items = encoding_load(batch.items, batch.length, prefix=batch.head, visual=batch.picture)
        loads.append((items + EncodingLoad(batch.head, 0, batch.head**2, 0), count))
    return loads
