"""What a run publishes for people: ``funnel.json`` and ``funnel.svg``, and a dataset card generated from the run.

All of it is a function of data, config and journaled answers: a rerun writes the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from gme_data.funnel import FUNNEL
from gme_synthesis.corpus.card import write_card
from gme_synthesis.corpus.config import CHAMPION, SynthesisConfig
from gme_synthesis.corpus.example_buffer import ExampleBuffer
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.corpus.store import Corpus
from gme_synthesis.funnel import build_funnel
from gme_synthesis.funnel_plot import plot_funnel
from gme_synthesis.llm.client import Usage
from gme_synthesis.stages import Tally


@dataclass(slots=True)
class PassTotals:
    """Sums over the shards of one pass.

    Attributes:
        buffer: Gets their rejects, and the entity groups of the images that questions are asked about.
        tallies: Counts by step.
        usage: Requests and tokens of the writer, by step.
        seconds: Wall time in seconds, by step; no part of the output.
        marks: Number of the candidates that were kept, by mark.
    """

    buffer: ExampleBuffer
    tallies: dict[str, Tally] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    def add(self, shard: Shard) -> None:
        """Adds a shard."""
        for tally in shard.tallies:
            self.tallies.setdefault(tally.step, Tally(tally.step)).add(tally)
        for step, usage in shard.usage.items():
            self.usage[step] = self.usage.get(step, Usage()) + usage
        self.seconds.update(shard.seconds)
        self.marks.update(mark for candidate in shard.candidates for mark in candidate.marks)
        self.buffer.add_rejects(shard.rejects)
        # Without a question there is no example, so only these images could show a held-out entity in training.
        questions = [candidate for candidate in (*shard.candidates, *shard.named) if candidate.question]
        # A set, since many questions of a shard are about the same images.
        image_groups = {
            (image, candidate.entity_group)
            for candidate in questions
            for image in (candidate.picture, *(entity_image.image for entity_image in candidate.entity_images))
            if image
        }
        for image, group in image_groups:
            self.buffer.add_image_group(image, group)


def write_report(
    folder: Path,
    config: SynthesisConfig,
    selection: Selection,
    buffer: ExampleBuffer,
    totals: Sequence[PassTotals],
    tallies: Sequence[Tally],
    skipped: Mapping[str, str],
) -> None:
    """Writes ``funnel.json``, ``funnel.svg``, ``README.md`` and ``card/``.

    In the funnel, `marks` counts the passages behind the examples, `noticed` those that cleaning and captions let
    through.

    Args:
        folder: The output folder.
        config: The configuration of the run.
        selection: What was selected.
        buffer: The examples.
        totals: Sums of the passes, in order.
        tallies: Counts of all steps, in order.
        skipped: Steps that the run left out, with the reason.
    """
    funnel = build_funnel(tallies, buffer.count("train"))
    usages = {step: usage for one_pass in totals for step, usage in one_pass.usage.items()}
    usages["all"] = sum(usages.values(), Usage())
    funnel["usage"] = {step: {**asdict(usage), "dollars": round(usage.dollars, 6)} for step, usage in usages.items()}
    funnel["skipped"] = skipped
    funnel["marks"] = dict(sorted(selection.marks.items()))
    funnel["noticed"] = dict(sorted(_noticed_marks(totals).items()))
    funnel["splits"] = buffer.count_splits()
    (folder / FUNNEL).write_text(json.dumps(funnel, indent=1) + "\n", encoding="utf-8")
    plot_funnel(folder / "funnel.svg", tallies)
    write_card(folder, config, selection, buffer, funnel)


def skipped_steps(config: SynthesisConfig, champion: Path | None, corpus: Corpus) -> dict[str, str]:
    """Returns the steps of the paper that this run left out, with the reason.

    Args:
        config: The configuration of the run.
        champion: The champion that scores pictures; None if none is registered yet, or none is configured.
        corpus: The corpus.
    """
    scorer = config.picture_filter.model
    no_champion = scorer == CHAMPION and champion is None
    no_scorer = "no champion is registered yet to judge by" if no_champion else "picture_filter.model is empty"
    no_benchmark = not config.benchmarks and corpus.tasks is None
    reasons = {
        "classify": (config.classifier.by == "none", "classifier.by is none: passages are not sampled over classes"),
        "generate": (config.generation is None, "no section `generation`: there is no diffusion model to draw with"),
        "search": (config.search.by == "none", "search.by is none"),
        "picture-score": (no_champion or not scorer, no_scorer),
        "decontaminate": (no_benchmark, "benchmarks is empty: nothing to keep apart from"),
    }
    return {step: reason for step, (is_skipped, reason) in reasons.items() if is_skipped}


def _noticed_marks(totals: Sequence[PassTotals]) -> Counter[str]:
    """Returns the marks of the first pass, and those that a later pass added."""
    # Candidates keep their marks, so a mark of the first pass is in the totals of the second one again.
    noticed = Counter(totals[0].marks)
    for later in totals[1:]:
        noticed.update({mark: count for mark, count in later.marks.items() if mark not in totals[0].marks})
    return noticed
