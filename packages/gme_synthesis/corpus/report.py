"""What a run leaves for people: ``funnel.json`` and ``funnel.svg``, and a dataset card made from what happened.

Everything here is a function of data, config and recorded answers: a rerun writes the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gme_synthesis.candidates import Candidate
from gme_synthesis.corpus.card import write_card
from gme_synthesis.corpus.config import CHAMPION, SynthesisConfig
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.corpus.store import Corpus
from gme_synthesis.funnel import funnel
from gme_synthesis.funnel_plot import plot_funnel
from gme_synthesis.llm.client import Usage
from gme_synthesis.records import Tally


@dataclass(slots=True)
class Account:
    """What the shards of one stretch come to.

    Attributes:
        spool: Gets their rejects, and sees which pictures are asked about as whose.
        tallies: Counts by step.
        usage: What language models used, by step.
        seconds: Wall time by step; no part of the output.
        marks: What was noticed of the candidates that went on, by passage.
    """

    spool: Spool
    tallies: dict[str, Tally] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)
    seconds: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)

    def add(self, shard: Shard) -> None:
        """Add a shard."""
        for one in shard.tallies:
            self.tallies.setdefault(one.step, Tally(one.step)).add(one)
        for step, usage in shard.usage.items():
            self.usage[step] = self.usage.get(step, Usage()) + usage
        self.seconds.update(shard.seconds)
        self.marks.update(mark for one in shard.candidates for mark in one.marks)
        self.spool.reject(shard.rejects)
        asked = (one for one in (*shard.candidates, *shard.named) if one.question)
        for image, group in {(image, one.entity_group) for one in asked for image in _pictures_of(one)}:
            self.spool.sees(image, group)


def _pictures_of(one: Candidate) -> Iterator[str]:
    return filter(None, (one.picture, *(sight.image for sight in one.sights)))


def write_report(
    folder: Path,
    config: SynthesisConfig,
    selection: Selection,
    spool: Spool,
    accounts: Sequence[Account],
    tallies: Sequence[Tally],
    left_out: Mapping[str, str],
) -> None:
    """Write ``funnel.json``, ``funnel.svg``, ``README.md`` and ``card/``.

    `marks` counts the passages behind the examples, `noticed` those that cleaning and captions let through.
    """
    facts = funnel(tallies, spool.count("train"))
    facts["usage"] = _usage({step: usage for one in accounts for step, usage in one.usage.items()})
    facts["skipped"] = left_out
    facts["marks"] = dict(sorted(selection.marks.items()))
    facts["noticed"] = dict(sorted(_noticed(accounts).items()))
    facts["splits"] = spool.splits()
    (folder / "funnel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    plot_funnel(folder / "funnel.svg", tallies)
    write_card(folder, config, selection, spool, facts)


def skipped(config: SynthesisConfig, judge: Path | None, corpus: Corpus) -> dict[str, str]:
    """Steps of the paper that this run left out, and why."""
    scorer = config.picture_filter.model
    no_champion = scorer == CHAMPION and judge is None
    nobody = "no champion is registered yet to judge by" if no_champion else "picture_filter.model is empty"
    nothing_apart = not config.benchmarks and corpus.tasks is None
    reasons = {
        "classify": (config.classifier.by == "none", "classifier.by is none: passages are not sampled over classes"),
        "generate": (config.generation is None, "no section `generation`: there is no diffusion model to draw with"),
        "search": (config.search.by == "none", "search.by is none"),
        "picture-score": (no_champion or not scorer, nobody),
        "decontaminate": (nothing_apart, "benchmarks is empty: nothing to keep apart from"),
    }
    return {step: why for step, (is_out, why) in reasons.items() if is_out}


def _noticed(accounts: Sequence[Account]) -> Counter[str]:
    """Marks of the first stretch, and those that later ones added."""
    found = Counter(accounts[0].marks)
    for account in accounts[1:]:
        found.update({mark: count for mark, count in account.marks.items() if mark not in accounts[0].marks})
    return found


def _usage(by_step: Mapping[str, Usage]) -> Mapping[str, dict[str, Any]]:
    """Requests, tokens and dollars by step, and all together."""
    whole = sum(by_step.values(), Usage())
    return {
        step: {**asdict(usage), "dollars": round(usage.dollars, 6)} for step, usage in {**by_step, "all": whole}.items()
    }
