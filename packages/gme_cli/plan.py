"""`gme plan --gpus`: an estimate of memory, time, cost and storage of training, as a table or as JSON.

Prints what `gme_training.planning` computes; has no formula of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from gme_cli.options import PipelineOptions, print_json, say

if TYPE_CHECKING:
    from gme_embedder.costs import Architecture
    from gme_training.config import TrainingConfig
    from gme_training.planning.stage_estimate import StageEstimate
    from gme_training.planning.stage_load import TrainingSetup
    from gme_training.planning.workload import StageAssumptions

_GIB, _MILLION = 2**30, 1e6
_ATLAS_TASK_TYPES = {
    "pictograph": "I->I",
    "pictograph-name": "T->I",
    "pictograph-edit": "IT->I",
    "flag": "I->I",
    "flag-description": "T->I",
    "flag-map": "IT->I",
    "imagined-flag": "I->I",
    "imagined-flag-description": "T->I",
    "imagined-flag-question": "IT->T",
    "imagined-flag-question-illustrated": "IT->IT",
    "imagined-illustrated-question": "T->IT",
}
"""Source -> task type of the examples of Atlas; `gme_synthesis` has a table of those that it makes."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class Hardware:
    """Assumptions about devices and data of an estimate of training."""

    gpus: str | None = None
    """Plan training on these devices, such as 8xA100-80G, instead of saying what the next run would do."""
    tokens_per_text: float = 100
    """Tokens of an average text; shorter texts take less time, memory is planned for the longest."""
    tokens_per_picture: float = 252
    """Visual tokens of an average picture (the mean of UMRB's), within the limits of the stage."""
    mfu: float = 0.35
    """Share of the peak speed that is reached; large dense models reach 0.4 to 0.55 on A100s, small batches less."""
    overhead_gib: float = 3.0
    """Memory of each device for CUDA's context, NCCL's buffers and fragmentation, in GiB."""
    dollars_per_gpu_hour: float | None = None
    """Price of a device; without it no cost is given."""


def show_hardware(pipeline: PipelineOptions, hardware: Hardware, *, json: bool) -> None:
    """Prints the estimate for both stages.

    Raises:
        FoundryError: The accelerator or the model's shapes are unknown, or a share is out of range.
    """
    from gme_training.planning.accelerators import parse_fleet
    from gme_training.planning.stage_estimate import estimate_stage, stage_architecture
    from gme_training.planning.stage_load import TrainingSetup

    config = pipeline.pipeline()
    count, device = parse_fleet(hardware.gpus or "")
    setup = TrainingSetup(stage_architecture(config.stage_1), count, device, _assumptions(hardware))
    # Stage 2 trains the model of stage 1, whatever its own section says, so both have one architecture.
    stages = {"stage_1": config.stage_1, **({"stage_2": config.stage_2} if config.stage_2 else {})}
    plans = {name: estimate_stage(stage, setup) for name, stage in stages.items()}
    if json:
        print_json(_as_dict(config.name, setup, plans))
        return
    peak = device.peak(autocast=config.stage_1.autocast) / 1e12
    say(f"{config.name} on {count} x {device.name}: {device.memory / _GIB:.1f} GiB and {peak:.0f} TFLOP/s each")
    for name, plan in plans.items():
        say("")
        for line in _table(name, stages[name], plan, setup):
            say(line)
    say("")
    say(_footer(hardware))


def task_types() -> dict[str, str]:
    """Returns the task type of the examples of each of our sources; of two directions one, for both cost the same."""
    from gme_synthesis.corpus import atlas, recipes
    from gme_synthesis.public.registry import public_sets

    public = {
        public_set.name: public_set.task_types[0]
        for public_set in public_sets().values()
        if len(public_set.task_types) == 1
    }
    return (
        _ATLAS_TASK_TYPES | public | {recipe.source: recipe.task_type for recipe in (*recipes.RECIPES, *atlas.RECIPES)}
    )


def _assumptions(hardware: Hardware) -> StageAssumptions:
    from gme_data.errors import FoundryError
    from gme_training.planning.workload import StageAssumptions

    if not 0 < hardware.mfu <= 1:
        raise FoundryError(f"--mfu {hardware.mfu}: expected a share above 0 and up to 1.")
    for name in ("tokens_per_text", "tokens_per_picture"):
        if getattr(hardware, name) <= 0:
            raise FoundryError(f"--{name.replace('_', '-')} {getattr(hardware, name)}: expected a number above 0.")
    return StageAssumptions(
        text=hardware.tokens_per_text,
        picture=hardware.tokens_per_picture,
        utilisation=hardware.mfu,
        overhead=hardware.overhead_gib * _GIB,
        task_types=task_types(),
        dollars=hardware.dollars_per_gpu_hour,
    )


def _table(name: str, stage: TrainingConfig, plan: StageEstimate, setup: TrainingSetup) -> Iterator[str]:
    yield f"{name}: {_recipe(stage, setup.architecture)}"
    yield f"  {_verdict(plan)}"
    if stage.ranks != setup.count:
        yield f"  The file says ranks: {stage.ranks}; train with --set {name}.ranks={setup.count}."
    yield from ("", _row("parameters, millions", "all", "trained"))
    for part, (every, trained) in plan.by_part.items():
        yield _row(f"  {part}", f"{every / _MILLION:,.2f}", f"{trained / _MILLION:,.2f}")
    total = plan.parameters
    yield _row("  together", f"{total.total / _MILLION:,.2f}", f"{total.trained / _MILLION:,.2f}")
    yield from ("", _row("memory of a GPU, GiB", "backward", "optimizer"))
    for term, (backward, optimizer_step) in _terms(plan).items():
        yield _row(f"  {term}", f"{backward / _GIB:.2f}", f"{optimizer_step / _GIB:.2f}")
    yield from ("", *_limits(stage, plan), "", *_work(plan), "", *_disk(plan), "", *_changes(name, plan))


