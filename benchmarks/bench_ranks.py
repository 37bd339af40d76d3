"""Training steps on two processes against their peers: ``python benchmarks/bench_ranks.py``.

The trainer's own step, from the items of a batch to new weights: inputs prepared, encoded with all graphs kept, vectors
gathered, InfoNCE over the whole batch, gradients averaged by the DeepSpeed engine (ZeRO 0), clipped, AdamW (fused). A
random Qwen2-VL (256 wide, 4 layers) in float32, the tower and the token table frozen; 128 pairs a batch. A rank is a
process with one thread, in the environment that the trainer gives it; ranks meet over gloo.

1. two ranks against one, and against two single ranks at once that never meet: what the machine has to give;
2. items shared out by their tokens, as the trainer does, against two plain splits: equally many items to each rank in
   the order of the batch (queries, then documents), and pairs dealt out one by one as a DistributedSampler does. Texts:
   short queries; documents of which a third are captions and the others passages of log-normal length, none over 256
   tokens. And the same with JPEG files of UMRB's sizes in the place of every fourth document;
3. the engine against plain PyTorch with the same AdamW: the very same gradients handed to DistributedDataParallel in
   one backward, so that only what comes after the gradients differs and is timed by itself as well; and the loss of one
   graph of all micro-batches, whose backward DDP overlaps with its collectives. On one rank there is no DDP.

All ways have models of their own that start from the same weights and see the same batches. Their losses must agree to
4 decimals at every step before anything is printed. Wall seconds, as ranks wait for each other: the least of rounds in
which the ways take turns, for each of several batches, then the mean over the batches. Whatever else runs on the
machine shows, first of all in the two single ranks: nothing should.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench_pictures import jpegs
from rank_worker import IMAGES, INDEX, SOURCE, Ranks, Step, Way, World

from gme_data.environment import set_default_env
from gme_data.examples import Example, write_examples
from gme_data.images import ImageRecord, ImageStore, write_images
from gme_data.items import Item
from gme_training.data.example_index import ensure_index

PAIRS = 128
TOLERANCE = 5e-5
LEARNT = 0.1
"""How far losses of a batch must move for their equality to mean something."""
WORDS = ("river", "capital", "flag", "country", "red", "blue", "mountain", "people", "economy", "border", "island")
LONGEST = 230
"""Words of a text; with the prompt no more than 256 tokens."""
BALANCED, HALVES, DEALT = Way(), Way(split="halves"), Way(split="pairs")
HANDED, OVERLAPPED = Way(update="plain"), Way(update="plain-backward")
ENGINES = (BALANCED, HANDED, OVERLAPPED)
NAMES = {
    BALANCED: "by tokens, ours", HALVES: "items in halves", DEALT: "pairs dealt out",
    HANDED: "plain, gradients handed over", OVERLAPPED: "plain, backward of one graph",
}  # fmt: skip


@dataclass(frozen=True)
class Run:
    """A way of stepping, and the worlds that step at once; each on its own."""

    way: Way
    worlds: Sequence[Ranks]

    def step(self, batch: int) -> list[Step]:
        for world in self.worlds:
            world.start(self.way, batch)
        return [step for world in self.worlds for step in world.finish()]


@dataclass(frozen=True)
class Cost:
    """Of a step, on average over the batches: wall seconds, those of the update; of each rank tokens, CPU seconds."""

    seconds: float
    update: float
    tokens: Sequence[float]
    busy: Sequence[float]


Key = TypeVar("Key")
Setting = argparse.Namespace
"""Rounds, batches, and the width of the model."""


def main() -> None:
    """Print a table for each comparison."""
    set_default_env()
    os.environ.update(CUDA_VISIBLE_DEVICES="", DS_ACCELERATOR="cpu")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=4, help="2 or more")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--width", type=int, default=256, help="of the model; a multiple of 128")
    parser.add_argument("--only", choices=("texts", "updates", "pictures"))
    setting = parser.parse_args()
    if setting.only in {None, "texts"}:
        compare_texts(setting)
    if setting.only in {None, "updates"}:
        compare_updates(setting)
    if setting.only in {None, "pictures"}:
        compare_pictures(setting)


def compare_texts(setting: Setting) -> None:
    """Ranks and splits, on texts."""
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        write_data(folder, setting.batches, every=0)
        one, two, *lone = (
            stack.enter_context(Ranks(world_of(folder, setting, ranks, ways)))
            for ranks, ways in (
                (1, (BALANCED,)),
                (2, (BALANCED, HALVES, DEALT)),
                (1, (BALANCED,)),
                (1, (BALANCED,)),
            )
        )
        runs = {(world.world.ranks, way): Run(way, [world]) for world in (one, two) for way in world.world.ways}
        costs = measured({**runs, "lone": Run(BALANCED, lone)}, [one, two, *lone], setting)
    print(f"{PAIRS} pairs of texts, {costs[1, BALANCED].tokens[0]:.0f} tokens computed; {setting.width} wide")
    print_ranks(costs)
    print_splits({way: costs[2, way] for way in (BALANCED, HALVES, DEALT)})


def compare_updates(setting: Setting) -> None:
    """The engine against plain PyTorch, each number of ranks by itself: a rank that has waited is slow at first."""
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_data(folder, setting.batches, every=0)
            with Ranks(world_of(folder, setting, ranks, ENGINES)) as world:
                costs = measured({way: Run(way, [world]) for way in ENGINES}, [world], setting)
        print_updates(ranks, costs)


def compare_pictures(setting: Setting) -> None:
    """The splits, on texts and pictures."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder, setting.batches, every=4)
        ways = (BALANCED, HALVES, DEALT)
        with Ranks(world_of(folder, setting, 2, ways)) as two:
            costs = measured({way: Run(way, [two]) for way in ways}, [two], setting)
    print(f"{PAIRS} pairs of texts and pictures, {sum(costs[BALANCED].tokens):.0f} tokens computed")
    print_splits(costs)


