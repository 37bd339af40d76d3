"""Measures writers and filters on Atlas questions with known answers, about countries that nothing was trained on.

Of a writer: the share of passages that it makes a usable question of, whether the answers are right, whether names
leak, and how much the questions differ. Of the consistency filter: how well it separates questions with their own
passage from questions that were dealt the passage of another country.
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
from gme_synthesis.corpus.resources import Resources, RunFolders
from gme_synthesis.encoders import TextEncoder
from gme_synthesis.llm.client import LLMClient
from gme_synthesis.llm.rules import RuleWriter
from gme_synthesis.stages import run_stage, shuffled
from gme_synthesis.steps.consistency import passage_in_top_k
from gme_synthesis.steps.entity import EntityStep, LeakCheck, leaked_name
from gme_synthesis.steps.question import QuestionStep


@dataclass(frozen=True, slots=True)
class WriterQuality:
    """What a writer made of some passages. Shares are 0..1.

    Attributes:
        passages: Number of passages.
        answerable: Share of the passages with a question whose answer stands in the passage.
        gold_answers: Share of those questions whose answer is one of the known values, or holds or is held by one.
        consistent: Share of those questions that retrieve their passage in the top k.
        rewritten: Share of the passages with a rewrite, leaking or not.
        leaked: Share of the rewrites that still hold a name, before the leak check.
        usable: Share of the passages that give a fused question in the end.
        distinct: Share of the questions that no other question equals, names left out.
        openings: Entropy of the first two words of the questions, in bits.
        refused: Number of refusals by step and reason, the most frequent first.
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
    """The consistency filter as a classifier of pairs of question and passage.

    Attributes:
        filter_pairs: Number of pairs: questions with their own passage, and as many with another's.
        filter_precision: Share of the kept pairs that are a question with its own passage.
        filter_recall: Share of the questions with their own passage that are kept.
    """

    filter_pairs: int
    filter_precision: float
    filter_recall: float


@dataclass(frozen=True, slots=True)
class Quality:
    """Quality of writer and filter together."""

    writer: WriterQuality
    filter: FilterQuality


def measure_quality(config: SynthesisConfig, atlas: Path, answers: Path, sample: int, split: str = "test") -> Quality:
    """Measures the writer and the filter of a config on up to `sample` passages of a split of Atlas.

    Raises:
        FoundryError: There is no Atlas, `sample` is less than 1, or the writer can't be asked.
    """
    if sample < 1:
        raise FoundryError(f"--sample {sample}: expected at least one passage.")
    candidates = {candidate.id: candidate for candidate in open_atlas(atlas, split).passages()}
    chosen = [candidates[id_] for id_ in shuffled(sorted(candidates), config.seed, "quality")[:sample]]
    pool = list(candidates.values())
    # Nothing of a run is written: the scratch folder is never used.
    with closing(Resources(config, RunFolders(atlas, atlas, answers))) as resources:
        return Quality(
            measure_writer(chosen, pool, resources.llm_client, resources.encoder, config.consistency_top_k),
            measure_filter(chosen, pool, resources.encoder, config.consistency_top_k),
        )


