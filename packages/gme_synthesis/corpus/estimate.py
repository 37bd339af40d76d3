"""`gme synthesize --plan`: an estimate of tokens, GPU-hours, money and disk for so many passages, before any request.

Tokens are counted in the prompts that would be sent. How many candidates reach each step is assumed, or measured in
the funnel of an earlier run; speeds are assumptions that can be replaced. No formula depends on a vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from gme_data.errors import FoundryError
from gme_data.funnel import read_funnel
from gme_data.settings import Frozen
from gme_data.structured import StructureError
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.shard_runner import writing_steps
from gme_synthesis.llm.prompts import Prompt, load_prompt

PAPER_HOURS, PAPER_EXAMPLES = 600, 1_102_000
"""A100-hours of the GME paper for its whole pipeline, and the number of examples that they gave."""
_CHARS_PER_TOKEN = 4.2
"""A token is assumed to have so many characters."""
_TOKENS_OUT = {"question": 35, "entity": 30, "caption": 45}
"""An average answer to each prompt has so many tokens."""
_QUESTION_CHARS, _ENTITY_CHARS = 70, 20
"""An average question and the name of an average entity have so many characters."""
_A100_FLOPS = 312e12
"""Peak of an A100 in bfloat16, in operations per second."""
_VECTOR_BYTES = 1536 * 4
"""Bytes of a vector of gte-Qwen2-1.5B-instruct in float32."""


class CostAssumptions(Frozen):
    """Averages and speeds that an estimate assumes; the defaults are for A100-80G with the models of the paper."""

    passage_chars: int = Field(default=700, ge=1)
    """Characters of an average passage."""
    keep_rates: dict[str, float] = Field(
        default={"question": 0.97, "consistency": 0.988, "entity": 0.97, "leak": 0.95, "picture-filter": 0.9}
    )
    """Share that each step keeps; 0.988 is the paper's, an earlier run's funnel replaces them."""
    llm_parameters: float = Field(default=72.7e9, gt=0)
    """Parameters of the language model."""
    prefill_utilisation: float = Field(default=0.5, gt=0, le=1)
    """Share of the peak speed that is reached while prompts are read, at 2 operations per parameter and token."""
    decoded_per_second: float = Field(default=350, gt=0)
    """Tokens that one GPU's share of the language model writes in a second, in large batches."""
    shared_prefix: bool = True
    """The server caches the shared prefix of the prompts (as vLLM does), so that only the remainder is computed."""
    encoded_per_second: float = Field(default=250, gt=0)
    """Passages that the text encoder (gte-Qwen2-1.5B-instruct) encodes on one GPU in a second."""
    scored_per_second: float = Field(default=300, gt=0)
    """Pictures that CLIP ViT-L/14 scores on one GPU in a second."""
    seconds_per_drawing: float = Field(default=20, gt=0)
    """Seconds that FLUX.1-dev takes for a picture on one GPU: 28 steps, 1024 x 1024."""
    picture_bytes: int = Field(default=120_000, ge=1)
    """Bytes of an average picture."""
    dollars_per_gpu_hour: float | None = None
    """Price of a GPU; without it no cost is estimated."""


@dataclass(frozen=True, slots=True)
class StepCost:
    """What one step takes.

    Attributes:
        step: Name of the step.
        seen: Candidates, requests or pictures that come to it.
        tokens_in: Tokens of the prompts.
        tokens_out: Tokens of the answers.
        gpu_hours: Hours of one GPU.
    """

    step: str
    seen: int
    tokens_in: int = 0
    tokens_out: int = 0
    gpu_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class CostEstimate:
    """The costs of all steps, and their sums.

    Attributes:
        passages: Passages of the corpus.
        steps: Costs of the steps, in order.
        questions: Questions that come out of the last step.
        pictures: Pictures that are searched for or generated.
        gpu_hours: Sum of the steps.
        paper_gpu_hours: Hours at the rate of the paper, for comparison.
        gigabytes: Disk of corpus, vectors, answers, examples and pictures.
        dollars: Price of the GPU-hours; None if no price is assumed.
    """

    passages: int
    steps: tuple[StepCost, ...]
    questions: int
    pictures: int
    gpu_hours: float
    paper_gpu_hours: float
    gigabytes: float
    dollars: float | None

    def as_dict(self) -> dict[str, Any]:
        """Returns the estimate as JSON values."""
        return asdict(self)


def measured_keep_rates(funnel: Path) -> dict[str, float]:
    """Reads the share that each step of an earlier run kept from its ``funnel.json``.

    Raises:
        FoundryError: The file is no funnel.
    """
    try:
        steps = read_funnel(funnel)
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(f"{funnel}: no funnel of an earlier run: {error}") from error
    return {step.step: step.kept / step.seen for step in steps if step.seen}