def world_of(folder: Path, setting: Setting, ranks: int, ways: Sequence[Way]) -> World:
    return World(folder, ranks, ways, PAIRS, setting.batches, setting.width)


def measured(runs: Mapping[Key, Run], worlds: Sequence[Ranks], setting: Setting) -> dict[Key, Cost]:
    """Let the runs take turns, hold their losses to those of the first, and keep the least time of each batch."""
    for world in worlds:
        world.ready()
    taken: dict[Key, list[list[list[Step]]]] = {key: [[] for _ in range(setting.batches)] for key in runs}
    for round_ in range(setting.rounds):
        for batch in range(setting.batches):
            for key in list(runs)[:: -1 if round_ % 2 else 1]:  # whoever comes first comes last the next time
                taken[key][batch].append(runs[key].step(batch))
    true, *_ = taken.values()
    assert all(abs(steps[0][0].loss - steps[-1][0].loss) > LEARNT for steps in true), "nothing was learnt"
    for key, batches in taken.items():
        assert_near(str(key), batches, true)
    return {key: cost_of(batches) for key, batches in taken.items()}


def assert_near(name: str, found: Sequence[Sequence[Sequence[Step]]], true: Sequence[Sequence[Sequence[Step]]]) -> None:
    """Every step of every rank has the loss that the same step of the first run has."""
    for batch, expected in zip(found, true, strict=True):
        for ranks, (first, *_) in zip(batch, expected, strict=True):
            for step in ranks:
                assert abs(step.loss - first.loss) < TOLERANCE, f"{name}: loss {step.loss} instead of {first.loss}"


def cost_of(batches: Sequence[Sequence[Sequence[Step]]]) -> Cost:
    """From the steps of all ranks, by batch and round."""
    seconds, update = (max(least(batches, field)) for field in ("seconds", "update"))
    return Cost(seconds, update, least(batches, "tokens"), least(batches, "busy"))


def least(batches: Sequence[Sequence[Sequence[Step]]], field: str) -> list[float]:
    """Of each rank: the least of the rounds, on average over the batches."""
    ranks = range(len(batches[0][0]))
    return [mean([min(getattr(steps[rank], field) for steps in rounds) for rounds in batches]) for rank in ranks]


