"""Writers and filters judged on Atlas questions whose answers are known, about places that nothing was trained on.

A writer: how many passages it gets a usable question from, whether the answers are right, whether names leak, how much
the questions differ. The consistency filter: how well it tells questions with their own passage from questions that
were dealt another's.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.atlas import open_atlas
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.tools import Places, Tools
from gme_synthesis.encoders import TextEncoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.records import run_stage, shuffled
from gme_synthesis.steps.consistency import passage_in_top_k
from gme_synthesis.steps.entity import EntityStep, LeakCheck, leaked_name
from gme_synthesis.steps.question import QuestionStep


@dataclass(frozen=True, slots=True)
class WriterQuality:
    """What a writer made of some passages. Shares are 0..1.

    Attributes:
        passages: How many it was given.
        answerable: Share with a question whose answer stands in the passage.
        gold_answers: Of those, the share whose answer is one of the known values, or holds or is held by one.
        consistent: Of those, the share that leads back to its passage.
        rewritten: Share of the passages with a rewrite, leaking or not.
        leaked: Of the rewrites, the share that a name survives in, before the leak check.
        usable: Share of the passages that give a fused question in the end.
        distinct: Share of the questions that no other question equals, names left out.
        openings: Entropy in bits of the first two words.
        refused: How often each reason.
    """

    passages: int
    answerable: float
    gold_answers: float
    consistent: float
    rewritten: float
    leaked: float
    usable: float
    distinct: float
    openings: float
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class FilterQuality:
    """Of questions with their own passage and as many with another's: what the filter keeps and refuses."""

    filter_pairs: int
    filter_precision: float
    filter_recall: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Writer and filter together."""

    writer: WriterQuality
    filter: FilterQuality


def measure(config: SynthesisConfig, atlas: Path, answers: Path, sample: int, split: str = "test") -> Quality:
    """Judge the writer and the filter of a config on up to `sample` passages of a split of Atlas.

    Raises:
        FoundryError: No Atlas, no sample, or the writer can't be asked.
    """
    if sample < 1:
        raise FoundryError(f"--sample {sample}: expected at least one passage.")
    candidates = {one.id: one for one in open_atlas(atlas, split).passages()}
    chosen = [candidates[id_] for id_ in shuffled(sorted(candidates), config.seed, "quality")[:sample]]
    pool = list(candidates.values())
    with closing(Tools(config, Places(atlas, atlas, answers))) as tools:
        return Quality(
            judge_writer(chosen, pool, tools.asker, tools.encoder, config.consistency_top_k),
            judge_filter(chosen, pool, tools.encoder, config.consistency_top_k),
        )


def judge_writer(
    chosen: Sequence[Candidate], pool: Sequence[Candidate], asker: LLMClient, encoder: TextEncoder, top_k: int
) -> WriterQuality:
    """What the writer behind `asker` makes of `chosen`, judged by the fields of Atlas."""
    asked, refused, _ = run_stage(QuestionStep(asker).stage(), chosen)
    back = _lead_back(asked, [one.id for one in asked], pool, encoder, top_k)
    rewritten, unnamed, _ = run_stage(EntityStep(asker).stage(), asked)
    kept, leaks, _ = run_stage(LeakCheck().stage(), rewritten)
    leaked = [one for one in rewritten if leaked_name(one.fused, one.names, one.kind)]
    stems = Counter(_without_names(one) for one in asked)
    consistent = {one.id for one, led in zip(asked, back, strict=True) if led}
    return WriterQuality(
        passages=len(chosen),
        answerable=_share(len(asked), len(chosen)),
        gold_answers=_share(sum(_is_gold(one) for one in asked), len(asked)),
        consistent=_share(len(consistent), len(asked)),
        rewritten=_share(len(rewritten), len(chosen)),
        leaked=_share(len(leaked), len(rewritten)),
        usable=_share(sum(one.id in consistent for one in kept), len(chosen)),
        distinct=_share(sum(count == 1 for count in stems.values()), len(asked)),
        openings=_entropy([" ".join(one.question.split()[:2]).casefold() for one in asked]),
        refused=dict(Counter(f"{one.step}: {one.reason}" for one in (*refused, *unnamed, *leaks)).most_common()),
    )


def judge_filter(
    chosen: Sequence[Candidate], pool: Sequence[Candidate], encoder: TextEncoder, top_k: int
) -> FilterQuality:
    """Gold questions with their own passage should be kept, and those dealt the next one's passage refused.

    A question about the same place may well find another passage of that place, so wrong passages are of other places.
    """
    asker = LLMClient(RuleWriter(), None, attempts=1)
    gold, _, _ = run_stage(QuestionStep(asker).stage(), chosen)
    right = [one.id for one in gold]
    wrong = [_of_another_place(number, gold) for number in range(len(gold))]
    kept = sum(_lead_back(gold, right, pool, encoder, top_k))
    let_through = sum(_lead_back(gold, wrong, pool, encoder, top_k))
    return FilterQuality(2 * len(gold), _share(kept, kept + let_through), _share(kept, len(gold)))


def _of_another_place(number: int, gold: Sequence[Candidate]) -> str:
    others = (gold[(number + step) % len(gold)] for step in range(1, len(gold)))
    return next((one.id for one in others if one.entity_group != gold[number].entity_group), gold[number].id)


def _lead_back(
    asked: Sequence[Candidate], own: Sequence[str], pool: Sequence[Candidate], encoder: TextEncoder, top_k: int
) -> list[bool]:
    rows = {one.id: row for row, one in enumerate(pool)}
    vectors = encoder.passages([one.text for one in pool])
    return passage_in_top_k(
        [one.question for one in asked], [rows[id_] for id_ in own], vectors, encoder.queries, top_k
    )


def _is_gold(one: Candidate) -> bool:
    answer = _folded(one.answer)
    known = [value for value in map(_folded, one.facts.values()) if value]
    return any(f" {answer} " in f" {value} " or f" {value} " in f" {answer} " for value in known)


def _without_names(one: Candidate) -> str:
    text = _folded(one.question)
    for name in filter(None, map(_folded, one.names)):
        text = text.replace(name, "_")
    return text


def _folded(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _entropy(values: Sequence[str]) -> float:
    counts = Counter(values)
    return sum(-n / len(values) * math.log2(n / len(values)) for n in counts.values())


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