def estimate_cost(
    config: SynthesisConfig, passages: int, assumptions: CostAssumptions, keep_rates: Mapping[str, float]
) -> CostEstimate:
    """Estimates what synthesis of so many passages takes.

    Args:
        config: Says which steps there are, and how many pictures each question gets.
        passages: Number of passages.
        assumptions: Averages and speeds.
        keep_rates: Share that each step keeps, where it is known; goes before the assumed shares.

    Raises:
        FoundryError: `passages` is less than 1.
    """
    if passages < 1:
        raise FoundryError(f"--passages {passages}: expected at least one.")
    drawn_share = config.generation.share if config.generation else 0.0
    rates = {**assumptions.keep_rates, **keep_rates}
    chosen = min(passages, config.classifier.sample or passages)
    # Questions are checked against all passages, so also those are encoded that no question is asked about.
    steps = [StepCost("encode the pool", passages, gpu_hours=passages / assumptions.encoded_per_second / 3600)]
    remaining, pictures = float(chosen), 0
    for step in writing_steps(config):
        seen = round(remaining)
        if step in _TOKENS_OUT:
            # Only the pictures that are generated need a caption.
            share = drawn_share if step == "caption" else 1.0
            steps.append(_prompt_cost(step, round(seen * share), assumptions))
        elif step == "consistency":
            steps.append(StepCost(step, seen, gpu_hours=seen / assumptions.encoded_per_second / 3600))
        elif step == "search":
            pictures += seen * config.search.count
            steps.append(StepCost(step, seen))
        elif step == "generate":
            drawings = round(seen * drawn_share)
            pictures += drawings
            steps.append(StepCost(step, drawings, gpu_hours=drawings * assumptions.seconds_per_drawing / 3600))
        elif step == "picture-filter":
            # By default generated pictures are not scored, as in the paper.
            scored = seen * config.search.count if config.search.by != "none" else 0
            steps.append(StepCost(step, scored, gpu_hours=scored / assumptions.scored_per_second / 3600))
        else:
            steps.append(StepCost(step, seen))
        remaining *= rates.get(step, 1.0)
    hours, price = sum(step.gpu_hours for step in steps), assumptions.dollars_per_gpu_hour
    return CostEstimate(
        passages=passages,
        steps=tuple(steps),
        questions=round(remaining),
        pictures=pictures,
        gpu_hours=round(hours, 1),
        paper_gpu_hours=round(PAPER_HOURS * chosen / PAPER_EXAMPLES, 1),
        gigabytes=round(_disk_bytes(passages, chosen, pictures, assumptions) / 1e9, 1),
        dollars=round(hours * price, 2) if price is not None else None,
    )


def _prompt_cost(step: str, requests: int, assumptions: CostAssumptions) -> StepCost:
    """Returns the cost of so many requests of one prompt; a cached prefix is sent and counted, but not computed."""
    prefix, remainder = prompt_tokens(load_prompt(step), assumptions.passage_chars)
    computed = remainder if assumptions.shared_prefix else prefix + remainder
    # A forward pass takes 2 operations (multiply, add) per parameter and token.
    prefill_seconds = computed * 2 * assumptions.llm_parameters / (_A100_FLOPS * assumptions.prefill_utilisation)
    seconds = requests * (prefill_seconds + _TOKENS_OUT[step] / assumptions.decoded_per_second)
    return StepCost(step, requests, requests * (prefix + remainder), requests * _TOKENS_OUT[step], seconds / 3600)


def prompt_tokens(prompt: Prompt, passage_chars: int) -> tuple[int, int]:
    """Estimates the tokens of the prefix that all requests of a prompt share, and those of a request's own inputs."""
    chars = {"passage": passage_chars, "question": _QUESTION_CHARS, "entity": _ENTITY_CHARS}
    turns = prompt.messages(dict.fromkeys(prompt.inputs, ""))
    prefix = sum(len(turn["content"]) for turn in turns)
    inputs = sum(chars[name] for name in prompt.inputs)
    return round(prefix / _CHARS_PER_TOKEN), round(inputs / _CHARS_PER_TOKEN)


def _disk_bytes(passages: int, chosen: int, pictures: int, assumptions: CostAssumptions) -> float:
    """Returns the bytes of corpus, vectors, answers, examples and pictures, in journal and output together."""
    answers = chosen * 3 * 400
    examples = chosen * 8 * (assumptions.passage_chars * 0.4 + 200)
    texts = passages * assumptions.passage_chars * 3 + answers + examples
    return texts + passages * _VECTOR_BYTES + pictures * assumptions.picture_bytes * 2
