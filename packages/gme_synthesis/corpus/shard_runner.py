"""The steps of synthesis in the paper's order, and how a shard goes through some of them, whatever the corpus.

Two passes over the corpus have a barrier between them: all passages must be clean and classified before any is chosen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.resources import Resources
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.stages import Stage, check_columns, run_stage
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
class StepBuilder:
    """How a step is built, and what executors need to know of it.

    Attributes:
        build: Builds the step from the resources of the process.
        gpu: Whether the step belongs on an actor with a GPU.
        named: Whether a question that the step refuses can still be asked by name, as it passed the consistency filter.
    """

    build: Callable[[Resources], Stage]
    gpu: bool = False
    named: bool = False


def _classifier(resources: Resources) -> Stage:
    config = resources.config.classifier
    if config.by == "writer":
        return ModelClassifier(resources.llm_client, config.min_confidence).stage()
    return EncoderClassifier(resources.encoder.passages, config.min_confidence).stage()


def _consistency(resources: Resources) -> Stage:
    config, encoder = resources.config, resources.encoder
    top_k, per_fact = config.consistency_top_k, config.encoded_per_fact
    return ConsistencyStep(resources.pool_rows, resources.pool, encoder.queries, top_k, per_fact).stage()


def _search(resources: Resources) -> Stage:
    config = resources.config.search
    if config.by == "portraits":
        return PortraitStep(config.count, resources.config.seed).stage()
    return SearchStep(resources.searcher, config.count).stage()


def _caption(resources: Resources) -> Stage:
    config = resources.config.generation
    return CaptionStep(resources.llm_client, config.share if config else 0, resources.config.seed).stage()


def _generation(resources: Resources) -> Stage:
    config = resources.config.generation
    if config is None:
        raise ValueError("there is nothing to draw with")
    return GenerationStep(FluxGenerator(config), resources.add_picture, config.licence, resources.config.seed).stage()


def _picture_filter(resources: Resources) -> Stage:
    config = resources.config.picture_filter
    return PictureFilter(
        resources.load_picture,
        resources.scorer,
        min_score=config.min_score,
        routes=config.routes,
        min_side=config.min_side,
        min_std=config.min_std,
        ambiguous=resources.look_alikes,
    ).stage()


STEP_BUILDERS: Mapping[str, StepBuilder] = MappingProxyType(
    {
        "clean": StepBuilder(lambda resources: Cleaner(resources.config.cleaning).stage()),
        "classify": StepBuilder(_classifier),
        "draft": StepBuilder(lambda resources: DraftStep(resources.config.wordings_per_fact).stage()),
        "question": StepBuilder(lambda resources: QuestionStep(resources.llm_client).stage()),
        "consistency": StepBuilder(_consistency),
        "entity": StepBuilder(lambda resources: EntityStep(resources.llm_client).stage(), named=True),
        "leak": StepBuilder(lambda _: LeakCheck().stage(), named=True),
        "search": StepBuilder(_search),
        "caption": StepBuilder(_caption),
        "generate": StepBuilder(_generation, gpu=True),
        "pictures": StepBuilder(lambda _: RequirePictures().stage(), named=True),
        "picture-filter": StepBuilder(_picture_filter, gpu=True, named=True),
    }
)
"""All steps of the two passes, by name."""
COUNTED_STEPS = frozenset({"clean", "classify", "question", "consistency", "entity", "leak"})
"""Steps whose rejects count for the reject rate."""


def cleaning_steps(config: SynthesisConfig) -> tuple[str, ...]:
    """Returns the steps of the first pass, before passages are chosen."""
    return ("clean", "classify") if config.classifier.by != "none" else ("clean",)


def writing_steps(config: SynthesisConfig) -> tuple[str, ...]:
    """Returns the steps of the second pass, from question to picture, without those that the config leaves out."""
    route = ["search"] * (config.search.by != "none") + ["caption", "generate"] * (config.generation is not None)
    # "pictures" stays without any route, too: the questions that it refuses are still asked by name.
    drafts = ["draft"] * (config.wordings_per_fact > 0)
    return (*drafts, "question", "consistency", "entity", "leak", *route, "pictures", "picture-filter")


class ShardRunner:
    """Runs some steps of a pass over shards. The steps are built in this process with the first shard.

    Args:
        names: Keys of `STEP_BUILDERS`, in order.
        resources: What the steps share.
        filled: Columns that are filled in the shards; None leaves them unchecked, for the later steps of a pass whose
            first ones run in another process.
    """

    def __init__(self, names: Sequence[str], resources: Resources, filled: Sequence[str] | None = None) -> None:
        self._names, self._resources, self._filled = names, resources, filled
        self._stages: list[Stage] = []

    def run(self, shard: Shard) -> Shard:
        """Returns the shard with these steps done."""
        # Built late: a run whose shards are all finished must not load a model.
        if not self._stages:
            self._stages = [STEP_BUILDERS[name].build(self._resources) for name in self._names]
            if self._filled is not None:
                check_columns(self._stages, self._filled)
        # Pictures of earlier steps of the pass, which may have run in another process.
        for record in shard.pictures:
            self._resources.add_picture(record)
        for name, stage in zip(self._names, self._stages, strict=True):
            shard = self._run_step(shard, stage, named=STEP_BUILDERS[name].named)
        # A picture that no candidate refers to any more has been refused; its bytes need not be journaled.
        used = {image.image for candidate in shard.candidates for image in candidate.entity_images}
        pictures = [record for record in self._resources.take_pictures() if record.id in used]
        return replace(shard, pictures=pictures)

    def _run_step(self, shard: Shard, stage: Stage, *, named: bool) -> Shard:
        started = time.monotonic()
        accepted, rejects, tally = run_stage(stage, shard.candidates)
        usage = self._resources.take_usage()
        # Compared by subject, since a step yields changed copies of what it accepts.
        subjects = {candidate.subject for candidate in accepted}
        refused = [candidate for candidate in shard.candidates if candidate.subject not in subjects]
        return replace(
            shard,
            candidates=accepted,
            named=[*shard.named, *(refused if named else [])],
            rejects=[*shard.rejects, *rejects],
            tallies=[*shard.tallies, tally],
            usage={**shard.usage, **({stage.name: usage} if usage.requests else {})},
            seconds={**shard.seconds, stage.name: round(time.monotonic() - started, 4)},
        )