def imbalance(ranks: Sequence[float]) -> float:
    """What the busiest rank has, by the mean."""
    return max(ranks) / mean(ranks)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def print_ranks(costs: Mapping[object, Cost]) -> None:
    print("1. ranks")
    first = costs[1, BALANCED].seconds
    for name, key, steps in (
        ("one rank", (1, BALANCED), 1),
        ("two ranks", (2, BALANCED), 1),
        ("two single ranks that never meet", "lone", 2),
    ):
        seconds, busy = costs[key].seconds / steps, max(costs[key].busy) / steps
        print(
            f"  {name:<34} {seconds:6.3f} s a step {PAIRS / seconds:7.1f} pairs/s {first / seconds:6.2f}x"
            f"  busier rank {busy:6.3f} CPU s"
        )


def print_splits(costs: Mapping[Way, Cost]) -> None:
    print("2. splits over two ranks")
    first = costs[BALANCED].seconds
    for way, cost in costs.items():
        print(
            f"  {NAMES[way]:<34} {cost.seconds:6.3f} s a step {PAIRS / cost.seconds:7.1f} pairs/s"
            f"  busier rank by mean: tokens {imbalance(cost.tokens):4.2f}, CPU {imbalance(cost.busy):4.2f}"
            f"  ours {cost.seconds / first:5.2f}x as fast"
        )


def print_updates(ranks: int, costs: Mapping[Way, Cost]) -> None:
    print(f"3. updates, {ranks} rank{'s' * (ranks > 1)}")
    first = costs[BALANCED]
    for way, cost in costs.items():
        name = "DeepSpeed engine, ours" if way == BALANCED else NAMES[way]
        line = f"  {name:<34} {cost.seconds:6.3f} s a step"
        if way != BALANCED:
            line += f"  ours over it {percent(first.seconds - cost.seconds, cost)}"
        if not math.isnan(cost.update):
            line += f"  after the gradients {1000 * cost.update:5.1f} ms"
            line += f", ours over it {percent(first.update - cost.update, cost)} of a step" * (way != BALANCED)
        print(line)


def percent(seconds: float, cost: Cost) -> str:
    return f"{100 * seconds / cost.seconds:+.1f} %"


def write_data(folder: Path, batches: int, every: int) -> None:
    """Examples, their index, and pictures as every so-manieth document; 0 means none."""
    count = PAIRS * batches
    files = jpegs(count // every) if every else []
    pictures = [ImageRecord.from_bytes(file, source=SOURCE, licence="CC0-1.0") for file in files]
    write_images(folder / IMAGES, pictures)
    write_examples(folder / "examples", examples(count, [picture.id for picture in pictures], every))
    ensure_index([folder / "examples"], folder / INDEX, ImageStore([folder / IMAGES]))


def examples(count: int, pictures: Sequence[str], every: int) -> list[Example]:
    draw = random.Random(0)  # noqa: S311
    made = []
    for number in range(count):
        query, document = words(draw, 10, 0.4), words(draw, *((8, 0.4) if number % 3 == 0 else (90, 0.7)))
        if pictures and number % every == 0:
            document = Item(image=pictures[number // every])
        made.append(example(number, query, document))
    return made


def words(draw: random.Random, median: int, spread: float) -> Item:
    """A text of a log-normal number of words."""
    count = 1 + int(draw.lognormvariate(math.log(median), spread))
    return Item(text=" ".join(draw.choices(WORDS, k=min(count, LONGEST))))


def example(number: int, query: Item, document: Item) -> Example:
    name = f"{SOURCE}-{number}"
    return Example(
        id=name,
        task_type="T->T",
        source=SOURCE,
        instruction="Find the document that answers the question.",
        query=query,
        positive=document,
        negatives=(),
        entity_group=name,
        batch_key=name,
        answer=None,
        licence="CC0-1.0",
        split="train",
    )


if __name__ == "__main__":
    main()
