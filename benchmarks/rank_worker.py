"""A rank of `bench_ranks.py`: a world of processes that take training steps when they are told to.

Every way of stepping has a model of its own from one and the same seed, so ways that compute the same lose the same.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

import stock
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.parallel import DistributedDataParallel

from gme_data.images import ImageStore
from gme_training import engine as engines
from gme_training import launch
from gme_training.config import GradientCacheConfig, PhaseConfig, SourceShare, TrainingConfig
from gme_training.data.batches import Batch, BatchSampler
from gme_training.data.catalog import Catalog
from gme_training.losses.gradient_cache import Gradients
from gme_training.losses.objective import GlobalLoss, PreparedStep, batch_gradients, prepare_step
from gme_training.model.contrastive import ContrastiveModel, InputMaker, RankAssignment, assign_items, tower_share

RATE = 1e-4
SOURCE, IMAGES, INDEX = "mixture", "images", "index"
"""The source of all examples, and what the folder of a world holds."""


@dataclass(frozen=True)
class Way:
    """How a step is taken: who encodes what, and what makes an update of it."""

    split: str = "balanced"
    update: str = "deepspeed"


@dataclass(frozen=True)
class World:
    """What its ranks share: the folder of the data, the pairs and the number of batches, the width of the model."""

    folder: Path
    ranks: int
    ways: Sequence[Way]
    pairs: int
    batches: int
    width: int


@dataclass(frozen=True)
class Step:
    """Wall seconds from the batch to the new weights; of these, those after the gradients, or nan where both overlap.

    `loss` is that of the whole batch; `tokens` and `busy` what this rank computed, and its CPU seconds.
    """

    seconds: float
    update: float
    loss: float
    tokens: int
    busy: float


class Ranks:
    """The processes of a world; within it they wait, without load, for `start`."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._pipes: list[Connection] = []
        self._processes: list[BaseProcess] = []

    def __enter__(self) -> Self:
        spawn, port = get_context("spawn"), str(launch.free_port())
        for rank in range(self.world.ranks):
            here, there = spawn.Pipe()
            # Some of it is read before the first line of a process runs.
            os.environ.update(launch.rank_environment(rank, self.world.ranks, "cpu", port))
            self._processes.append(spawn.Process(target=work, args=(self.world, there), daemon=True))
            self._processes[-1].start()
            there.close()
            self._pipes.append(here)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for pipe, process in zip(self._pipes, self._processes, strict=True):
            pipe.close()
            if kind:  # it may wait for a rank that is no more
                process.kill()
        for process in self._processes:
            process.join()

    def ready(self) -> None:
        """Wait until every rank has its models."""
        for pipe in self._pipes:
            pipe.recv()

    def start(self, way: Way, batch: int) -> None:
        for pipe in self._pipes:
            pipe.send((way, batch))

    def finish(self) -> list[Step]:
        """The step that was started, as each rank saw it."""
        return [pipe.recv() for pipe in self._pipes]


def work(world: World, orders: Connection) -> None:
    """Take the steps that are asked for until nobody is there to ask."""
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    engines.join_process_group()
    catalog = Catalog(world.folder / INDEX)
    batches = [BatchSampler(catalog, phase(world), number=0, seed=5).batch(step) for step in range(world.batches)]
    learners = {way: Learner(way, world, catalog) for way in world.ways}
    orders.send("ready")
    try:
        while True:
            way, number = orders.recv()
            orders.send(learners[way].step(batches[number]))
    except EOFError:
        dist.destroy_process_group()


def phase(world: World) -> PhaseConfig:
    share = SourceShare(source=SOURCE, batch_size=world.pairs, grouped=0)
    return PhaseConfig(
        name="p", steps=world.batches, mixture=(share,), text_learning_rate=RATE, vision_learning_rate=0.0
    )


def config_of(world: World) -> TrainingConfig:
    """All graphs kept, as plain PyTorch does; float32, in which losses can be held to each other."""
    return TrainingConfig(
        phases=(phase(world),), gradient_cache=GradientCacheConfig(micro_batch_tokens=2048), autocast=False
    )


