"""`gme umrb`: the benchmark on any model: list, plan, fetch and verify its data, run, report, compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from gme_cli.options import Common, DryRunOptions, Inputs, JsonOptions, find_model, print_inputs_note, print_json, say
from gme_cli.umrb_plan import FleetOptions, SuiteOptions, show_estimate

if TYPE_CHECKING:
    from umrb.scoring.compare import Comparison
    from umrb.scoring.runner import RunResult
    from umrb.suite import SuiteConfig

app = App(name="umrb", help="The benchmark: 47 datasets of nine task types, and the other tables of the paper's page.")
_DATA = Path("data/umrb")
_OUTPUT = Path("runs/umrb")


@Parameter(name="*")
@dataclass(frozen=True)
class SuiteFetchOptions(DryRunOptions, JsonOptions):
    """Options of `gme umrb fetch`, which needs neither pipeline nor workspace."""


_COMMON, _JSON, _FETCH = Common(), JsonOptions(), SuiteFetchOptions()
_SUITE, _FLEET = SuiteOptions(), FleetOptions()


@app.command(name="list")
def list_datasets(*, options: SuiteOptions = _SUITE, common: JsonOptions = _JSON) -> None:
    """Print a suite: its datasets with type, metric, sizes, instruction and published scores."""
    from umrb.registry import published

    datasets = options.select()
    if common.json:
        rows = [row.model_dump() for row in published()] if options.suite == "umrb" else []
        print_json(
            {"suite": options.suite, "datasets": [dataset.model_dump() for dataset in datasets], "published": rows}
        )
        return
    for dataset in datasets:
        scores = "  ".join(f"{model} {value:.2f}" for model, value in dataset.published.items())
        say(
            f"{dataset.task_type:<15} {dataset.name:<24} {dataset.metric:<15} {_number(dataset.queries):>7} of "
            f"{_number(dataset.candidates):>9}  {dataset.id:<48} {scores}".rstrip()
        )
    say(f"{len(datasets)} datasets. More by --json; licences and revisions by `gme umrb fetch --dry-run`.")


@app.command
def plan(
    *, options: SuiteOptions = _SUITE, fleet: FleetOptions = _FLEET, output: Path = _OUTPUT, common: JsonOptions = _JSON
) -> None:
    """Say what scoring a model takes, before anything is fetched: items, tokens, bytes, operations, hours.

    Parameters
    ----------
    output
        Folder of results and vectors: what a model of the same name has there is not counted again.
    """
    show_estimate(options, fleet, output, json=common.json)


def evaluate(
    *,
    suite: str | None = None,
    model: str = "champion",
    fleet: FleetOptions = _FLEET,
    data: Path = _DATA,
    output: Path = _OUTPUT,
    device: str = "cpu",
    common: Common = _COMMON,
) -> int:
    """Score the trained model on the test tasks of Atlas; with --suite, any model on one of the paper's benchmarks.

    Parameters
    ----------
    suite
        umrb, umrb-partial, retrieval-page or mmeb; `gme umrb run --help` tells all options. --dry-run plans it.
    model
        A folder, a hub name, the alias of a registered model, or mteb:NAME. With --suite only.
    data
        Folder that `gme umrb fetch` filled. With --suite only.
    output
        Folder of results, vectors and the report. With --suite only.
    device
        Where the model runs. With --suite only.
    """
    # Without a suite this is a step of the chain, and its options for suites have no meaning.
    if suite is None:
        from gme_cli.steps import run_verb

        run_verb("evaluate", common)
        return 0
    options = SuiteOptions(suite)
    if common.dry_run:
        show_estimate(options, fleet, output, json=common.json)
        return 0
    return run(options=options, model=model, data=data, output=output, device=device, common=common)


@app.command
def fetch(*, options: SuiteOptions = _SUITE, data: Path = _DATA, common: SuiteFetchOptions = _FETCH) -> None:
    """Bring the data of a suite to a folder, at pinned revisions; --dry-run lists them with their licences.

    Parameters
    ----------
    data
        The folder. It may be versioned by DVC.
    """
    from umrb.data.fetch import by_hand, repositories
    from umrb.data.fetch import fetch as run_fetch

    datasets = options.select()
    needed = repositories(datasets)
    fetched = needed if common.dry_run else run_fetch(datasets, data)
    if common.json:
        print_json({"repositories": [asdict(repository) for repository in fetched], "by_hand": by_hand(datasets)})
        return
    for repository in fetched:
        revision = (repository.revision or "newest")[:12]
        say(f"{repository.name:<55} {revision:<12}  {repository.licence:<18} {', '.join(repository.tasks)}")
    action = "would be fetched" if common.dry_run else "fetched"
    say(f"{len(fetched)} repositories {action}; {len(needed) - len(fetched)} were there.")
    for dataset, hint in by_hand(datasets).items():
        say(f"{dataset} is not fetched. {hint}")


@app.command
def verify(*, options: SuiteOptions = _SUITE, data: Path = _DATA, common: JsonOptions = _JSON) -> int:
    """Check fetched data: files as they came, ids and judgements whole, sizes as expected. Exits with 2 if not.

    Parameters
    ----------
    data
        Folder that `gme umrb fetch` filled.
    """
    from gme_data.errors import EXIT_BAD_INPUT
    from umrb.data.fetch import DataCheck
    from umrb.data.fetch import verify as run_verify

    findings = list(run_verify(options.select(), options.tasks or data))
    unusable = options.suite_config(Path()).unusable()
    findings += [DataCheck(name, checked=True, problems=(reason,)) for name, reason in unusable.items()]
    if common.json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            say(f"{'✗' if finding.problems else '✓'} {finding.task:<46} {'; '.join(finding.problems)}")
    return EXIT_BAD_INPUT if any(finding.problems for finding in findings) else 0


@app.command
def run(
    *,
    options: SuiteOptions = _SUITE,
    model: str = "champion",
    inputs: Inputs | None = None,
    name: str | None = None,
    data: Path | None = _DATA,
    output: Path = _OUTPUT,
    overwrite: Literal["only-missing", "always", "never"] = "only-missing",
    allow_defects: Annotated[bool, Parameter(negative="")] = False,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    store: Literal["float32", "float16"] = "float32",
    min_image_tokens: int | None = None,
    frames: int = 1,
    common: Common = _COMMON,
) -> int:
    """Score a model on a suite: only what is missing, each task written down as it is done, then the report.

    Several processes with the same output share the work, also under torchrun.

    Parameters
    ----------
    model
        A folder, a hub name, the alias of a registered model, or mteb:NAME for any model that mteb can load.
    inputs
        gme: make its inputs as GME's, though the folder does not say that they are, as that of Qwen2-VL itself.
    name
        owner/model under which mteb files the results.
    data
        Folder that `gme umrb fetch` filled; mteb loads what is not there.
    output
        Folder of results, run files, vectors and the report.
    overwrite
        Where a result exists: keep it, score again, or refuse to run.
    allow_defects
        Score datasets that integrity refuses; their results say so.
    device
        Where the model runs; cuda under torchrun is the rank's own.
    dtype
        Precision of the computation.
    store
        Precision of vectors on disk.
    min_image_tokens
        Instead of the model's own; the authors' benchmark runs had 4.
    frames
        Frames of a video whose vectors are averaged; 1 is the middle one.
    """
    from gme_data.errors import EXIT_BAD_INPUT
    from umrb.suite import run_suite
    from umrb.systems.models import MTEB, ModelOptions, open_model

    config = options.suite_config(output).model_copy(
        update={"data": data, "overwrite": overwrite, "allow_defects": allow_defects, "frames": frames}
    )
    config.chosen()  # refuses unknown names before a model is loaded
    if common.dry_run:
        show_estimate(options, FleetOptions(), output, json=common.json)
        return 0
    location: Path | str = model
    if not model.startswith(MTEB):
        _, location = find_model(model, common)
        print_inputs_note(location, inputs)
    settings = {"min_image_tokens": min_image_tokens, "inputs": inputs}
    changed = tuple((field, value) for field, value in settings.items() if value is not None)
    model_options = ModelOptions(device, dtype, store, frames, inputs=changed)
    opened = open_model(str(location), output / "vectors", model_options, name=name)
    scored = run_suite(config, opened.meta, opened.make)
    if os.environ.get("RANK", "0") != "0":
        return 0  # rank 0 reports for all; torchrun would end the others at a non-zero status of this rank
    _print_run(config, scored, json=common.json)
    return EXIT_BAD_INPUT if scored.refused else 0


@app.command
def report(
    results: Path, *, options: SuiteOptions = _SUITE, out: Path | None = None, common: JsonOptions = _JSON
) -> None:
    """Write the report of one model's results: report.html, report.md, scores.json, plots.

    Parameters
    ----------
    results
        Folder of the model's results, such as runs/umrb/umrb/results/MODEL/REVISION.
    out
        Where the report goes; by default into the folder `report` of the results.
    """
    from umrb.report.build import write_suite_report

    output = out or results / "report"
    scores = write_suite_report(options.suite, options.select(), results, output)
    print_json(scores.model_dump(mode="json")) if common.json else say(f"{output / 'report.html'}")


@app.command
def compare(a: Path, b: Path, *, options: SuiteOptions = _SUITE, common: JsonOptions = _JSON) -> None:
    """Compare two models query by query: differences, intervals, and which of them are significant.

    Parameters
    ----------
    a
        Folder of the first model's results, .../results/MODEL/REVISION.
    b
        Folder of the second model's results.
    """
    from umrb.scoring.compare import compare as run_compare

    comparison = run_compare(a, b, options.select())
    if common.json:
        tasks = [asdict(task) for task in comparison.tasks]
        print_json({"models": comparison.models, "wins": comparison.wins, "tasks": tasks})
        return
    for line in _comparison_lines(comparison):
        say(line)


def _print_run(config: SuiteConfig, scored: RunResult, *, json: bool) -> None:
    from umrb.report.build import write_suite_report

    report_fields: dict[str, Any] = {}
    if scored.records:
        folder = scored.folder / config.report_name
        # The report covers the whole suite: earlier runs may have scored its other datasets.
        suite = config.model_copy(update={"datasets": ()}).chosen()
        scores = write_suite_report(config.label, suite, scored.folder, folder)
        report_fields = {**scores.model_dump(mode="json"), "report": folder}
    if json:
        defects = {record.score.name: record.defects for record in scored.records if record.defects}
        print_json({"scored": scored.scored, "refused": scored.refused, "defects": defects, **report_fields})
        return
    for name, reasons in scored.refused.items():
        say(f"refused: {name}: {'; '.join(reasons)}")
    for record in scored.records:
        score = record.score
        low, high = (100 * end for end in score.interval)
        say(f"{score.name:<46} {score.metric:<15} {100 * score.value:6.2f}  [{low:.2f}, {high:.2f}]")
        if record.defects:
            say(f"  scored in spite of defects: {'; '.join(record.defects)}")
    say(f"{len(scored.scored)} tasks scored, {len(scored.records)} of the suite have a result.")
    if report_fields:
        say(f"Report: {report_fields['report'] / 'report.html'}")


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _comparison_lines(comparison: Comparison) -> Iterator[str]:
    first, second = comparison.models
    yield f"A {first}\nB {second}"
    yield f"{'task':<46} {'metric':<15} {'A':>7} {'B':>7} {'B - A':>7}  {'95 %':<18} {'p':>7}"
    for task in comparison.tasks:
        low, high = (100 * end for end in task.interval)
        scores = f"{100 * task.first:7.2f} {100 * task.second:7.2f} {100 * task.difference:+7.2f}"
        mark = "*" if task.significant else ""
        interval = f"[{low:+.2f}, {high:+.2f}]"
        yield f"{task.task:<46} {task.metric:<15} {scores}  {interval:<18} {task.p:7.4f} {mark}"
    wins = comparison.wins
    count = len(comparison.tasks)
    yield f"A is better on {wins[0]}, B on {wins[1]} of {count} tasks; * at 5 % after Holm's correction."
