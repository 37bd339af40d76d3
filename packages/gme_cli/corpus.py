"""`gme corpus import | synthesize | train | quality | value`: from a folder of one's own to a trained model.

Arranges steps of the packages below in a workspace; nothing is done twice, and a killed command goes on when run again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from gme_cli.options import Common, print_json, say

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from gme_cli.own import Do
    from gme_data.steps import Outcome

app = App(name="corpus", help="Bring a corpus of your own: import it, synthesise from it, train on it.")
_COMMON = Common()


@app.command(name="import")
def import_(
    *,
    passages: Annotated[Path | None, Parameter(name=["--passages", "-p"])] = None,
    pictures: Path | None = None,
    atlas: Annotated[bool, Parameter(negative="")] = False,
    common: Common = _COMMON,
) -> None:
    """Read passages and pictures into data/corpus.

    Parameters
    ----------
    passages
        A .parquet, .jsonl, .csv or .tsv file (text formats also as .gz), a folder of them, or one of `datasets`; by
        default what the config says.
    pictures
        A folder of pictures, or a table with their bytes.
    atlas
        Take the train part of the default corpus instead, to compare writers on it.
    """
    from gme_cli.own import import_atlas_corpus, import_own, load_own
    from gme_data.steps import execute
    from gme_synthesis.corpus.importing import ImportSummary

    def work(do: Do) -> Outcome:
        if atlas:
            return import_atlas_corpus(common.workspace, do)
        return import_own(load_own(common), passages, pictures, common.workspace, do)

    if common.dry_run:
        _rehearse(work, common)
        return
    outcome = work(execute)
    summary = None if atlas else ImportSummary.read(outcome.folder)
    if common.json:
        _show(outcome, common, {} if summary is None else {"reasons": [row._asdict() for row in summary.reasons]})
        return
    _show(outcome, common)
    for line in summary.lines() if summary else ():
        say(f"  {line}")


@app.command
def synthesize(*, common: Common = _COMMON) -> None:
    """Write questions, find pictures, filter: data/corpus to training examples and held-out tasks in data/own."""
    from gme_cli.own import load_own, synthesize_own

    config = load_own(common)
    _do_or_say(lambda do: synthesize_own(config, common.workspace, do), common)


@app.command
def train(*, common: Common = _COMMON) -> None:
    """Train a model on data/own and score it on the held-out tasks: checkpoints/own, runs/own-evaluation."""
    from gme_cli.own import load_own, train_own
    from umrb.results import SCORES, read_scores

    config = load_own(common)
    if common.dry_run:
        _rehearse(lambda do: train_own(config, common.workspace, do), common)
        return
    outcome = train_own(config, common.workspace)
    tasks = read_scores(outcome.folder / SCORES)[0].tasks
    if common.json:
        print_json([task.model_dump(mode="json") for task in tasks])
        return
    for task in tasks:
        line = f"{task.name:<40}{task.metric:<16}{task.value:>7.3f}"
        say(f"{line}  {task.queries} queries, {task.pool} documents")
    say(f"The model is in {common.workspace / 'checkpoints' / 'own'}.")


@app.command
def quality(*, sample: int = 200, common: Common = _COMMON) -> None:
    """Judge the writer and the filters of a config on held-out questions of Atlas with known answers.

    Parameters
    ----------
    sample
        Passages to write questions for, and questions with known answers to try the filters on.
    """
    from flows.chain import published
    from gme_cli.own import load_own
    from gme_synthesis.quality import measure

    config, atlas = load_own(common).synthesis, published("corpus", common.workspace).folder
    if common.dry_run:
        say(f"The writer {config.writer.kind!r} would be asked about {sample} passages of {atlas}.")
        return
    answers = common.workspace / "runs" / "steps" / "synthesize-corpus" / "answers"
    found = asdict(measure(config, atlas, answers, sample))
    if common.json:
        print_json(found)
        return
    for name, value in {**found["writer"], **found["filter"]}.items():
        say(f"{name.replace('_', ' '):<20}{format(value, '.3f') if isinstance(value, float) else value}")


@app.command
def value(*, synthetic: Path, pipeline: Path = Path("configs/tiny.yaml"), common: Common = _COMMON) -> None:
    """Say what data is worth: one model trained on none, templates, synthetic examples and both, scored on fused tasks.

    Parameters
    ----------
    synthetic
        A folder that `gme corpus synthesize` made from Atlas passages.
    pipeline
        The pipeline file whose stage 1 is trained four times.
    """
    from flows.config import load_pipeline
    from gme_cli.data_value import study

    config = load_pipeline(pipeline, common.overrides)
    if common.dry_run:
        _rehearse(lambda do: study(config, synthetic, common.workspace, do), common)
        return
    rows = study(config, synthetic, common.workspace)
    if common.json:
        print_json([asdict(row) for row in rows])
        return
    for row in rows:
        scores = "  ".join(f"{name} {score:.3f}" for name, score in row.types.items())
        say(f"{row.variant:<12}{row.examples:>9,} examples  mean {row.mean:.3f}  {scores}")


def _do_or_say(work: Callable[[Do], Outcome], common: Common) -> None:
    from gme_data.steps import execute

    _rehearse(work, common) if common.dry_run else _show(work(execute), common)


def _rehearse(work: Callable[[Do], object], common: Common) -> None:
    """Say which steps are done, up to the first that would be done now."""
    from gme_cli.own import NotDoneError, Rehearsal

    rehearsal = Rehearsal()
    with suppress(NotDoneError):
        work(rehearsal)
    if common.json:
        print_json([asdict(one) for one in rehearsal.said])
        return
    for one in rehearsal.said:
        say(f"{one.name:<24} {one.state:<5} {one.reason}")


def _show(outcome: Outcome, common: Common, details: Mapping[str, object] | None = None) -> None:
    """Say what a step did; `details` are further fields of the JSON."""
    counts = outcome.manifest.counts
    if common.json:
        print_json({"folder": outcome.folder, "reused": outcome.reused, "counts": counts, **(details or {})})
        return
    state = "was there already" if outcome.reused else f"made in {outcome.manifest.seconds:.0f} s"
    said = ", ".join(f"{count:,.10g} {name.replace('_', ' ')}" for name, count in counts.items())
    say(f"{outcome.folder} {state}: {said}")
