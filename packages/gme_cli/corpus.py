"""`gme corpus import | fetch | quality | value`: read a corpus, measure its writer, compare training data."""

from __future__ import annotations

from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, DryRunOptions, JsonOptions, PipelineOptions, print_json, say, say_plan
from gme_cli.states import show_states
from gme_cli.steps import outcome_json, outcome_line, run_step, run_verb

app = App(name="corpus", help="Bring a corpus of your own: read it, measure who writes about it.")
_COMMON = Common()


@Parameter(name="*")
@dataclass(frozen=True)
class CorpusFetchOptions(DryRunOptions, JsonOptions, PipelineOptions):
    """Options of `gme corpus fetch`, whose files lie where the pipeline file says."""


_FETCH = CorpusFetchOptions()


@app.command(name="import")
def import_(*, common: Common = _COMMON) -> None:
    """Read the passages and pictures that a pipeline file names; say what was left out and why."""
    from gme_synthesis.corpus.importing import ImportSummary

    common.own_pipeline()
    if common.dry_run:
        run_verb("corpus", common)
        return
    outcome = run_step("corpus", common)
    summary = ImportSummary.read(outcome.folder)
    if common.json:
        print_json({**outcome_json(outcome), "reasons": [row._asdict() for row in summary.reasons]})
        return
    say(outcome_line(outcome))
    for line in summary.lines():
        say(f"  {line}")


@app.command
def fetch(*, retry: Annotated[bool, Parameter(name="--again")] = False, common: CorpusFetchOptions = _FETCH) -> None:
    """Fetch the pictures that pairs name by address into the folder `corpus.pictures`, before they are imported.

    Only public hosts are asked, within the bounds of `corpus.fetch`; a fetch that was stopped goes on.

    Parameters
    ----------
    retry
        Also fetch what failed before.
    """
    from flows.config import PairsPipeline
    from gme_data.errors import FoundryError
    from gme_synthesis.pairs.importing import pairs_of
    from gme_synthesis.pairs.url_pictures import fetch_pictures
    from gme_synthesis.steps.fetching import Fetcher

    config = common.pipeline()
    if not isinstance(config, PairsPipeline) or config.corpus.pictures is None:
        raise FoundryError(
            f"{common.config}: expected `corpus: {{kind: pairs}}` with `pictures`, the folder to fetch into."
        )
    if common.dry_run:
        text = f"Pictures that {config.corpus.pairs} names by address would be fetched into {config.corpus.pictures}."
        say_plan(text, json=common.json)
        return
    # Before the import, never during it: the same files must give the same corpus, which a server can't promise.
    with closing(Fetcher(config.corpus.fetch)) as fetcher:
        summary = fetch_pictures(pairs_of(config.corpus), config.corpus.pictures, fetcher, retry_failed=retry)
    if common.json:
        print_json(asdict(summary))
        return
    say(f"{summary.addresses:,} addresses, {summary.fetched:,} fetched now into {config.corpus.pictures}")
    for reason, count in summary.failed.items():
        say(f"  {count:,} x {reason}")


@app.command
def quality(*, sample: int = 200, common: Common = _COMMON) -> None:
    """Measure the writer and the filters of a pipeline file on held-out questions of Atlas with known answers.

    Parameters
    ----------
    sample
        Passages to write questions for, and questions with known answers to try the filters on.
    """
    from flows.chain import published_outcome
    from flows.chains import ATLAS
    from gme_synthesis.quality import measure_quality

    config, atlas = common.files_pipeline().synthesis, published_outcome(ATLAS, common.workspace).folder
    if common.dry_run:
        text = f"The writer {config.writer.kind!r} would be asked about {sample} passages of {atlas}."
        say_plan(text, json=common.json)
        return
    answers = common.workspace / "runs" / "steps" / "quality" / "answers"
    quality_report = asdict(measure_quality(config, atlas, answers, sample))
    if common.json:
        print_json(quality_report)
        return
    for name, value in {**quality_report["writer"], **quality_report["filter"]}.items():
        say(f"{name.replace('_', ' '):<20}{format(value, '.3f') if isinstance(value, float) else value}")


@app.command
def value(*, pipeline: Path = Path("configs/tiny.yaml"), common: Common = _COMMON) -> None:
    """Compare training data: one model trained on none, templates, synthetic examples and both, scored on fused tasks.

    The synthetic examples are written about Atlas' passages, as the section `synthesis` of the file says.

    Parameters
    ----------
    pipeline
        The pipeline file whose stage 1 is trained four times.
    """
    from flows.chain import plan
    from flows.config import AtlasPipeline, load_pipeline
    from flows.data_value import data_value_chain, measure_data_value
    from gme_data.errors import FoundryError

    trained = load_pipeline(pipeline)
    if not isinstance(trained, AtlasPipeline):
        raise FoundryError(f"--pipeline {pipeline}: expected a pipeline over Atlas.")
    chain = data_value_chain(trained, common.files_pipeline())
    if common.dry_run:
        show_states(plan(chain, common.workspace), json=common.json)
        return
    # Trains the model four times; a run that was stopped goes on with the training it was at.
    rows = measure_data_value(chain, common.workspace)
    if common.json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        scores = "  ".join(f"{name} {score:.3f}" for name, score in row.types.items())
        say(f"{row.variant:<12}{row.examples:>9,} examples  mean {row.mean:.3f}  {scores}")
