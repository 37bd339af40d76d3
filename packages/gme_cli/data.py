"""`gme data list | plan | fetch | verify`: public training sets by name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, JsonOptions, PipelineOptions, ReportOptions, print_json, say

if TYPE_CHECKING:
    from flows.config import PipelineConfig
    from gme_synthesis.public.config import PublicConfig
    from gme_synthesis.public.plan import DataPlan

app = App(name="data", help="Public training sets by name: list, plan, fetch, verify.")
_COMMON, _REPORT, _JSON = Common(), ReportOptions(), JsonOptions()
_DATA = Path("downloads/public")
"""Folder of fetched sets, below the workspace."""
Names = Annotated[tuple[str, ...], Parameter(negative="")]
Licences = Annotated[tuple[str, ...], Parameter(name="--accept-licence", negative="")]


@Parameter(name="*")
@dataclass(frozen=True)
class DataPlanOptions(JsonOptions, PipelineOptions):
    """Options of `gme data plan`."""


_PLAN = DataPlanOptions()


@app.command(name="list")
def list_sets(*, common: JsonOptions = _JSON) -> None:
    """Print the registry: licence, rows, size and task types of each set, and which facts nobody was found to state."""
    from gme_synthesis.public.registry import public_sets

    sets = public_sets().values()
    if common.json:
        print_json([{**public_set.model_dump(), "unverified": public_set.unverified} for public_set in sets])
        return
    say(f"{'set':<12}{'licence':<24}{'rows':>11}{'size':>11}  {'task types':<28}unverified")
    for public_set in sets:
        types = " ".join(public_set.task_types)
        if len(public_set.task_types) > 2:
            types = f"{len(public_set.task_types)} of nine"
        sizes = f"{_count(public_set.rows):>11}{_size(public_set.bytes):>11}"
        unverified = ", ".join(public_set.unverified) or "-"
        say(f"{public_set.name:<12}{public_set.licence:<24}{sizes}  {types:<28}{unverified}")
    say("Sources of every fact, instructions and layouts by --json. Licences are accepted in the pipeline file.")


@app.command
def plan(*, common: DataPlanOptions = _PLAN) -> None:
    """Say what the public sets of a pipeline file would fetch and read: sizes, rows, licences to accept."""
    from gme_synthesis.public.plan import plan_sets

    _print_plan(plan_sets(_choose_sets(common)), json=common.json)


@app.command
def fetch(
    *names: str,
    data: Path | None = None,
    rows: int | None = None,
    files: int | None = None,
    accept_licence: Licences = (),
    common: Common = _COMMON,
) -> None:
    """Bring sets from the hub: named files at a pinned commit, no code. Goes on where a killed run stopped.

    Parameters
    ----------
    names
        Sets; none takes all of the pipeline file.
    data
        Folder of fetched sets; the pipeline file's own by default, else downloads/public in the workspace.
    rows
        Of sets that name pictures by their address: rows whose pictures are fetched.
    files
        Files of rows of each set, the first ones; none takes all.
    accept_licence
        A licence whose terms you have read and keep, besides those of the pipeline file; may be repeated.
    """
    from gme_synthesis.public.fetch import fetch_sets
    from gme_synthesis.public.plan import plan_sets

    folder = data or common.workspace / _DATA
    config = _choose_sets(common, names, data, folder, rows=rows, files=files, licences=accept_licence)
    config.require_licences()  # before a dry run too: it says what a fetch would refuse
    if common.dry_run:
        _print_plan(plan_sets(config), json=common.json)
        return
    fetched = fetch_sets(config.sets, config.data, config.seed)
    if common.json:
        print_json({"fetched": fetched, "data": config.data})
        return
    say(f"{len(fetched)} files came to {config.data}; what was there already was left alone.")


@app.command
def verify(*names: str, data: Path | None = None, common: ReportOptions = _REPORT) -> int:
    """Check fetched sets: every file there, as it came, by sha256. Exits with 2 if not.

    Parameters
    ----------
    names
        Sets; none takes all of the pipeline file.
    data
        As for `gme data fetch`.
    """
    from gme_data.errors import EXIT_BAD_INPUT
    from gme_synthesis.public.store import changed_files

    config = _choose_sets(common, names, data, data or common.workspace / _DATA)
    problems = {public_set.name: changed_files(public_set, config.data) for public_set in config.sets}
    if common.json:
        print_json(problems)
    else:
        for name, problems_of_set in problems.items():
            say(f"{'✗' if problems_of_set else '✓'} {name:<12} {'; '.join(problems_of_set[:3])}".rstrip())
    return EXIT_BAD_INPUT if any(problems.values()) else 0


def show_data(config: PipelineConfig, *, json: bool) -> None:
    """Prints what a run of a pipeline would fetch and train on; nothing for other kinds of corpora or as JSON."""
    from flows.config import ExamplesPart, JoinedPipeline, public_corpus

    public = public_corpus(config)
    if json or public is None:
        return
    from gme_synthesis.public.plan import plan_sets

    for line in plan_lines(plan_sets(public)):
        say(line)
    if isinstance(config, JoinedPipeline):
        for name, part in config.corpora.items():
            stages = "imported" if isinstance(part, ExamplesPart) else "imported, then synthesised"
            say(f"corpus {name}: {part.corpus.kind}, {stages}; share {part.share:g}.")
        examples = config.join.examples
        say(f"joined: {f'{examples:,} examples' if examples else 'as many examples as the shares allow'}.")
    for name, stage in (("stage_1", config.stage_1), ("stage_2", config.stage_2)):
        if stage is not None:
            steps = sum(phase.steps for phase in stage.phases)
            # A step draws its source by weight, so its expected queries are the weighted mean of the batch sizes.
            pairs = sum(
                phase.steps
                * sum(share.weight * share.batch_size for share in phase.mixture)
                / sum(share.weight for share in phase.mixture)
                for phase in stage.phases
            )
            model = stage.base.model if stage.base else "the tiny model"
            say(
                f"{name}: {steps:,} steps, {pairs:,.0f} pairs, {model}. `gme plan --gpus 8xA100-80G`: memory and hours."
            )
    say(f"evaluated on: {', '.join(suite.label for suite in config.evaluation.suites)}.")
    say("")


def plan_lines(planned: DataPlan) -> Iterator[str]:
    """Yields the plan for people: a line for each set, what remains to be done, and how the sets are mixed."""
    yield f"{'set':<12}{'licence':<24}{'rows':>11}{'read':>11}{'size':>11}  {'state':<12}unverified"
    for public_set in planned.sets:
        licence = public_set.licence if public_set.accepted else f"{public_set.licence} (!)"
        state = "not fetched" if public_set.missing else "fetched"
        numbers = f"{_count(public_set.rows):>11}{_count(public_set.rows_read):>11}{_size(public_set.bytes):>11}"
        yield f"{public_set.name:<12}{licence:<24}{numbers}  {state:<12}{', '.join(public_set.unverified) or '-'}"
    unknown = [public_set.name for public_set in planned.sets if public_set.missing and public_set.bytes is None]
    more = f", and {', '.join(unknown)}, whose sizes nobody states" if unknown else ""
    yield f"to fetch: {planned.bytes_to_fetch / 1e9:,.1f} GB{more}: `gme data fetch --config FILE`."
    for licence, names in planned.licences.items():
        yield f"(!) not accepted: {licence} of {', '.join(names)}: `corpus.accept_licences`."
    if gated := [public_set.name for public_set in planned.sets if public_set.gated and public_set.missing]:
        yield f"terms to accept on the hub, then HF_TOKEN: {', '.join(gated)}."
    if planned.benchmarks_missing:
        yield f"benchmarks to keep apart from are not there: {planned.benchmarks_missing}: `gme umrb fetch`."
    if shares := planned.config.shares:
        total = f"{planned.config.examples:,} examples" if planned.config.examples else "as many examples as fit"
        yield f"mixed: {total}, {', '.join(f'{kind} {share:g}' for kind, share in shares.items())}."


def _print_plan(planned: DataPlan, *, json: bool) -> None:
    if json:
        print_json(_as_dict(planned))
        return
    for line in plan_lines(planned):
        say(line)


def _choose_sets(
    options: PipelineOptions,
    names: tuple[str, ...] = (),
    data: Path | None = None,
    default_data: Path = _DATA,
    *,
    rows: int | None = None,
    files: int | None = None,
    licences: tuple[str, ...] = (),
) -> PublicConfig:
    """Returns the sets of the pipeline file if it is over public sets, else those of the registry by name.

    Args:
        options: Names the pipeline file.
        names: Names of sets; none takes all of the pipeline file.
        data: Folder of fetched sets; None takes that of the pipeline file.
        default_data: Folder of fetched sets where there is no pipeline file.
        rows: Rows whose pictures are fetched; None leaves the choice to the pipeline file.
        files: Files of rows of each set; None leaves the choice to the pipeline file.
        licences: Licences that are accepted besides those of the pipeline file.

    Raises:
        FoundryError: No set is named, an unknown one is, or the pipeline file does not have it.
    """
    from flows.config import public_corpus
    from gme_data.errors import FoundryError, did_you_mean
    from gme_data.settings import parse_config
    from gme_synthesis.public.config import PublicConfig

    # With names alone no pipeline file is needed, and the default one may not exist.
    pipeline = options.pipeline() if options.config.is_file() or not names else None
    corpus = public_corpus(pipeline) if pipeline else None
    if corpus is None:
        if not names:
            raise FoundryError("Name sets, or give the pipeline file of a public corpus with --config.")
        listed = [{"name": name, "rows": rows, "files": files} for name in names]
        raw = {"sets": listed, "accept_licences": licences, "data": default_data}
        return parse_config(raw, PublicConfig, where="gme data")
    in_file = {public_set.name: public_set for public_set in corpus.sets}
    for name in names:
        if name not in in_file:
            raise FoundryError(
                f"{options.config} has no set '{name}'.{did_you_mean(name, in_file)} It has {', '.join(in_file)}."
            )
    changes = {key: value for key, value in (("rows", rows), ("files", files)) if value is not None}
    sets = tuple(
        public_set.model_copy(update=changes) for name, public_set in in_file.items() if name in names or not names
    )
    accepted = (*corpus.accept_licences, *licences)
    return corpus.model_copy(update={"sets": sets, "accept_licences": accepted, "data": data or corpus.data})


def _as_dict(planned: DataPlan) -> dict[str, object]:
    return {
        "sets": [asdict(public_set) for public_set in planned.sets],
        "bytes_to_fetch": planned.bytes_to_fetch,
        "licences_to_accept": planned.licences,
        "benchmarks_missing": planned.benchmarks_missing,
        "shares": planned.config.shares,
        "examples": planned.config.examples,
    }


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"


def _size(number: int | None) -> str:
    return "?" if number is None else f"{number / 1e9:,.2f} GB" if number >= 1e9 else f"{number / 1e6:,.1f} MB"
