"""The verbs that run one step alone, on the outputs of earlier steps in the workspace."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from gme_cli.options import Common, print_json, say, say_plan

if TYPE_CHECKING:
    from gme_data.steps import Outcome

_COMMON = Common()


def validate(*, common: Common = _COMMON) -> None:
    """Check every dataset with Great Expectations; exit non-zero with the rows that failed if one is bad."""
    run_verb("validate", common)


def train(*, stage: Annotated[Literal[1, 2], Parameter(name=["--stage", "-s"])] = 1, common: Common = _COMMON) -> None:
    """Train the model: stage 1 with in-batch negatives, stage 2 with mined ones.

    Starts the ranks itself, or is one of them under torchrun or deepspeed.

    Parameters
    ----------
    stage
        Which stage.
    """
    from gme_training.launch import started_by_launcher

    # Under torchrun every rank runs this command: rank 0 goes through the chain, the others wait for its job.
    if not started_by_launcher() or common.dry_run:
        run_verb(f"train-{stage}", common)
        return
    from gme_training.external_launcher import release_waiting_ranks, wait_and_train

    if os.environ["RANK"] != "0":
        wait_and_train()
        return
    run_verb(f"train-{stage}", common)
    release_waiting_ranks()  # where the step was done already, the others still wait for a job


def mine_negatives(*, common: Common = _COMMON) -> None:
    """Find hard negatives with the model of stage 1."""
    run_verb("mine", common)


def baselines(*, common: Common = _COMMON) -> None:
    """Score random, untrained, BM25, MiniLM, raw pixels, EfficientNet and linear probes on the test tasks."""
    run_verb("baselines", common)


def report(*, common: Common = _COMMON) -> None:
    """Write the report of the last evaluation."""
    run_verb("report", common)


def register(*, common: Common = _COMMON) -> int:
    """Version the data, and register the model if the gate opens. Exits with 3 if the gate stays closed."""
    from flows.chain import published_outcome
    from flows.chains import pipeline_chain
    from flows.preflight import require_ready
    from flows.run_record import record_run
    from gme_data.errors import EXIT_GATE_CLOSED

    config = common.pipeline()
    require_ready(config, common.workspace.resolve())
    chain = pipeline_chain(config)
    # Every step must be there: the record names the content of each.
    outcomes = {step.name: published_outcome(step, common.workspace) for step in chain}
    if common.dry_run:
        say_plan("Would version the data, and register the model if the gate opens.", json=common.json)
        return 0
    record = record_run(config, chain, outcomes, common.workspace)
    if common.json:
        print_json(record.as_dict())
    else:
        say(record.summary())
    return 0 if record.passed else EXIT_GATE_CLOSED


def run_verb(name: str, common: Common) -> None:
    """Runs a step of the chain alone and prints its outcome, or with --dry-run whether it would run."""
    from flows.chain import plan
    from flows.chains import pipeline_chain

    if common.dry_run:
        chain = pipeline_chain(common.pipeline())
        state = next(state for state in plan(chain, common.workspace) if state.name == chain[name].name)
        print_json(asdict(state)) if common.json else say(f"{name}: {state.state} ({state.reason})")
        return
    outcome = run_step(name, common)
    print_json(outcome_json(outcome)) if common.json else say(outcome_line(outcome))


def run_step(name: str, common: Common) -> Outcome:
    """Runs a step of the chain alone, on the outputs of earlier steps in the workspace, and returns its outcome."""
    from flows.chain import run_alone
    from flows.chains import pipeline_chain

    return run_alone(pipeline_chain(common.pipeline()), name, common.workspace)


def outcome_json(outcome: Outcome) -> dict[str, object]:
    """Returns the outcome of a step as JSON values."""
    fields = {field: getattr(outcome.manifest, field) for field in ("key", "content", "counts", "seconds")}
    return {"step": outcome.step, "folder": outcome.folder, "reused": outcome.reused, **fields}


def outcome_line(outcome: Outcome) -> str:
    """Returns the outcome of a step as one line for people."""
    manifest = outcome.manifest
    counts = ", ".join(f"{value:,.10g} {label.replace('_', ' ')}" for label, value in manifest.counts.items())
    state = "was there already" if outcome.reused else f"made in {manifest.seconds:.0f} s"
    return f"{outcome.step}: {outcome.folder} {state}" + (f": {counts}" if counts else "")
