"""The dataset card: ``README.md`` with the metadata that Hugging Face reads, generated from what the run did.

Says what is known (sources, licences, counts, prompts, models, filters, examples, limits) and invents nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gme_synthesis.corpus.card_parts import examples_section, front_matter, funnel_section, table
from gme_synthesis.corpus.chain import first_stretch, second_stretch
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.spool import Spool
from gme_synthesis.llm.prompts import load_prompt

_PROMPTS = {"question": "question", "entity": "entity", "caption": "caption"}


def write_card(
    folder: Path, config: SynthesisConfig, selection: Selection, spool: Spool, facts: Mapping[str, Any]
) -> None:
    """Write ``README.md`` and the pictures that it shows, in ``card/``."""
    parts = [
        front_matter(spool.licences(), facts["examples"]),
        "# Fused-modal training data\n",
        "Made by GME Foundry from passages and pictures, the way the GME paper describes in its section 3. This card\n"
        "is generated from the run; `funnel.json` has its numbers, `rejects/` what was refused, by step and reason.\n",
        _counts(facts),
        _sources(selection, spool),
        _models(config, facts),
        funnel_section(facts),
        _prompts(config),
        examples_section(folder, spool.examples("train"), selection.album.load),
        _limits(config, facts),
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


def _counts(facts: Mapping[str, Any]) -> str:
    types = {name: count for name, count in facts["task_types"].items() if count}
    rows = table(("task type", "training examples"), types.items())
    shares = ", ".join(f"{name} {count:,}" for name, count in facts["splits"].items())
    return f"## Counts\n\n{rows}\n\nExamples by split, which goes by entity: {shares}.\n"


def _sources(selection: Selection, spool: Spool) -> str:
    album = selection.album
    shown = ((album.source(id_), album.licence(id_)) for id_ in spool.used_pictures())
    pictures = Counter((source.partition(":")[0].partition(" ")[0][:60], licence) for source, licence in shown)
    rows = [("passages", *key, count) for key, count in sorted(selection.sources.items())]
    rows += [("pictures", *key, count) for key, count in sorted(pictures.items())]
    return f"## Sources and licences\n\n{table(('what', 'source', 'licence', 'count'), rows)}\n"


def _models(config: SynthesisConfig, facts: Mapping[str, Any]) -> str:
    writer = config.writer
    names = {
        "rules": "rules over structured fields",
        "local": writer.local.path or "SmolLM2-135M-Instruct",
        "endpoint": writer.endpoint.model if writer.endpoint else "",
    }
    rows = [
        ("questions, rewrites, captions", names[writer.kind]),
        ("consistency filter", f"{config.encoder}, top {config.consistency_top_k}"),
        ("drawing", config.generation.path if config.generation else "-"),
        ("picture filter", f"{config.picture_filter.model or '-'}, score at least {config.picture_filter.min_score:g}"),
    ]
    usage = facts["usage"]["all"]
    spent = f"{usage['requests']:,} answers, {usage['tokens_in']:,} tokens in, {usage['tokens_out']:,} out"
    return f"## Models and filters\n\n{table(('for', 'model'), rows)}\n\n{spent}, {usage['dollars']:.2f} dollars.\n"


def _prompts(config: SynthesisConfig) -> str:
    steps = {*first_stretch(config), *second_stretch(config)}
    names = [name for step, name in _PROMPTS.items() if step in steps]
    names += ["domain"] * (config.classifier.by == "writer")
    if config.writer.kind == "rules":
        return "## Prompts\n\nNone: the writer goes by rules.\n"
    prompts = [load_prompt(name) for name in names]
    return "## Prompts\n\n" + "\n".join(
        f"**{one.name}**, version {one.version}, digest `{one.digest[:12]}`:\n\n> {one.system}\n" for one in prompts
    )


def _limits(config: SynthesisConfig, facts: Mapping[str, Any]) -> str:
    return "## Known limits\n\n" + "\n".join(f"- {line}" for line in _limit_lines(config, facts)) + "\n"


def _limit_lines(config: SynthesisConfig, facts: Mapping[str, Any]) -> Iterator[str]:
    if config.wordings_per_fact:
        yield "Questions are frames filled from structured fields: correct, and all alike in style."
        if config.judged_per_fact < config.wordings_per_fact:
            yield "Wordings of a fact share the verdict of the consistency filter on the first of them."
    else:
        yield "Questions and rewrites are machine-written; the filters judge words and vectors, nobody read them all."
    marks = facts["marks"]
    personal = {mark.partition(":")[2]: count for mark, count in marks.items() if mark.startswith("personal:")}
    found = ", ".join(f"{count:,} with {name}" for name, count in personal.items())
    yield f"Passages with personal data, found by patterns: {found or 'none'}."
    if marks.get("cut"):
        yield f"{marks['cut']:,} passages were cut; what stood after the cut is not asked for."
    undrawn = sum(count for mark, count in facts["noticed"].items() if mark.startswith("no-caption:"))
    if undrawn:
        yield f"{undrawn:,} entities got no drawn picture: the writer gave no caption."
    missing = [name for name, count in facts["task_types"].items() if not count]
    if missing:
        yield f"No examples of {', '.join(missing)}."
    yield "A question's positive is the passage it was made from; other passages may answer it as well."