class Learner:
    """One way of a world: its model, its optimizer, and a step of both."""

    def __init__(self, way: Way, world: World, catalog: Catalog) -> None:
        self._catalog, self._rank, self._ranks = catalog, dist.get_rank(), dist.get_world_size()
        self._phase, self._config = phase(world), config_of(world)
        self._owner = OWNERS[way.split]
        embedder = random_embedder(world.width)
        images = ImageStore([world.folder / IMAGES])
        share = tower_share(embedder.model, frozen=True)
        self._inputs = InputMaker(embedder.preparer, images, self._config.gradient_cache.micro_batch_tokens, share)
        self._model = ContrastiveModel(embedder.model, autocast=False, temperature=self._config.loss.temperature)
        self._model.requires_grad_(False)
        self._model.train()
        self._update = UPDATES[way.update](self._model, self._phase, self._config)

    def step(self, batch: Batch) -> Step:
        dist.barrier()
        started, worked = time.perf_counter(), time.process_time()
        ready = self._prepared(batch)
        sums = self._update.gradients(ready, self._rank)
        # As in the trainer: what is reported is summed before the update. Ranks that are done earlier wait here.
        dist.all_reduce(sums)
        loss = float(sums[0]) / len(batch.rows)
        between = time.perf_counter()
        self._update.optimizer_step()
        busy = time.process_time() - worked
        dist.barrier()
        done = time.perf_counter()
        update = done - between if self._update.separate else math.nan
        return Step(done - started, update, loss, ready.rank_batch.tokens, busy)

    def _prepared(self, batch: Batch) -> PreparedStep:
        """`prepare_step`, and what it does with another split."""
        if self._owner is None:
            return prepare_step(self._inputs, self._catalog, batch, "embedding", self._rank, self._ranks)
        assignment = assign_items(self._catalog, batch, 1, self._inputs.cost)
        assignment = shared_by(self._owner(batch, self._ranks), assignment)
        rank_batch = self._inputs.prepare(assignment, self._rank, "embedding", strength=0, seed=())
        return PreparedStep(batch, assignment, rank_batch)


def random_embedder(width: int) -> stock.Embedder:
    """The random Qwen2-VL of the other benchmarks, or one as deep and wider."""
    stock.SHAPE.update(
        hidden_size=width,
        intermediate_size=4 * width,
        num_attention_heads=width // 64,
        num_key_value_heads=width // 128,
    )
    return stock.random_embedder()


Owners = list[int]
"""The rank that encodes each row of a batch: its queries, then its candidates."""


