"""What a pipeline's last step will need, looked at before its first: every run asks for it, `gme doctor` shows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from flows.chains import pipeline_chain
from flows.config import PipelineConfig, public_corpus
from gme_data.errors import EXIT_BAD_INPUT, FoundryError
from gme_release.preflight import Readiness, check_release
from gme_synthesis.public.config import PublicConfig

DATA = ("suites", "training sets")
"""What can be fetched still: a plan tells it and goes on."""


def check_ready(config: PipelineConfig, workspace: Path) -> Iterator[Readiness]:
    """Each thing that the end of a run needs, and why it would fail there."""
    yield from check_release(workspace, config.release)
    yield _tracked(config, workspace)
    yield from check_data(config)


def require_ready(config: PipelineConfig, workspace: Path, *, passing_over: Collection[str] = ()) -> None:
    """Refuse a run that is certain to fail at its end.

    Args:
        config: The pipeline.
        workspace: Where it works.
        passing_over: Things that are told elsewhere, by `Readiness.what`.

    Raises:
        FoundryError: One line a reason; exit code 2 if one of them is in what was asked for, else 1.
    """
    checked = [ready for ready in check_ready(config, workspace) if ready.what not in passing_over]
    errors = [ready.error for ready in checked if ready.error]
    if errors:
        hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
        asked = any(error.exit_code == EXIT_BAD_INPUT for error in errors)
        raise FoundryError(
            "\n".join(map(str, errors)), hint="\n    ".join(hints) or None, exit_code=EXIT_BAD_INPUT if asked else 1
        )


def check_data(config: PipelineConfig) -> Iterator[Readiness]:
    """What is fetched beforehand is there: hours of training must not end at tasks that nobody fetched."""
    yield _there("suites", ", ".join(suite.label for suite in config.evaluation.suites), lambda: _seal_suites(config))
    if public := public_corpus(config):
        yield _there("training sets", f"{len(public.sets)} fetched", lambda: _require_sets(public))


def _there(what: str, text: str, require: Callable[[], None]) -> Readiness:
    try:
        require()
    except FoundryError as error:
        return Readiness(what, str(error), error)
    return Readiness(what, text)


def _seal_suites(config: PipelineConfig) -> None:
    for judged in (config.evaluation, config.baselines):
        judged.sealed()


def _require_sets(public: PublicConfig) -> None:
    from gme_synthesis.public.plan import plan_sets  # who only reads a pipeline file needs no reader of tables

    plan_sets(public).require_ready()


def _tracked(config: PipelineConfig, workspace: Path) -> Readiness:
    """A folder to be versioned is there already, or a step writes into it."""
    outputs = [PurePosixPath(step.output) for step in pipeline_chain(config)]
    tracked = config.release.tracked
    unknown = [
        folder
        for folder in tracked
        if not (workspace / folder).is_dir()
        and not any(output.is_relative_to(folder) or PurePosixPath(folder).is_relative_to(output) for output in outputs)
    ]
    if not unknown:
        return Readiness("tracked", ", ".join(tracked))
    error = FoundryError(
        f"release.tracked: no step writes into {', '.join(unknown)}, and {workspace} has no such folder.",
        hint=f"The steps write into {', '.join(sorted({output.parts[0] for output in outputs}))}.",
    )
    return Readiness("tracked", str(error), error)