def _recipe(stage: TrainingConfig, shape: Architecture) -> str:
    model = stage.base.model if stage.base else "the tiny model"
    half = "bfloat16" if stage.autocast else "float32"
    text = f"LoRA of rank {stage.lora.rank}" if stage.lora else "full fine-tuning"
    return f"{model} ({shape.parameters / 1e9:.2f} B), {text}, ZeRO {stage.zero_stage}, {half}"


def _verdict(plan: StageEstimate) -> str:
    longest, average, capacity = plan.longest_peak / _GIB, plan.average_peak / _GIB, plan.capacity / _GIB
    numbers = f"{longest:.1f} of {capacity:.1f} GiB with the longest items, {average:.1f} with average ones"
    if plan.fits:
        return f"FITS: {numbers}."
    return f"{'DOES NOT FIT' if average > capacity else 'MAY NOT FIT'}: {numbers}."


def _terms(plan: StageEstimate) -> dict[str, tuple[float, float]]:
    backward, optimizer_step = plan.memory.backward, plan.memory.optimizer_step
    names = {
        "weights": "weights",
        "optimizer states": "optimizer",
        "gradients": "gradients",
        "DeepSpeed's buffers": "buffers",
        "graphs of micro-batches": "graphs",
        "working memory of a layer": "working",
        "visual tokens": "features",
        "vectors of the batch": "vectors",
        "overhead (assumed)": "overhead",
        "together": "total",
    }
    return {term: (getattr(backward, field), getattr(optimizer_step, field)) for term, field in names.items()}


def _limits(stage: TrainingConfig, plan: StageEstimate) -> Iterator[str]:
    yield "limits"
    graph = f"{plan.memory.graph / _GIB:.1f} GiB a graph, {plan.memory.retained} kept"
    yield _row(
        "  micro-batch, tokens",
        f"{plan.limits.micro_batch:,}",
        f"micro_batch_tokens is {stage.gradient_cache.micro_batch_tokens:,}; {graph}",
    )
    yield _row("  pairs, all graphs kept", f"{plan.limits.retained:,}", "a step, average items; retained_mib large")
    yield _row("  pairs, each encoded twice", f"{plan.limits.cached:,}", "a step, average items; retained_mib 0")


def _work(plan: StageEstimate) -> Iterator[str]:
    flops, steps = plan.flops, plan.steps
    yield _row("work, PFLOP", "a step", "all steps")
    terms = {
        "forward": flops.forward,
        "backward": flops.backward,
        "encoded again": flops.second_forward,
        "layers recomputed": flops.recomputed,
        "together": flops.total,
    }
    for term, flop in terms.items():
        yield _row(f"  {term}", f"{flop / steps / 1e15:,.3f}", f"{flop / 1e15:,.0f}")
    yield ""
    cost = "" if plan.dollars is None else f", {plan.dollars:,.2f} dollars"
    what = f"{steps:,} steps, {plan.pairs:,.0f} pairs, {plan.tokens / _MILLION:,.0f} M tokens"
    yield f"time: {plan.hours:.2f} hours for {what}{cost}"


def _disk(plan: StageEstimate) -> Iterator[str]:
    disk = plan.storage
    yield (
        f"disk: checkpoints {disk.checkpoints / _GIB:.2f} GiB ({disk.checkpoint / _GIB:.2f} each), "
        f"model {disk.model / _GIB:.1f} GiB, data about {disk.data / _GIB:.1f} GiB"
    )


def _changes(name: str, plan: StageEstimate) -> Iterator[str]:
    yield "what would change it"
    for alternative in plan.alternatives:
        sets = " ".join(
            f"--set {name}.{field}={str(value).lower() if isinstance(value, bool) else value}"
            for field, value in alternative.changes.items()
        )
        fits = "fits" if alternative.fits else "does not fit"
        yield f"  {alternative.peak / _GIB:6.1f} GiB {alternative.hours:8.2f} h  {fits:<12}  {sets}"


def _row(term: str, first: str, second: str) -> str:
    # Numbers are aligned to the right; a text that is longer than the column starts in it.
    narrow = second if len(second) > 12 else f"{second:>12}"
    return f"{term:<30}{first:>12}  {narrow}"


def _footer(hardware: Hardware) -> str:
    lengths = f"{hardware.tokens_per_text:g} tokens a text, {hardware.tokens_per_picture:g} a picture"
    speed = f"{hardware.mfu:.0%} of the peak speed, {hardware.overhead_gib:g} GiB overhead"
    return f"Assumed: {lengths}, {speed}.\nFormulae and what was measured: docs/planning.md."


def _as_dict(name: str, setup: TrainingSetup, plans: dict[str, StageEstimate]) -> dict[str, object]:
    stages = {}
    for stage, plan in plans.items():
        fields = asdict(plan)
        for peak in ("backward", "optimizer_step"):
            fields["memory"][peak]["total"] = getattr(plan.memory, peak).total
        fields["flops"]["total"] = plan.flops.total
        fields["parameters"] |= {"trained": plan.parameters.trained, "total": plan.parameters.total}
        stages[stage] = {"fits": plan.fits, **fields}
    devices = {"gpus": setup.count, "accelerator": asdict(setup.accelerator)}
    return {"name": name, **devices, "assumptions": asdict(setup.assumptions), "stages": stages}
