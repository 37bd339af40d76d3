"""`gme umrb plan`: estimate what scoring a model on the benchmark takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gme_cli.options import print_json, say

if TYPE_CHECKING:
    from umrb.estimates import Saving, SuiteEstimate
    from umrb.registry import Dataset
    from umrb.suite import SuiteConfig


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """Options that choose a part of the benchmark."""

    suite: Annotated[str, Parameter(name=["--suite", "-s"])] = "umrb"
    """umrb, umrb-partial, retrieval-page or mmeb."""
    datasets: Annotated[tuple[str, ...], Parameter(name=["--dataset", "-d"], negative="")] = ()
    """Some datasets of it, by id or printed name; may be repeated."""

    tasks: Path | None = None
    """A folder of tasks in the shape of Atlas' tasks (task.yaml and three tables each), instead of a suite."""

    def select(self) -> tuple[Dataset, ...]:
        """Returns the datasets.

        Raises:
            FoundryError: A name is unknown; the message suggests another.
        """
        return self.suite_config(Path()).chosen()

    def suite_config(self, output: Path) -> SuiteConfig:
        """Returns the configuration of the suite, with the defaults of a run."""
        from umrb.suite import SuiteConfig

        return SuiteConfig(suite=self.suite, datasets=self.datasets, tasks=self.tasks, output=output)


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class FleetOptions:
    """Devices and model of the estimate."""

    gpus: str = "8xA100-80G"
    """Devices, such as 8xA100-80G."""
    mfu: float = 0.4
    """Share of the peak speed that is reached."""
    shapes: str = "Alibaba-NLP/gme-Qwen2-VL-7B-Instruct"
    """Model folder or published name whose shapes are planned for."""


def show_estimate(options: SuiteOptions, fleet: FleetOptions, output: Path, *, json: bool) -> None:
    """Prints the estimate, as a table or as JSON."""
    from gme_data.errors import FoundryError
    from gme_embedder.costs import architecture_of
    from gme_training.planning.accelerators import parse_fleet
    from umrb.estimates import estimate_suite

    if not 0 < fleet.mfu <= 1:
        raise FoundryError(f"--mfu {fleet.mfu}: expected a share above 0 and up to 1.")
    config = options.suite_config(output)
    datasets = config.chosen()
    count, device = parse_fleet(fleet.gpus)
    estimate = estimate_suite(
        datasets,
        architecture_of(fleet.shapes),
        devices=count,
        speed=fleet.mfu * device.peak(autocast=True),
        done=_finished_tasks(config, fleet.shapes),
        cached=_stored_contents(config, fleet.shapes),
    )
    if json:
        print_json({"suite": config.label, "fleet": asdict(fleet), **asdict(estimate)})
        return
    say(f"{config.label} with {fleet.shapes} on {fleet.gpus} at {fleet.mfu:.0%} of the peak speed")
    for line in (*_task_lines(estimate), "", *_sum_lines(estimate), "", *_saving_lines(estimate.savings, count), ""):
        say(line)
    say(f"{estimate.hours:.2f} hours, {estimate.device_hours:.1f} GPU-hours{_paper_hours(config)}.")


def _finished_tasks(config: SuiteConfig, model: str) -> list[str]:
    """Returns the tasks with a result of the model, of any revision, by the default options of `gme umrb run`."""
    # `gme umrb run` names a model folder so where --name is not given.
    name = f"local/{Path(model).name}" if Path(model).is_dir() else model
    folder = config.home / "results" / name.replace("/", "__")
    # mteb writes model_meta.json beside the results.
    return sorted({path.stem for path in folder.glob("*/*.json")} - {"model_meta"})


def _stored_contents(config: SuiteConfig, model: str) -> dict[str, tuple[int, int]]:
    """Returns the contents whose vectors the model has stored, by the default options of `gme umrb run`."""
    if not (Path(model).is_dir() and (config.output / "vectors").is_dir()):
        return {}
    from gme_embedder.model_files.identity import model_digest
    from umrb.suite import cached_contents
    from umrb.systems.models import ModelOptions, encoder_digest

    return cached_contents(config, encoder_digest(model_digest(Path(model)), ModelOptions()))


def _task_lines(estimate: SuiteEstimate) -> Iterator[str]:
    width = max(len(task.task) for task in estimate.tasks)
    yield (
        f"{'task':<{width}} {'type':<14} {'queries':>8} {'documents':>10} {'there':>10} {'M tokens':>9} {'TFLOP':>11}"
    )
    for task in estimate.tasks:
        tokens = 0.0 if task.done else sum((side.distinct - side.reused) * side.length for side in task.sides)
        documents = f"{task.docs.items:,}" if task.docs.items else "?"
        yield (
            f"{task.task:<{width}} {task.task_type:<14} {task.queries.items:>8,} {documents:>10} "
            f"{task.docs.reused:>10,} {tokens / 1e6:>9,.1f} {estimate.flop[task.task] / 1e12:>11,.0f}"
            + ("  done" if task.done else "")
        )


def _sum_lines(estimate: SuiteEstimate) -> Iterator[str]:
    items = sum(side.items for task in estimate.tasks for side in task.sides)
    size = estimate.vectors_bytes / 2**30
    yield (
        f"{items:,} items, {estimate.tokens / 1e9:.2f} G tokens; {size:,.1f} GiB of vectors, half with --store float16"
    )
    unknown = sum(not task.docs.items for task in estimate.tasks)
    if unknown:
        yield f"Nobody publishes how many documents {unknown} of the tasks have: theirs are not counted."


def _saving_lines(savings: tuple[Saving, ...], devices: int) -> Iterator[str]:
    yield f"{'from the stock way to ours':<46} {'EFLOP':>9} {'GPU-hours':>10} {'saved':>7}"
    before = 0.0
    for step in savings:
        saved = f"{1 - step.flop / before:>7.1%}" if before else ""
        yield f"{step.name:<46} {step.flop / 1e18:>9.4g} {step.hours * devices:>10.1f} {saved}".rstrip()
        before = step.flop


def _paper_hours(config: SuiteConfig) -> str:
    from umrb.estimates import PAPER_HOURS

    paper = PAPER_HOURS.get(config.label)
    return f"; the paper states {paper:.0f} A100 hours for GME-7B" if paper and not config.datasets else ""
