"""The dataset card of the default chain: ``README.md`` with plot, examples and pictures, made from what the run did."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gme_data.examples import Example
from gme_data.images import ImageStore
from gme_synthesis.card_parts import examples_section, front_matter, funnel_section, table
from gme_synthesis.config import SynthesisConfig


def write_card(
    folder: Path, config: SynthesisConfig, examples: Sequence[Example], store: ImageStore, facts: Mapping[str, Any]
) -> None:
    """Write ``README.md`` and the pictures that it shows, in ``card/``; `facts` are those of ``funnel.json``."""
    parts = [
        front_matter({one.licence for one in examples}, len(examples)),
        "# Training data made from Atlas\n",
        "Made by GME Foundry from the passages, facts and pictures of its embedded world, the way the GME paper\n"
        "describes in its section 3. This card is generated from the run; `funnel.json` has its numbers, `rejects/`\n"
        "what was refused, by step and reason.\n",
        _counts(examples, facts),
        _models(config, facts),
        funnel_section(facts),
        examples_section(folder, examples, store.load),
        _LIMITS,
    ]
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


_LIMITS = """## Known limits

- Questions are templates over structured fields: correct, and all alike in style. There are no prompts.
- Wordings of a fact share the verdict of the consistency filter on the first of them.
- A question's positive is the passage it was made from; other passages may answer it as well.
"""


def _counts(examples: Sequence[Example], facts: Mapping[str, Any]) -> str:
    types = table(("task type", "training examples"), facts["task_types"].items())
    origins = sorted(Counter((one.source, one.licence) for one in examples).items())
    sources = table(("source", "licence", "training examples"), ((*origin, count) for origin, count in origins))
    return f"## Counts\n\n{types}\n\n## Sources and licences\n\n{sources}\n"


def _models(config: SynthesisConfig, facts: Mapping[str, Any]) -> str:
    judged = "picture-score" not in facts["skipped"]
    rows = [
        ("questions and rewrites", "templates over structured fields"),
        ("consistency filter", f"MiniLM, top {config.consistency_top_k}"),
        ("pictures", f"shorter side at least {config.min_picture_side} pixels, no look-alikes"),
        ("picture-text score", f"champion, cosine at least {config.min_picture_score:g}" if judged else "-"),
    ]
    return f"## Models and filters\n\n{table(('for', 'model'), rows)}\n"
