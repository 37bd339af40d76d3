"""The DeepSpeed engine: its configuration, generated, and one engine per phase.

The same code runs on one process or many, on CPU over gloo or on GPUs over NCCL. Knows parameters and rates, not data.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from gme_training.config import PhaseConfig, TrainingConfig
from gme_training.devices import rank_device
from gme_training.losses.gradient_cache import Gradients


def connect() -> None:
    """Join the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe."""
    # DeepSpeed asks for MPI when a single process has no launcher; with these set it does not.
    os.environ.setdefault("LOCAL_RANK", os.environ.get("RANK", "0"))
    device = rank_device()
    if device == "cuda":  # before any collective: those of objects take the current device, which is the first for all
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would take a GPU that is there
    deepspeed = import_deepspeed()
    from deepspeed.ops import __compatible_ops__ as compatible_ops

    # The shared-memory collectives are compiled at first use: minutes, and a kill meanwhile blocks every later run.
    compatible_ops["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False
    )


def import_deepspeed() -> Any:  # noqa: ANN401 - DeepSpeed has no types
    """DeepSpeed, without the MLflow that its autotuner, which is not used here, would import for seconds."""
    hidden = "mlflow" not in sys.modules
    if hidden:
        sys.modules["mlflow"] = None  # type: ignore[assignment] # how import is told that there is none
    try:
        import deepspeed
    finally:
        if hidden:
            del sys.modules["mlflow"]
    return deepspeed


def disconnect() -> None:
    """Leave the process group, all ranks together.

    Left to the end of the interpreter, a thread of gloo may outlive what it works on, and abort the process.
    """
    dist.barrier()
    dist.destroy_process_group()


def engine_config(config: TrainingConfig) -> dict[str, Any]:
    """The DeepSpeed JSON of a stage.

    A batch is shared out by the number of its tokens, so DeepSpeed's own notion of a micro-batch is set to 1 and only
    scales its logs. Weights stay in float32; the autocast to bfloat16 is the model's.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.clip,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": rank_device() == "cuda",
            "contiguous_gradients": True,
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
        "checkpoint": {"tag_validation": "FAIL"},
        "wall_clock_breakdown": False,
    }


def start_engine(
    model: nn.Module, parts: dict[str, list[nn.Parameter]], phase: PhaseConfig, config: TrainingConfig
) -> Any:  # noqa: ANN401 - DeepSpeed has no types
    """An engine with a fresh optimizer over the parts that `phase` trains; the others are frozen.

    Args:
        model: What is trained.
        parts: Its parameters by part, ``text``, ``vision`` and ``temperature``; anything else stays as it is.
        phase: Rates.
        config: The stage.
    """
    import deepspeed

    rates = peak_rates(phase, config)
    for name, parameters in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(rates[name] > 0)
            parameter.grad = None
    groups = [group for name in parts if rates[name] for group in _groups(name, parts[name], config)]
    optimizer = torch.optim.AdamW(
        groups,
        lr=1.0,
        betas=(config.optimizer.beta1, config.optimizer.beta2),
        eps=config.optimizer.epsilon,
        fused=config.zero_stage == 0,
    )
    return deepspeed.initialize(model=model, optimizer=optimizer, config=engine_config(config))[0]


def peak_rates(phase: PhaseConfig, config: TrainingConfig) -> dict[str, float]:
    """Peak learning rate of each part."""
    return {
        "text": phase.text_learning_rate,
        "vision": phase.vision_learning_rate,
        "temperature": config.loss.temperature_learning_rate,
    }


def set_rates(engine: Any, rates: dict[str, float]) -> None:  # noqa: ANN401
    """Give each parameter group the rate of its part."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rates[group["part"]]


def _groups(name: str, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    matrices = [p for p in parameters if p.ndim > 1]
    vectors = [p for p in parameters if p.ndim <= 1]
    decay = config.optimizer.weight_decay
    groups = [
        {"params": matrices, "weight_decay": decay, "part": name},
        {"params": vectors, "weight_decay": 0.0, "part": name},
    ]
    return [group for group in groups if group["params"]]


def descend(engine: Any, gradients: Gradients) -> float:  # noqa: ANN401
    """One optimizer step from each rank's gradients of `engine.module.trained()`; the norm of their mean, not clipped.

    The engine sees one backward a step, in which every parameter gets its gradient on every rank: what a part of the
    batch did not reach counts as zero. So ranks always reduce the same tensors in the same order, at whatever stage of
    ZeRO, however many micro-batches each of them had.
    """
    parameters = engine.module.trained()
    engine.backward(_Given.apply(gradients, *parameters))  # type: ignore[no-untyped-call]
    if engine.zero_optimization():
        engine.step()
        return float(engine.get_global_grad_norm())
    # Without ZeRO the engine clips but keeps no norm; after backward every rank holds the reduced gradient.
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    engine.step()
    return float(norm)


class _Given(torch.autograd.Function):
    """A scalar whose gradients are known."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        ctx.gradients, ctx.like = gradients, parameters
        return parameters[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        pairs = zip(ctx.gradients, ctx.like, strict=True)
        return None, *(torch.zeros_like(like) if own is None else own * scale for own, like in pairs)
