"""Batches of all kinds and the gradients that a rank computes of them: ``python -m support.gradient_cases FOLDER``."""

from __future__ import annotations

import copy
import sys
import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from safetensors.torch import save_file
from support.catalogs import catalog_of
from support.shapes import make_examples
from torch import Tensor, nn

from gme_data.examples import Example
from gme_data.images import ImageStore
from gme_data.items import Item
from gme_embedder.config import ModelConfig, TowerConfig
from gme_embedder.embedder import Embedder
from gme_embedder.processing.prepare import Preparer
from gme_training.config import (
    DistillConfig,
    GradientCacheConfig,
    LoraConfig,
    LossConfig,
    PhaseConfig,
    SourceShare,
    TrainingConfig,
)
from gme_training.data.batches import BatchSampler
from gme_training.data.example_index import save_arrays
from gme_training.losses.objective import batch_gradients, prepare_step
from gme_training.losses.teachers import TEACHERS, TeacherVectors, teacher_of
from gme_training.model.contrastive import ContrastiveModel, InputMaker
from gme_training.model.lora import add_adapters

MODEL = ModelConfig(text_layers=2, tower=TowerConfig(depth=1, width=64, heads=2))
WHOLE = GradientCacheConfig(micro_batch_tokens=10**6, retained_mib=4096)
"""One micro-batch as large as can be, its graph kept: the plain full batch."""
CASES = {
    "texts": {"source": "question"},
    "texts-4-negatives": {"source": "question", "negatives": 4},
    "pictures": {"source": "shape"},
    "mixed": {"source": "mixed", "negatives": 4},
    "frozen-tower": {"source": "mixed", "negatives": 4, "vision": 0.0},
    "lora": {"source": "mixed", "negatives": 4, "lora": LoraConfig(rank=4)},
    "one-pair": {"source": "question", "batch_size": 1},
    "in-batch": {"source": "mixed", "negatives": 2, "loss": LossConfig(negatives="own", hardness_strength=1.0)},
    "distilled-texts": {"source": "question", "distill": DistillConfig(weight=2.0, temperature=0.2)},
    "distilled-names": {"source": "shape-name", "distill": DistillConfig(temperature=0.2)},
    "learned-temperature": {"source": "shape", "loss": LossConfig(symmetric=True, temperature_learning_rate=0.1)},
}


def mixed_examples(examples: list[Example]) -> list[Example]:
    """Texts, pictures, and texts with pictures, all of one source, as queries, positives and negatives."""
    shapes = [one for one in examples if one.source == "shape"]
    questions = [one for one in examples if one.source == "question"]
    made = []
    for number, (shape, question) in enumerate(zip(shapes, questions, strict=False)):
        fused = Item(text=question.query.text, image=shape.query.image)
        query = (fused, question.query, shape.query)[number % 3]
        positive = (question.positive, shape.positive, Item(question.positive.text, shape.positive.image))[number % 3]
        made.append(replace(question, id=f"mixed-{number}", source="mixed", query=query, positive=positive))
    return made


@cache
def catalog_of_all():
    examples, _ = make_examples()
    examples = [*examples, *mixed_examples(examples)]
    by_source = {one.source: [other.positive for other in examples if other.source == one.source] for one in examples}
    with_negatives = []
    for number, one in enumerate(examples):
        others = [item for item in by_source[one.source] if item != one.positive]
        with_negatives.append(replace(one, negatives=tuple(others[(number * 5 + k) % len(others)] for k in range(4))))
    return catalog_of(with_negatives)


@cache
def any_teachers() -> TeacherVectors:
    """Teachers whose vectors are random; what is learned from them does not depend on how they are made."""
    items, chance = catalog_of_all().items, np.random.default_rng(3)
    with tempfile.TemporaryDirectory() as folder:
        for kind in TEACHERS:
            vectors = chance.normal(size=(len(items), 5))
            row = [number if teacher_of(item) == kind else -1 for number, item in enumerate(items)]
            unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
            save_arrays(Path(folder), **{f"{kind}_row": np.array(row, dtype=np.int32), f"{kind}_vectors": unit})
        return TeacherVectors(Path(folder))


@cache
def untrained(seed: int) -> Embedder:
    return Embedder.fresh(MODEL, seed)


def model_for(case: dict[str, object], config: TrainingConfig, seed: int = 3) -> tuple[ContrastiveModel, Preparer]:
    embedder = copy.deepcopy(untrained(seed).model)
    embedder.checkpointed = bool(case.get("checkpointed"))
    model = ContrastiveModel(embedder, autocast=False, temperature=config.loss.temperature)
    model.requires_grad_(False)
    text = list(embedder.text_parameters())
    if config.lora:
        text = add_adapters(embedder.language, config.lora, seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            for parameter in text:  # the second factor starts at zero, and with it the gradient of the first
                nn.init.normal_(parameter, 0, 0.05)
    trained = [*text, *(embedder.vision_parameters() if case.get("vision", 1.0) else ())]
    if config.loss.temperature_learning_rate:
        trained.append(model.log_temperature)
    for parameter in trained:
        parameter.requires_grad_()
    model.train()
    return model, untrained(seed).preparer


def gradients(
    name: str, cache_config: GradientCacheConfig, images: Path, rank: int = 0, ranks: int = 1, **changes: object
) -> dict[str, Tensor]:
    """The mean over the ranks of the gradients of a case, by name of the parameter; and the loss."""
    case = {**CASES[name], **changes}
    share = SourceShare(
        source=str(case["source"]),
        batch_size=int(case.get("batch_size", 12)),
        num_negatives=int(case.get("negatives", 0)),
        grouped=0,
    )
    phase = PhaseConfig(
        name="p",
        steps=1,
        mixture=(share,),
        vision_learning_rate=float(case.get("vision", 1e-3)),
        distill=case.get("distill"),
    )
    config = TrainingConfig(
        phases=(phase,),
        loss=case.get("loss", LossConfig()),
        gradient_cache=cache_config,
        lora=case.get("lora"),
        autocast=False,
    )
    model, preparer = model_for(case, config)
    inputs = InputMaker(preparer, ImageStore([images]), config.gradient_cache.micro_batch_tokens)
    catalog = catalog_of_all()
    batch = BatchSampler(catalog, phase, number=0, seed=5).batch(0)
    torch.manual_seed(11)
    teachers = any_teachers() if phase.distill else None
    step = prepare_step(inputs, catalog, batch, phase.objective, rank, ranks, teachers)
    found, sums = batch_gradients(model, step, phase, config, rank)
    names = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    whole = {
        # A rank without pictures has no gradient of the patches; gloo adds what lies in memory, so it must lie alike.
        name: torch.zeros_like(parameter) if one is None else one.contiguous()
        for name, one, parameter in zip(names, found, model.trained(), strict=True)
    }
    whole["loss"] = sums[0] / len(batch.rows) * ranks
    if ranks > 1:
        for one in whole.values():
            dist.all_reduce(one)
    return {name: (one / ranks).contiguous() for name, one in whole.items()}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-4, atol=1e-6, msg=lambda text, n=name: f"{n}: {text}")


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, ranks = dist.get_rank(), dist.get_world_size()
    for name in CASES:
        found = gradients(
            name, GradientCacheConfig(micro_batch_tokens=120, retained_mib=rank), folder / "images", rank, ranks
        )
        if rank == 0:
            save_file(found, folder / f"{name}-{ranks}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
