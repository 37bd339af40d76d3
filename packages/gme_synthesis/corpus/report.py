"""What a run leaves for people: ``funnel.json`` and ``funnel.svg``, and a dataset card made from what happened.

Everything here is a function of data, config and recorded answers: a rerun writes the same bytes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gme_synthesis.corpus.card import write_card
from gme_synthesis.corpus.config import CorpusSynthesisConfig
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.shards import Shard
from gme_synthesis.funnel import funnel
from gme_synthesis.funnel_plot import plot_funnel
from gme_synthesis.llm.asking import Usage
from gme_synthesis.records import Tally


def write_report(
    folder: Path,
    config: CorpusSynthesisConfig,
    selection: Selection,
    shards: Sequence[Shard],
    tallies: Sequence[Tally],
) -> None:
    """Write ``funnel.json``, ``funnel.svg``, ``README.md`` and ``card/``."""
    facts = funnel(tallies, selection.train)
    facts["usage"] = _usage(shards)
    facts["skipped"] = skipped(config)
    facts["marks"] = dict(sorted(Counter(mark for one in selection.named for mark in one.marks).items()))
    facts["splits"] = dict(sorted(Counter(example.split for example in selection.examples).items()))
    (folder / "funnel.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    plot_funnel(folder / "funnel.svg", tallies)
    write_card(folder, config, selection, facts)


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


def _usage(shards: Iterable[Shard]) -> Mapping[str, dict[str, Any]]:
    """Requests, tokens and dollars by step, and all together."""
    total: dict[str, Usage] = {}
    for step, usage in (pair for shard in shards for pair in shard.usage.items()):
        total[step] = total.get(step, Usage()) + usage
    whole = sum(total.values(), Usage())
    return {
        step: {
            "requests": usage.requests,
            "tokens_in": usage.tokens_in,
            "tokens_out": usage.tokens_out,
            "dollars": round(usage.dollars, 6),
        }
        for step, usage in {**total, "all": whole}.items()
    }