def measure_writer(
    chosen: Sequence[Candidate], pool: Sequence[Candidate], client: LLMClient, encoder: TextEncoder, top_k: int
) -> WriterQuality:
    """Measures what the writer behind `client` makes of `chosen`, by the structured fields of Atlas.

    Args:
        chosen: The passages that it is asked about.
        pool: All passages that the consistency filter searches.
        client: The writer.
        encoder: Text encoder of the consistency filter.
        top_k: Rank within which a question must retrieve its passage.
    """
    questions, refused, _ = run_stage(QuestionStep(client).stage(), chosen)
    in_top_k = _retrieve_in_top_k(questions, [question.id for question in questions], pool, encoder, top_k)
    rewritten, unnamed, _ = run_stage(EntityStep(client).stage(), questions)
    fused, leaks, _ = run_stage(LeakCheck().stage(), rewritten)
    leaked = [rewrite for rewrite in rewritten if leaked_name(rewrite.fused, rewrite.names, rewrite.kind)]
    # One question about two countries is one wording, so the names are left out.
    wordings = Counter(_without_names(question) for question in questions)
    consistent = {question.id for question, is_in in zip(questions, in_top_k, strict=True) if is_in}
    reasons = Counter(f"{reject.step}: {reject.reason}" for reject in (*refused, *unnamed, *leaks))
    return WriterQuality(
        passages=len(chosen),
        answerable=_share(len(questions), len(chosen)),
        gold_answers=_share(sum(_is_gold(question) for question in questions), len(questions)),
        consistent=_share(len(consistent), len(questions)),
        rewritten=_share(len(rewritten), len(chosen)),
        leaked=_share(len(leaked), len(rewritten)),
        usable=_share(sum(question.id in consistent for question in fused), len(chosen)),
        distinct=_share(sum(count == 1 for count in wordings.values()), len(questions)),
        openings=_entropy([" ".join(question.question.split()[:2]).casefold() for question in questions]),
        refused=dict(reasons.most_common()),
    )


def measure_filter(
    chosen: Sequence[Candidate], pool: Sequence[Candidate], encoder: TextEncoder, top_k: int
) -> FilterQuality:
    """Measures the consistency filter on questions by rules, each with its own passage and with a wrong one.

    Questions with their own passage should be kept, those dealt another passage refused. Wrong passages are of another
    country: a question may well retrieve a second passage about the same country.
    """
    # The questions of rules are right by construction: their answers are fields of the passage.
    client = LLMClient(RuleWriter(), None, attempts=1)
    gold, _, _ = run_stage(QuestionStep(client).stage(), chosen)
    wrong = [_passage_of_another_group(number, gold) for number in range(len(gold))]
    true_positives = sum(_retrieve_in_top_k(gold, [question.id for question in gold], pool, encoder, top_k))
    false_positives = sum(_retrieve_in_top_k(gold, wrong, pool, encoder, top_k))
    precision = _share(true_positives, true_positives + false_positives)
    return FilterQuality(2 * len(gold), precision, _share(true_positives, len(gold)))


def _passage_of_another_group(number: int, gold: Sequence[Candidate]) -> str:
    """Returns the next passage about another entity group; its own, where all are about one."""
    others = (gold[(number + step) % len(gold)] for step in range(1, len(gold)))
    return next((other.id for other in others if other.entity_group != gold[number].entity_group), gold[number].id)


def _retrieve_in_top_k(
    questions: Sequence[Candidate], passages: Sequence[str], pool: Sequence[Candidate], encoder: TextEncoder, top_k: int
) -> list[bool]:
    """Returns whether ``passages[i]`` is among the `top_k` nearest of `pool` to ``questions[i]``, for each of them."""
    rows = {candidate.id: row for row, candidate in enumerate(pool)}
    vectors = encoder.passages([candidate.text for candidate in pool])
    texts = [question.question for question in questions]
    return passage_in_top_k(texts, [rows[id_] for id_ in passages], vectors, encoder.queries, top_k)


def _is_gold(candidate: Candidate) -> bool:
    answer = _normalise(candidate.answer)
    values = [value for value in map(_normalise, candidate.facts.values()) if value]
    # The spaces compare whole words: "s" is in "Oslo", and is no answer.
    return any(f" {answer} " in f" {value} " or f" {value} " in f" {answer} " for value in values)


def _without_names(candidate: Candidate) -> str:
    text = _normalise(candidate.question)
    for name in filter(None, map(_normalise, candidate.names)):
        text = text.replace(name, "_")
    return text


def _normalise(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))


def _entropy(values: Sequence[str]) -> float:
    """Returns the Shannon entropy of the values' frequencies, in bits."""
    counts = Counter(values)
    return sum(-n / len(values) * math.log2(n / len(values)) for n in counts.values())


def _share(count: int, total: int) -> float:
    return count / total if total else 0.0
