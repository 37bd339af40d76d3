"""The DeepSpeed engine: its generated configuration, and one engine for each phase.

The same code runs on one process or many, on CPU over gloo or on GPUs over NCCL. Knows parameters and learning rates;
not data.
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


def join_process_group() -> None:
    """Joins the process group that RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT describe."""
    # DeepSpeed would look for MPI if no launcher had set this, as for a single process.
    os.environ.setdefault("LOCAL_RANK", os.environ.get("RANK", "0"))
    device = rank_device()
    if device == "cuda":
        # Before any collective: those of objects use the current device, which would be the first GPU on all ranks.
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    else:
        os.environ["DS_ACCELERATOR"] = "cpu"  # DeepSpeed would use a GPU if the machine has one
    deepspeed = import_deepspeed()
    from deepspeed.ops import __compatible_ops__ as compatible_ops

    # The shared-memory collectives are compiled at first use: minutes, and a kill meanwhile blocks every later run.
    compatible_ops["deepspeed_shm_comm"] = False
    deepspeed.init_distributed(
        dist_backend="nccl" if device == "cuda" else "gloo", auto_mpi_discovery=False, verbose=False
    )


def import_deepspeed() -> Any:  # noqa: ANN401 - DeepSpeed has no types
    """Imports DeepSpeed without MLflow, which its autotuner, unused here, would import for seconds."""
    blocked = "mlflow" not in sys.modules
    if blocked:
        sys.modules["mlflow"] = None  # type: ignore[assignment] # makes `import mlflow` an ImportError
    try:
        import deepspeed
    finally:
        if blocked:
            del sys.modules["mlflow"]
    return deepspeed


def leave_process_group() -> None:
    """Leaves the process group, all ranks together.

    If it is left to the end of the interpreter, a thread of gloo may outlive what it works on, and abort the process.
    """
    dist.barrier()
    dist.destroy_process_group()


def deepspeed_config(config: TrainingConfig) -> dict[str, Any]:
    """Returns the DeepSpeed configuration of a stage.

    Micro-batches are limited by tokens, so DeepSpeed's own micro-batch size is set to 1 and only scales its logs.
    Weights stay in float32; the autocast to bfloat16 is the model's.
    """
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "gradient_clipping": config.optimizer.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": config.zero_stage,
            "overlap_comm": rank_device() == "cuda",
            "contiguous_gradients": True,
            # A tenth of DeepSpeed's default; `planning.states` has a copy for its estimates.
            "reduce_bucket_size": 50_000_000,
            "allgather_bucket_size": 50_000_000,
        },
        # All ranks must save under one tag, or a checkpoint would mix two steps.
        "checkpoint": {"tag_validation": "FAIL"},
        "wall_clock_breakdown": False,
    }


def start_engine(
    model: nn.Module, parts: dict[str, list[nn.Parameter]], phase: PhaseConfig, config: TrainingConfig
) -> Any:  # noqa: ANN401 - DeepSpeed has no types
    """Returns an engine with a fresh optimizer over the parts that `phase` trains; the other parts are frozen.

    Args:
        model: The model.
        parts: Its parameters by part, ``text``, ``vision`` and ``temperature``; those of no part are left as they are.
        phase: The phase, with its learning rates.
        config: The stage.
    """
    import deepspeed

    rates = peak_learning_rates(phase, config)
    for name, parameters in parts.items():
        for parameter in parameters:
            parameter.requires_grad_(rates[name] > 0)
            parameter.grad = None
    groups = [group for name in parts if rates[name] for group in _parameter_groups(name, parts[name], config)]
    optimizer = torch.optim.AdamW(
        groups,
        lr=1.0,  # `set_learning_rates` sets those of every step
        betas=(config.optimizer.beta1, config.optimizer.beta2),
        eps=config.optimizer.epsilon,
        fused=config.zero_stage == 0,
    )
    return deepspeed.initialize(model=model, optimizer=optimizer, config=deepspeed_config(config))[0]


def peak_learning_rates(phase: PhaseConfig, config: TrainingConfig) -> dict[str, float]:
    """Returns the peak learning rate of each part."""
    return {
        "text": phase.text_learning_rate,
        "vision": phase.vision_learning_rate,
        "temperature": config.loss.temperature_learning_rate,
    }


def set_learning_rates(engine: Any, rates: dict[str, float]) -> None:  # noqa: ANN401
    """Sets the learning rate of each parameter group to that of its part."""
    for group in engine.optimizer.param_groups:
        group["lr"] = rates[group["part"]]


def _parameter_groups(part: str, parameters: Iterable[nn.Parameter], config: TrainingConfig) -> list[dict[str, Any]]:
    """Splits the parameters of a part into matrices, which have weight decay, and vectors, which have none."""
    parameters = list(parameters)
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim > 1],
            "weight_decay": config.optimizer.weight_decay,
            "part": part,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim <= 1], "weight_decay": 0.0, "part": part},
    ]
    return [group for group in groups if group["params"]]


def optimizer_step(engine: Any, gradients: Gradients) -> float:  # noqa: ANN401
    """Takes one optimizer step from each rank's gradients of `engine.module.trained()`.

    The engine sees one backward a step, in which every parameter gets its gradient on every rank: a parameter on which
    this rank's part of the loss does not depend gets zeros. So ranks always reduce the same tensors in the same order,
    at any ZeRO stage, however many micro-batches each of them had.

    Returns:
        The L2 norm of the mean of the ranks' gradients, before clipping.
    """
    parameters = engine.module.trained()
    engine.backward(_InjectGradients.apply(gradients, *parameters))  # type: ignore[no-untyped-call]
    if engine.zero_optimization():
        engine.step()
        return float(engine.get_global_grad_norm())
    # Without ZeRO the engine clips but does not store the norm; after backward every rank has the reduced gradient.
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    engine.step()
    return float(norm)


class _InjectGradients(torch.autograd.Function):
    """Returns a scalar whose backward gives the parameters gradients that were computed elsewhere."""

    @staticmethod
    def forward(ctx: Any, gradients: Gradients, *parameters: Tensor) -> Tensor:  # noqa: ANN401
        ctx.gradients, ctx.parameters = gradients, parameters
        return parameters[0].new_zeros(())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        # `scale` is what the engine multiplied the loss by.
        pairs = zip(ctx.gradients, ctx.parameters, strict=True)
        return None, *(
            torch.zeros_like(parameter) if gradient is None else gradient * scale for gradient, parameter in pairs
        )
