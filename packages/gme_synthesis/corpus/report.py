"""What a run leaves for people: ``funnel.json`` and ``funnel.svg``, and a dataset card made from what happened.

Everything here is a function of data, config and recorded answers: a rerun writes the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gme_synthesis.corpus.card import write_card
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.funnel import funnel
from gme_synthesis.funnel_plot import plot_funnel
from gme_synthesis.llm.asking import Usage
from gme_synthesis.records import Tally


@dataclass(slots=True)
class Account:
    """What the shards of one stretch come to.

    Attributes:
        tallies: Counts by step.
        usage: What language models used, by step.
        seconds: Wall time by step; no part of the output.
        marks: What was noticed of the candidates that went on, by passage.
    """

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


def account_of(journal: ShardJournal, spool: Spool) -> Account:
    """The account of a stretch; its rejects go to the spool."""
    account = Account()
    for shard in journal.shards():
        account.add(shard)
        spool.reject(shard.rejects)
    return account


def write_report(
    folder: Path,
    config: CorpusSynthesisConfig,
    selection: Selection,
    spool: Spool,
    accounts: Sequence[Account],
    tallies: Sequence[Tally],
) -> None:
    """Write ``funnel.json``, ``funnel.svg``, ``README.md`` and ``card/``.

    `marks` counts the passages behind the examples, `noticed` those that cleaning and captions let through.
    """
    facts = funnel(tallies, spool.count("train"))
    facts["usage"] = _usage({step: usage for one in accounts for step, usage in one.usage.items()})
    facts["skipped"] = skipped(config)
    facts["marks"] = dict(sorted(selection.marks.items()))
    facts["noticed"] = dict(sorted(_noticed(accounts).items()))
    facts["splits"] = spool.splits()
    (folder / "funnel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    plot_funnel(folder / "funnel.svg", tallies)
    write_card(folder, config, selection, spool, facts)


def skipped(config: CorpusSynthesisConfig) -> dict[str, str]:
    """Steps of the paper that this run left out, and why."""
    reasons = {
        "classify": (config.classifier.by == "none", "classifier.by is none: passages are not sampled over classes"),
        "generate": (config.generation is None, "no section `generation`: there is no diffusion model to draw with"),
        "search": (config.search.by == "none", "search.by is none"),
        "picture-score": (not config.picture_filter.model, "picture_filter.model is empty: no model to judge by yet"),
        "decontaminate": (not config.benchmarks, "benchmarks is empty: nothing to keep apart from"),
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
