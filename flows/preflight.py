"""Checks before a pipeline's first step what its last one will need; every run requires it, `gme doctor` shows it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path, PurePosixPath

from flows.chains import pipeline_chain
from flows.config import PipelineConfig, public_corpus
from gme_data.errors import EXIT_BAD_INPUT, FoundryError
from gme_release.preflight import Readiness, check_release
from gme_synthesis.public.config import PublicConfig

DATA = ("suites", "training sets")
"""`Readiness.what` of things that can still be fetched: a plan reports them and goes on."""


def check_ready(config: PipelineConfig, workspace: Path) -> Iterator[Readiness]:
    """Yields the readiness of each thing that the end of a run needs."""
    yield from check_release(workspace, config.release)
    yield _check_tracked(config, workspace)
    yield from check_data(config)


def require_ready(config: PipelineConfig, workspace: Path, *, ignored: Collection[str] = ()) -> None:
    """Checks that a run is not certain to fail at its end.

    Args:
        config: The pipeline.
        workspace: The workspace.
        ignored: `Readiness.what` of things that are not checked here.

    Raises:
        FoundryError: It would fail; the message has a line for each reason. The exit code is 2 if a reason is in the
            configuration, else 1.
    """
    checked = [ready for ready in check_ready(config, workspace) if ready.what not in ignored]
    errors = [ready.error for ready in checked if ready.error]
    if errors:
        hints = list(dict.fromkeys(error.hint for error in errors if error.hint))
        bad_input = any(error.exit_code == EXIT_BAD_INPUT for error in errors)
        raise FoundryError(
            "\n".join(map(str, errors)), hint="\n    ".join(hints) or None, exit_code=EXIT_BAD_INPUT if bad_input else 1
        )


def check_data(config: PipelineConfig) -> Iterator[Readiness]:
    """Yields the readiness of fetched data: hours of training must not end at tasks that nobody fetched."""
    suites = ", ".join(suite.label for suite in config.evaluation.suites)
    # Sealing a section reads and hashes the files of its suites, and raises for what is missing.
    yield _readiness("suites", suites, lambda: [section.sealed() for section in (config.evaluation, config.baselines)])
    if public := public_corpus(config):
        yield _readiness("training sets", f"{len(public.sets)} fetched", lambda: _require_sets(public))


def _readiness(what: str, text: str, require: Callable[[], object]) -> Readiness:
    try:
        require()
    except FoundryError as error:
        return Readiness(what, str(error), error)
    return Readiness(what, text)


def _require_sets(public: PublicConfig) -> None:
    from gme_synthesis.public.plan import plan_sets  # imports a reader of tables, which most pipelines don't need

    plan_sets(public).require_ready()


def _check_tracked(config: PipelineConfig, workspace: Path) -> Readiness:
    """Checks that each folder to be versioned exists, or that a step writes into it."""
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
