"""The dataset card: ``README.md`` with the metadata that Hugging Face reads, generated from what the run did.

It states sources, licences, counts, prompts, models, filters, examples and limits as the run had them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gme_synthesis.corpus.card_sections import examples_section, front_matter, funnel_section, markdown_table
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.example_buffer import ExampleBuffer
from gme_synthesis.corpus.selection import Selection
from gme_synthesis.corpus.shard_runner import writing_steps
from gme_synthesis.llm.prompts import load_prompt

_STEPS_WITH_PROMPT = ("question", "entity", "caption")
"""The prompt of such a step has the name of the step."""


def write_card(
    folder: Path, config: SynthesisConfig, selection: Selection, buffer: ExampleBuffer, funnel: Mapping[str, Any]
) -> None:
    """Writes ``README.md`` and the pictures that it shows, in ``card/``; `funnel` is the content of ``funnel.json``."""
    sections = [
        front_matter(buffer.licences(), funnel["examples"]),
        "# Fused-modal training data\n",
        "Made by GME Foundry from passages and pictures, the way the GME paper describes in its section 3. This card\n"
        "is generated from the run; `funnel.json` has its numbers, `rejects/` what was refused, by step and reason.\n",
        _counts_section(funnel),
        _sources_section(selection, buffer),
        _models_section(config, funnel),
        funnel_section(funnel),
        _prompts_section(config),
        examples_section(folder, buffer.examples("train"), selection.pictures.load),
        "## Known limits\n\n" + "\n".join(f"- {line}" for line in _limits(config, funnel)) + "\n",
    ]
    (folder / "README.md").write_text("\n".join(sections), encoding="utf-8")


def _counts_section(funnel: Mapping[str, Any]) -> str:
    types = {name: count for name, count in funnel["task_types"].items() if count}
    table = markdown_table(("task type", "training examples"), types.items())
    splits = ", ".join(f"{name} {count:,}" for name, count in funnel["splits"].items())
    return f"## Counts\n\n{table}\n\nExamples by split, which goes by entity: {splits}.\n"


def _sources_section(selection: Selection, buffer: ExampleBuffer) -> str:
    pictures = Counter[tuple[str, str]]()
    for id_ in buffer.used_pictures():
        # One row a file would be no overview: "corpus:file" counts as its corpus, a generated picture as its model.
        source = selection.pictures.source(id_).partition(":")[0].partition(" ")[0][:60]
        pictures[source, selection.pictures.licence(id_)] += 1
    rows = [("passages", *key, count) for key, count in sorted(selection.sources.items())]
    rows += [("pictures", *key, count) for key, count in sorted(pictures.items())]
    return f"## Sources and licences\n\n{markdown_table(('what', 'source', 'licence', 'count'), rows)}\n"


def _models_section(config: SynthesisConfig, funnel: Mapping[str, Any]) -> str:
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
    usage = funnel["usage"]["all"]
    tokens = f"{usage['tokens_in']:,} tokens in, {usage['tokens_out']:,} out"
    total = f"{usage['requests']:,} answers, {tokens}, {usage['dollars']:.2f} dollars."
    return f"## Models and filters\n\n{markdown_table(('for', 'model'), rows)}\n\n{total}\n"


def _prompts_section(config: SynthesisConfig) -> str:
    if config.writer.kind == "rules":
        return "## Prompts\n\nNone: the writer goes by rules.\n"
    steps = writing_steps(config)
    names = [step for step in _STEPS_WITH_PROMPT if step in steps]
    names += ["domain"] * (config.classifier.by == "writer")
    prompts = [load_prompt(name) for name in names]
    return "## Prompts\n\n" + "\n".join(
        f"**{prompt.name}**, version {prompt.version}, digest `{prompt.digest[:12]}`:\n\n> {prompt.system}\n"
        for prompt in prompts
    )


def _limits(config: SynthesisConfig, funnel: Mapping[str, Any]) -> Iterator[str]:
    """Yields the known limits of the data, a sentence each."""
    if config.wordings_per_fact:
        yield "Questions are frames filled from structured fields: correct, and all alike in style."
        if config.encoded_per_fact < config.wordings_per_fact:
            yield "Wordings of a fact share the verdict of the consistency filter on the first of them."
    else:
        yield "Questions and rewrites are machine-written; the filters judge words and vectors, nobody read them all."
    marks = funnel["marks"]
    # Marks of the passages behind the examples: what was refused in the end is no limit of the data.
    personal = {mark.partition(":")[2]: count for mark, count in marks.items() if mark.startswith("personal:")}
    matches = ", ".join(f"{count:,} with {name}" for name, count in personal.items())
    yield f"Passages with personal data, found by patterns: {matches or 'none'}."
    if marks.get("cut"):
        yield f"{marks['cut']:,} passages were cut; what stood after the cut is not asked for."
    without_caption = sum(count for mark, count in funnel["noticed"].items() if mark.startswith("no-caption:"))
    if without_caption:
        yield f"{without_caption:,} entities got no drawn picture: the writer gave no caption."
    missing = [name for name, count in funnel["task_types"].items() if not count]
    if missing:
        yield f"No examples of {', '.join(missing)}."
    yield "A question's positive is the passage it was made from; other passages may answer it as well."
