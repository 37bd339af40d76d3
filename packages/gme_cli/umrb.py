"""`gme umrb`: the benchmark on any model. List it, plan it, fetch and verify its data, run it, report, compare."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from gme_cli.options import Common, Inputs, find_model, print_json, say, tell_inputs
from gme_cli.umrb_plan import Choice, Fleet, show_plan

if TYPE_CHECKING:
    from umrb.scoring.compare import Comparison
    from umrb.scoring.runner import RunResult
    from umrb.suite import SuiteConfig

app = App(name="umrb", help="The benchmark: 47 datasets of nine task types, and the other tables of the paper's page.")
_COMMON = Common()
_DATA = Path("data/umrb")
_OUTPUT = Path("runs/umrb")
_CHOICE, _FLEET = Choice(), Fleet()


@app.command(name="list")
def list_datasets(*, choice: Choice = _CHOICE, common: Common = _COMMON) -> None:
    """Print a suite: its datasets with type, metric, sizes, instruction and published scores."""
    from umrb.registry import published

    datasets = choice.chosen()
    if common.json:
        rows = [row.model_dump() for row in published()] if choice.suite == "umrb" else []
        print_json({"suite": choice.suite, "datasets": [one.model_dump() for one in datasets], "published": rows})
        return
    for one in datasets:
        scores = "  ".join(f"{model} {value:.2f}" for model, value in one.published.items())
        say(
            f"{one.task_type:<15} {one.name:<24} {one.metric:<15} {_number(one.queries):>7} of "
            f"{_number(one.candidates):>9}  {one.id:<48} {scores}".rstrip()
        )
    say(f"{len(datasets)} datasets. More by --json; licences and revisions by `gme umrb fetch --dry-run`.")


@app.command
def plan(*, choice: Choice = _CHOICE, fleet: Fleet = _FLEET, output: Path = _OUTPUT, common: Common = _COMMON) -> None:
    """Say what scoring a model takes, before anything is fetched: items, tokens, bytes, operations, hours.

    Parameters
    ----------
    output
        Folder of results and vectors: what a model of the same name has there is not counted again.
    """
    show_plan(choice, fleet, output, common)


def evaluate(
    *,
    suite: str | None = None,
    model: str = "champion",
    fleet: Fleet = _FLEET,
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
        Gets results, vectors and the report. With --suite only.
    device
        Where the model runs. With --suite only.
    """
    if suite is None:
        from gme_cli.steps import run_verb

        run_verb("evaluate", common)
        return 0
    choice = Choice(suite)
    if common.dry_run:
        show_plan(choice, fleet, output, common)
        return 0
    return run(choice=choice, model=model, data=data, output=output, device=device, common=common)


@app.command
def fetch(*, choice: Choice = _CHOICE, data: Path = _DATA, common: Common = _COMMON) -> None:
    """Bring the data of a suite to a folder, at pinned revisions; --dry-run lists them with their licences.

    Parameters
    ----------
    data
        The folder. It may be versioned by DVC.
    """
    from umrb.data.fetch import by_hand, repositories
    from umrb.data.fetch import fetch as run_fetch

    datasets = choice.chosen()
    wanted = repositories(datasets)
    found = wanted if common.dry_run else run_fetch(datasets, data)
    if common.json:
        print_json({"repositories": [asdict(one) for one in found], "by_hand": by_hand(datasets)})
        return
    for one in found:
        say(f"{one.name:<55} {(one.revision or 'newest')[:12]:<12}  {one.licence:<18} {', '.join(one.tasks)}")
    did = "would be fetched" if common.dry_run else "fetched"
    say(f"{len(found)} repositories {did}; {len(wanted) - len(found)} were there.")
    for dataset, hint in by_hand(datasets).items():
        say(f"{dataset} is not fetched. {hint}")


@app.command
def verify(*, choice: Choice = _CHOICE, data: Path = _DATA, common: Common = _COMMON) -> int:
    """Check fetched data: files as they came, ids and judgements whole, sizes as expected. Exits with 2 if not.

    Parameters
    ----------
    data
        Folder that `gme umrb fetch` filled.
    """
    from gme_data.errors import EXIT_BAD_INPUT
    from umrb.data.fetch import DataCheck
    from umrb.data.fetch import verify as run_verify

    found = list(run_verify(choice.chosen(), choice.tasks or data))
    unusable = choice.scored_in(Path()).unusable()
    found += [DataCheck(name, checked=True, problems=(reason,)) for name, reason in unusable.items()]
    if common.json:
        print_json([asdict(one) for one in found])
    else:
        for one in found:
            say(f"{'✗' if one.problems else '✓'} {one.task:<46} {'; '.join(one.problems)}")
    return EXIT_BAD_INPUT if any(one.problems for one in found) else 0


