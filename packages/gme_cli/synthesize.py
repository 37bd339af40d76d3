"""`gme synthesize`: make training examples of a corpus, or with --plan estimate what that takes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gme_cli.options import Common, print_json, say

if TYPE_CHECKING:
    from gme_synthesis.corpus.estimate import CostEstimate

_COMMON = Common()


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class EstimateOptions:
    """Assumptions of the estimate; by default those of `CostAssumptions`."""

    passage_chars: int | None = None
    """Characters of an average passage."""
    drawn_share: float = 0.02
    """Share of the questions that get a drawn picture, as `generation: {share: 0.02}` in a config; 0 draws none."""
    decoded_per_second: float | None = None
    """Tokens that one GPU's share of the language model writes in a second."""
    dollars_per_gpu_hour: float | None = None
    """Price of a GPU; without it no cost is given."""


def synthesize(
    *,
    plan: Annotated[bool, Parameter(negative="")] = False,
    passages: int = 1_000_000,
    funnel: Path | None = None,
    assumptions: EstimateOptions = EstimateOptions(),
    common: Common = _COMMON,
) -> None:
    """Make training examples from passages, facts and pictures.

    Parameters
    ----------
    plan
        Estimate what a corpus of your own would take in tokens, GPU-hours and disk, and do nothing.
    passages
        Number of passages to estimate for.
    funnel
        The funnel.json of an earlier run: its shares replace the assumed ones.
    """
    if plan:
        show_estimate(passages, funnel, assumptions, json=common.json)
        return
    from gme_cli.steps import run_verb

    run_verb("synthesize", common)


def show_estimate(passages: int, funnel: Path | None, options: EstimateOptions, *, json: bool) -> None:
    """Prints the estimate for the paper's pipeline, retrieval and generation of pictures included."""
    from gme_data.settings import parse_config
    from gme_synthesis.corpus.config import SynthesisConfig
    from gme_synthesis.corpus.estimate import CostAssumptions, estimate_cost, measured_keep_rates
    from gme_synthesis.steps.generation import GenerationConfig

    flux = {"path": "FLUX.1-dev", "share": options.drawn_share}
    generation = parse_config(flux, GenerationConfig, where="--drawn-share") if options.drawn_share else None
    values = {name: value for name, value in asdict(options).items() if value is not None and name != "drawn_share"}
    assumptions = parse_config(values, CostAssumptions, where="what is assumed")
    config = SynthesisConfig(generation=generation)
    estimate = estimate_cost(config, passages, assumptions, measured_keep_rates(funnel) if funnel else {})
    print_json(estimate.as_dict()) if json else say(_table(estimate))


def _table(plan: CostEstimate) -> str:
    lines = [f"{'step':<17}{'seen':>12}{'tokens in':>16}{'tokens out':>14}{'GPU-hours':>11}"]
    lines += [
        f"{load.step:<17}{load.seen:>12,}{load.tokens_in:>16,}{load.tokens_out:>14,}{load.gpu_hours:>11,.1f}"
        for load in plan.steps
    ]
    cost = "" if plan.dollars is None else f", {plan.dollars:,.0f} dollars"
    lines.append(
        f"{plan.passages:,} passages give about {plan.questions:,} questions with {plan.pictures:,} pictures: "
        f"{plan.gpu_hours:,.0f} GPU-hours (the paper's rate: {plan.paper_gpu_hours:,.0f}), "
        f"{plan.gigabytes:,.0f} GB{cost}."
    )
    return "\n".join(lines)
