"""Which steps there are, in the paper's order, and how a shard goes through them, whatever the corpus.

Two stretches with a barrier between: cleaning and classes are needed of all passages before any is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gme_data.images import ImageRecord
from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.corpus.tools import Tools
from gme_synthesis.records import Stage, check_columns, run_stage
from gme_synthesis.steps.classification import EncoderClassifier, ModelClassifier
from gme_synthesis.steps.cleaning import Cleaner
from gme_synthesis.steps.consistency import ConsistencyStep
from gme_synthesis.steps.drafts import DraftStep
from gme_synthesis.steps.entity import EntityStep, LeakCheck
from gme_synthesis.steps.generation import CaptionStep, FluxGenerator, GenerationStep
from gme_synthesis.steps.picture_score import PictureFilter
from gme_synthesis.steps.picture_search import PortraitStep, RequirePictures, SearchStep
from gme_synthesis.steps.question import QuestionStep


@dataclass(frozen=True, slots=True)
class Part:
    """A step by name.

    Attributes:
        build: Makes the step with what the process has.
        gpu: Whether it belongs on an actor with a GPU.
        named: Whether what it refuses can still be asked by name: it passed the consistency filter.
    """

    build: Callable[[Tools], Stage]
    gpu: bool = False
    named: bool = False


def _classifier(tools: Tools) -> Stage:
    config = tools.config.classifier
    if config.by == "writer":
        return ModelClassifier(tools.asker, config.min_confidence).stage()
    return EncoderClassifier(tools.encoder.passages, config.min_confidence).stage()


def _consistency(tools: Tools) -> Stage:
    config, encoder = tools.config, tools.encoder
    top_k, judged = config.consistency_top_k, config.judged_per_fact
    return ConsistencyStep(tools.pool_rows, tools.pool, encoder.queries, top_k, judged).stage()


def _search(tools: Tools) -> Stage:
    config = tools.config.search
    if config.by == "portraits":
        return PortraitStep(config.count, tools.config.seed).stage()
    return SearchStep(tools.searcher, config.count).stage()


def _caption(tools: Tools) -> Stage:
    config = tools.config.generation
    return CaptionStep(tools.asker, config.share if config else 0, tools.config.seed).stage()


def _generation(tools: Tools) -> Stage:
    config = tools.config.generation
    if config is None:
        raise ValueError("there is nothing to draw with")
    return GenerationStep(FluxGenerator(config), tools.keep, config.licence, tools.config.seed).stage()


def _picture_filter(tools: Tools) -> Stage:
    config = tools.config.picture_filter
    return PictureFilter(
        tools.load_picture,
        tools.scorer,
        min_score=config.min_score,
        routes=config.routes,
        min_side=config.min_side,
        min_std=config.min_std,
        ambiguous=tools.look_alikes,
    ).stage()


PARTS: Mapping[str, Part] = MappingProxyType(
    {
        "clean": Part(lambda tools: Cleaner(tools.config.cleaning).stage()),
        "classify": Part(_classifier),
        "draft": Part(lambda tools: DraftStep(tools.config.wordings_per_fact).stage()),
        "question": Part(lambda tools: QuestionStep(tools.asker).stage()),
        "consistency": Part(_consistency),
        "entity": Part(lambda tools: EntityStep(tools.asker).stage(), named=True),
        "leak": Part(lambda _: LeakCheck().stage(), named=True),
        "search": Part(_search),
        "caption": Part(_caption),
        "generate": Part(_generation, gpu=True),
        "pictures": Part(lambda _: RequirePictures().stage(), named=True),
        "picture-filter": Part(_picture_filter, gpu=True, named=True),
    }
)
JUDGES = frozenset({"clean", "classify", "question", "consistency", "entity", "leak"})
"""Steps whose rejects count for the reject rate."""


def first_stretch(config: SynthesisConfig) -> tuple[str, ...]:
    """Steps before passages are chosen."""
    return ("clean", "classify") if config.classifier.by != "none" else ("clean",)


def second_stretch(config: SynthesisConfig) -> tuple[str, ...]:
    """Steps from question to picture; those of a route that the config doesn't take are left out."""
    route = ["search"] * (config.search.by != "none") + ["caption", "generate"] * (config.generation is not None)
    drafts = ["draft"] * (config.wordings_per_fact > 0)
    return (*drafts, "question", "consistency", "entity", "leak", *route, "pictures", "picture-filter")


class Chain:
    """Some steps of a stretch, built in this process with the first shard.

    Args:
        names: Keys of `PARTS`, in order.
        tools: What the steps share.
        given: Columns that are filled in what comes in; None leaves them unchecked, for the later parts of a stretch.
    """

    def __init__(self, names: Sequence[str], tools: Tools, given: Sequence[str] | None = None) -> None:
        self._names, self._tools, self._given = names, tools, given
        self._stages: list[Stage] = []

    def run(self, shard: Shard) -> Shard:
        """The shard with these steps done."""
        if not self._stages:
            self._stages = [PARTS[name].build(self._tools) for name in self._names]
            if self._given is not None:
                check_columns(self._stages, self._given)
        for record in shard.pictures:
            self._tools.keep(record)
        for name, stage in zip(self._names, self._stages, strict=True):
            shard = self._step(shard, stage, named=PARTS[name].named)
        return replace(shard, pictures=_needed(self._tools, shard))

    def _step(self, shard: Shard, stage: Stage, *, named: bool) -> Shard:
        started = time.monotonic()
        kept, rejects, counted = run_stage(stage, shard.candidates)
        usage = self._tools.take_usage()
        return replace(
            shard,
            candidates=kept,
            named=[*shard.named, *(_lost(shard.candidates, kept) if named else [])],
            rejects=[*shard.rejects, *rejects],
            tallies=[*shard.tallies, counted],
            usage={**shard.usage, **({stage.name: usage} if usage.requests else {})},
            seconds={**shard.seconds, stage.name: round(time.monotonic() - started, 4)},
        )


def _lost(before: Sequence[Candidate], after: Sequence[Candidate]) -> list[Candidate]:
    kept = {one.subject for one in after}
    return [one for one in before if one.subject not in kept]


def _needed(tools: Tools, shard: Shard) -> list[ImageRecord]:
    """The new pictures that candidates still refer to."""
    used = {sight.image for candidate in shard.candidates for sight in candidate.sights}
    return [record for record in tools.take_pictures() if record.id in used]