@app.command
def run(
    *,
    choice: Choice = _CHOICE,
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
        Folder that `gme umrb fetch` filled; what is not there is left to mteb to find.
    output
        Gets results, run files, vectors and the report.
    overwrite
        Where a result is there: keep it, score again, or refuse to run.
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

    config = choice.scored_in(output).model_copy(
        update={"data": data, "overwrite": overwrite, "allow_defects": allow_defects, "frames": frames}
    )
    config.chosen()  # names are looked at before a model is loaded
    if common.dry_run:
        show_plan(choice, Fleet(), output, common)
        return 0
    found = (model, model) if model.startswith(MTEB) else find_model(model, common)
    if not model.startswith(MTEB):
        tell_inputs(found[1], inputs)
    settings = {"min_image_tokens": min_image_tokens, "inputs": inputs}
    changed = tuple((field, value) for field, value in settings.items() if value is not None)
    opened = open_model(
        str(found[1]), output / "vectors", ModelOptions(device, dtype, store, frames, inputs=changed), name=name
    )
    done = run_suite(config, opened.meta, opened.make)
    if os.environ.get("RANK", "0") != "0":
        return 0  # the first rank of torchrun speaks for all; a status of another would end it
    _tell_run(config, done, common)
    return EXIT_BAD_INPUT if done.refused else 0


@app.command
def report(results: Path, *, choice: Choice = _CHOICE, out: Path | None = None, common: Common = _COMMON) -> None:
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
    found = write_suite_report(choice.suite, choice.chosen(), results, output)
    print_json(found.model_dump(mode="json")) if common.json else say(f"{output / 'report.html'}")


@app.command
def compare(a: Path, b: Path, *, choice: Choice = _CHOICE, common: Common = _COMMON) -> None:
    """Compare two models query by query: differences, intervals, and which of them are significant.

    Parameters
    ----------
    a
        Folder of the first model's results, .../results/MODEL/REVISION.
    b
        Of the second.
    """
    from umrb.scoring.compare import compare as run_compare

    found = run_compare(a, b, choice.chosen())
    if common.json:
        print_json({"models": found.models, "wins": found.wins, "tasks": [asdict(one) for one in found.tasks]})
        return
    for line in _comparison_lines(found):
        say(line)


def _tell_run(config: SuiteConfig, done: RunResult, common: Common) -> None:
    from umrb.report.build import write_suite_report

    reports: dict[str, Any] = {}
    if done.records:
        home = done.folder / config.report_name
        whole = config.model_copy(update={"datasets": ()}).chosen()
        scores = write_suite_report(config.label, whole, done.folder, home)
        reports = {**scores.model_dump(mode="json"), "report": home}
    if common.json:
        defects = {record.score.name: record.defects for record in done.records if record.defects}
        print_json({"scored": done.scored, "refused": done.refused, "defects": defects, **reports})
        return
    for name, reasons in done.refused.items():
        say(f"refused: {name}: {'; '.join(reasons)}")
    for record in done.records:
        score = record.score
        low, high = (100 * end for end in score.interval)
        say(f"{score.name:<46} {score.metric:<15} {100 * score.value:6.2f}  [{low:.2f}, {high:.2f}]")
        if record.defects:
            say(f"  scored in spite of defects: {'; '.join(record.defects)}")
    say(f"{len(done.scored)} tasks scored, {len(done.records)} of the suite have a result.")
    if reports:
        say(f"Report: {reports['report'] / 'report.html'}")


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _comparison_lines(found: Comparison) -> Iterator[str]:
    first, second = found.models
    yield f"A {first}\nB {second}"
    yield f"{'task':<46} {'metric':<15} {'A':>7} {'B':>7} {'B - A':>7}  {'95 %':<18} {'p':>7}"
    for one in found.tasks:
        low, high = (100 * end for end in one.interval)
        scores = f"{100 * one.first:7.2f} {100 * one.second:7.2f} {100 * one.difference:+7.2f}"
        mark = "*" if one.significant else ""
        yield f"{one.task:<46} {one.metric:<15} {scores}  {f'[{low:+.2f}, {high:+.2f}]':<18} {one.p:7.4f} {mark}"
    wins = found.wins
    yield f"A is better on {wins[0]}, B on {wins[1]} of {len(found.tasks)} tasks; * at 5 % after Holm's correction."