def in_halves(batch: Batch, ranks: int) -> Owners:
    """Equally many items to each rank, in their order."""
    items = len(batch.rows) + len(batch.candidates)
    return [row * ranks // items for row in range(items)]


def in_pairs(batch: Batch, ranks: int) -> Owners:
    """Pair i to rank i modulo `ranks`, as a DistributedSampler deals them; a document to the first who brings it."""
    first = {column: place for place, column in reversed(batch.own_candidates.tolist())}
    places = [*range(len(batch.rows)), *(first[column] for column in range(len(batch.candidates)))]
    return [place % ranks for place in places]


def shared_by(owners: Owners, whole: RankAssignment) -> RankAssignment:
    """The rows of one rank shared out; within a rank they keep their order."""
    (order,) = whole.rows_per_rank
    rows_per_rank = (tuple(row for row in order if owners[row] == rank) for rank in range(max(owners) + 1))
    return replace(whole, rows_per_rank=tuple(rows_per_rank))


OWNERS: dict[str, Callable[[Batch, int], Owners] | None] = {"balanced": None, "halves": in_halves, "pairs": in_pairs}


class DeepSpeed:
    """The trainer's own gradients and engine."""

    separate = True
    """Whether the update starts when the gradients are there."""

    def __init__(self, model: ContrastiveModel, phase: PhaseConfig, config: TrainingConfig) -> None:
        self._model, self._phase, self._config = model, phase, config
        parts = {
            "text": list(model.embedder.text_parameters()),
            "vision": list(model.embedder.vision_parameters()),
            "temperature": [model.log_temperature],
        }
        self._engine = engines.start_engine(model, parts, phase, config)
        engines.set_learning_rates(self._engine, engines.peak_learning_rates(phase, config))

    def gradients(self, step: PreparedStep, rank: int) -> Tensor:
        self._found, sums = batch_gradients(self._model, step, self._phase, self._config, rank)
        return sums

    def optimizer_step(self) -> None:
        engines.optimizer_step(self._engine, self._found)


class Plain:
    """Gradients as above; then plain PyTorch: averaged by DDP in one backward, clipped, AdamW."""

    separate = True

    def __init__(self, model: ContrastiveModel, phase: PhaseConfig, config: TrainingConfig) -> None:
        self._model, self._phase, self._config = model, phase, config
        self._parameters = list(model.embedder.text_parameters())
        for parameter in self._parameters:
            parameter.requires_grad_()
        settings = config.optimizer
        matrices, vectors = ([one for one in self._parameters if (one.ndim > 1) is wide] for wide in (True, False))
        self._optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": vectors, "weight_decay": 0.0}],
            lr=phase.text_learning_rate,
            betas=(settings.beta1, settings.beta2),
            eps=settings.epsilon,
            fused=True,
        )
        self._shared = self._wrapped()

    def gradients(self, step: PreparedStep, rank: int) -> Tensor:
        self._found, sums = batch_gradients(self._model, step, self._phase, self._config, rank)
        return sums

    def optimizer_step(self) -> None:
        if dist.get_world_size() > 1:
            self._shared(self._found).backward()
        else:
            for parameter, gradient in zip(self._parameters, self._found, strict=True):
                parameter.grad = gradient
        self.apply()

    def apply(self) -> None:
        norm = nn.utils.clip_grad_norm_(self._parameters, self._config.optimizer.max_grad_norm)
        float(norm)  # it is reported
        self._optimizer.step()
        self._optimizer.zero_grad()

    def _wrapped(self) -> nn.Module:
        return in_ddp(Handed(self._model, self._parameters))


class PlainBackward(Plain):
    """Plain PyTorch from the texts on: one graph of all micro-batches, whose backward DDP sees and overlaps."""

    separate = False

    def gradients(self, step: PreparedStep, rank: int) -> Tensor:
        rank_batch = step.rank_batch
        scale = self._model.scale()
        loss = GlobalLoss(step.batch, step.assignment, rank_batch.rows, rank, self._config.loss, scale)
        self._shared(rank_batch.micro_batches, loss).backward()
        return loss.sums.loss.detach()[None]

    def optimizer_step(self) -> None:
        self.apply()

    def _wrapped(self) -> nn.Module:
        return in_ddp(Whole(self._model))


UPDATES: dict[str, Callable[[ContrastiveModel, PhaseConfig, TrainingConfig], Any]] = {
    "deepspeed": DeepSpeed,
    "plain": Plain,
    "plain-backward": PlainBackward,
}


def in_ddp(module: nn.Module) -> nn.Module:
    """The module whose backward averages gradients; on one rank there is nothing to average."""
    if dist.get_world_size() == 1:
        return module
    return DistributedDataParallel(module, forward_sync_buffers=False, gradient_as_bucket_view=True)


class Handed(nn.Module):
    """A scalar whose gradients are known, as DDP wants a forward."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        super().__init__()
        self.model, self._own = model, parameters

    def forward(self, gradients: Gradients) -> Tensor:
        return Given.apply(gradients, *self._own)


class Given(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        ctx.gradients = gradients
        return parameters[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        return None, *ctx.gradients


class Whole(nn.Module):
    """The loss of one rank's micro-batches with all of their graphs."""

    def __init__(self, model: ContrastiveModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, micro_batches: Sequence[Any], loss: GlobalLoss) -> Tensor:
        return loss(torch.cat([self.model(one, "embedding") for one in micro_batches]))
