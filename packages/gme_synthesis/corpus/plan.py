"""`gme synthesize --plan`: what so many passages take in tokens, GPU-hours, money and disk, before a request is sent.

Tokens come from the very prompts; how many candidates reach each step is assumed, or measured in the funnel of an
earlier run; speeds are assumptions that can be replaced. No formula knows a vendor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, NonNegativeInt

from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_data.structured import StructureError, read_json
from gme_synthesis.corpus.chain import second_stretch
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.llm.prompts import Prompt, load_prompt

PAPER_HOURS, PAPER_EXAMPLES = 600, 1_102_000
"""A100-hours of the GME paper for its whole pipeline, and the examples that they gave."""
_CHARS_PER_TOKEN = 4.2
_TOKENS_OUT = {"question": 35, "entity": 30, "caption": 45}
_QUESTION_CHARS, _ENTITY_CHARS = 70, 20
_A100 = 312e12


class Assumptions(Frozen):
    """Averages and speeds; the defaults are for A100-80G with the models of the paper."""

    passage_chars: int = Field(default=700, ge=1)
    """Characters of an average passage."""
    kept: dict[str, float] = Field(
        default={"question": 0.97, "consistency": 0.988, "entity": 0.97, "leak": 0.95, "picture-filter": 0.9}
    )
    """Share that each step keeps; 0.988 is the paper's, an earlier run's funnel replaces them."""
    llm_parameters: float = Field(default=72.7e9, gt=0)
    """Of the language model."""
    prefill_utilisation: float = Field(default=0.5, gt=0, le=1)
    """Share of peak speed while prompts are read, on which 2 operations a parameter and token are spent."""
    decoded_per_second: float = Field(default=350, gt=0)
    """Tokens that one GPU's share of the language model writes in a second, in large batches."""
    shared_prefix: bool = True
    """The server keeps the shared part of the prompt (vLLM does): only the rest is computed."""
    encoded_per_second: float = Field(default=250, gt=0)
    """Passages that the text encoder (gte-Qwen2-1.5B-instruct) encodes on one GPU."""
    scored_per_second: float = Field(default=300, gt=0)
    """Pictures that CLIP ViT-L/14 scores on one GPU."""
    seconds_per_drawing: float = Field(default=20, gt=0)
    """Seconds of FLUX.1-dev on one GPU: 28 steps, 1024 x 1024."""
    picture_bytes: int = Field(default=120_000, ge=1)
    """Of an average picture."""
    dollars_per_gpu_hour: float | None = None
    """Price of a GPU; without it no cost is given."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one step takes: how many come to it, tokens of the language model, GPU-hours."""

    step: str
    seen: int
    tokens_in: int = 0
    tokens_out: int = 0
    gpu_hours: float = 0.0


@dataclass(frozen=True, slots=True)
class Plan:
    """All steps, and what they come to."""

    passages: int
    loads: tuple[Load, ...]
    questions: int
    pictures: int
    gpu_hours: float
    paper_gpu_hours: float
    gigabytes: float
    dollars: float | None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Step:
    step: str
    seen: NonNegativeInt
    kept: NonNegativeInt


@dataclass(frozen=True, slots=True)
class _Funnel:
    """What is read of a ``funnel.json``."""

    steps: tuple[_Step, ...]


def measured(funnel: Path) -> dict[str, float]:
    """Share that each step of an earlier run kept, from its ``funnel.json``.

    Raises:
        FoundryError: Not a funnel.
    """
    try:
        steps = read_json(funnel, _Funnel).steps
    except (FileNotFoundError, StructureError) as error:
        raise FoundryError(f"{funnel}: no funnel of an earlier run: {error}") from error
    return {one.step: one.kept / one.seen for one in steps if one.seen}


def make_plan(config: SynthesisConfig, passages: int, given: Assumptions, kept: Mapping[str, float]) -> Plan:
    """Plan `passages` passages; `kept` (share by step) goes before the assumed shares.

    Raises:
        FoundryError: There is nothing to plan.
    """
    if passages < 1:
        raise FoundryError(f"--passages {passages}: expected at least one.")
    share = config.generation.share if config.generation else 0.0
    shares = {**given.kept, **kept}
    chosen = min(passages, config.classifier.sample or passages)
    loads = [Load("encode the pool", passages, gpu_hours=passages / given.encoded_per_second / 3600)]
    going, pictures = float(chosen), 0
    for step in second_stretch(config):
        seen = round(going)
        if step in _TOKENS_OUT:
            drawn = share if step == "caption" else 1.0
            loads.append(_asked(step, round(seen * drawn), given))
        elif step == "consistency":
            loads.append(Load(step, seen, gpu_hours=seen / given.encoded_per_second / 3600))
        elif step == "search":
            pictures += seen * config.search.count
            loads.append(Load(step, seen))
        elif step == "generate":
            drawings = round(seen * share)
            pictures += drawings
            loads.append(Load(step, drawings, gpu_hours=drawings * given.seconds_per_drawing / 3600))
        elif step == "picture-filter":
            scored = seen * config.search.count if config.search.by != "none" else 0
            loads.append(Load(step, scored, gpu_hours=scored / given.scored_per_second / 3600))
        else:
            loads.append(Load(step, seen))
        going *= shares.get(step, 1.0)
    hours = sum(load.gpu_hours for load in loads)
    return Plan(
        passages=passages,
        loads=tuple(loads),
        questions=round(going),
        pictures=pictures,
        gpu_hours=round(hours, 1),
        paper_gpu_hours=round(PAPER_HOURS * chosen / PAPER_EXAMPLES, 1),
        gigabytes=round(_bytes(passages, chosen, pictures, given) / 1e9, 1),
        dollars=round(hours * given.dollars_per_gpu_hour, 2) if given.dollars_per_gpu_hour is not None else None,
    )


def _asked(step: str, requests: int, given: Assumptions) -> Load:
    """Requests of one prompt. A prefix that the server keeps is sent and counted, but not computed."""
    shared, own = prompt_tokens(load_prompt(step), given.passage_chars)
    computed = own if given.shared_prefix else shared + own
    prefill = computed * 2 * given.llm_parameters / (_A100 * given.prefill_utilisation)
    seconds = requests * (prefill + _TOKENS_OUT[step] / given.decoded_per_second)
    return Load(step, requests, requests * (shared + own), requests * _TOKENS_OUT[step], seconds / 3600)


def prompt_tokens(prompt: Prompt, passage_chars: int) -> tuple[int, int]:
    """Estimated tokens that all requests of a prompt share, and those of each request's own."""
    chars = {"passage": passage_chars, "question": _QUESTION_CHARS, "entity": _ENTITY_CHARS}
    turns = prompt.messages(dict.fromkeys(prompt.inputs, ""))
    shared = sum(len(turn["content"]) for turn in turns)
    own = sum(chars[name] for name in prompt.inputs)
    return round(shared / _CHARS_PER_TOKEN), round(own / _CHARS_PER_TOKEN)


def _bytes(passages: int, chosen: int, pictures: int, given: Assumptions) -> float:
    """Corpus, vectors of 1536 float32, answers on record, examples and pictures, once as journal and once as output."""
    texts = passages * given.passage_chars * 3 + chosen * 3 * 400 + chosen * 8 * (given.passage_chars * 0.4 + 200)
    return texts + passages * 1536 * 4 + pictures * given.picture_bytes * 2
