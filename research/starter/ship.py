"""Ships a starter: writes the weights, the recipe and the model card into the package that loads them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import yaml

from gme_data.digests import sha256_file
from gme_data.errors import FoundryError
from gme_data.scores import TaskScore, read_systems
from gme_embedder.starter.shrink import SHRUNK
from research.starter.chain import StageZeroConfig, StageZeroOutcomes

MAX_BYTES = 12_000_000
"""Most bytes of the weights, which are stored in git without LFS."""
_CARD = """# The starter

What the default run starts from: a Qwen2-VL on the first {layers} layers of SmolLM2-135M-Instruct, which saw pictures
for the first time in {steps:,} steps of our own stage 0. Made by `make starter` from `research/starter.yaml`
(`recipe.yaml` is what it said); `weights.safetensors` has {megabytes:.1f} MB, sha256 `{digest}`.

In it: the vision tower and merger in half precision, and of the language part what training changed, as products of
matrices of rank {rank}. Not in it: SmolLM2's own layers and words, which come from their package.
{note}
## What it learned from

Atlas's train part, and pictures, names and definitions of other packages: {examples:,} further pairs, with {pictures:,}
pictures of which some are Atlas's own trained ones and some are flags that we drew. Nothing of an entity that Atlas
holds out for dev or test: their families, names, synonyms, places and pictures that look like theirs are refused when
the data are made ({refused:,} times), and the finished data are checked once more. In some phases two frozen teachers,
MiniLM for texts and EfficientNet-lite0 for pictures, said how alike the candidates of a batch are.

## What it knows (test part, full pools, one run)

{scores}

It is a start, not a model to use: it knows drawings on white, English, and small things.

## Licence

The weights are published under the licence of this repository. They were learned from works under the licences below;
the works themselves are not part of the file.

{attribution}
"""


def ship(outcomes: StageZeroOutcomes, config: StageZeroConfig, folder: Path) -> Path:
    """Writes the starter into `folder`, the package that loads it, and returns the path of the weights.

    Raises:
        FoundryError: The weights have more than `MAX_BYTES`.
    """
    source, target = outcomes.starter.folder / SHRUNK, folder / "weights.safetensors"
    size = source.stat().st_size
    if size > MAX_BYTES:
        raise FoundryError(
            f"{source} has {size:,} bytes, more than the {MAX_BYTES:,} that may be shipped.", hint="Lower shrink.rank."
        )
    digest = sha256_file(source)
    shutil.copyfile(source, target)
    recipe = config.model_dump(mode="json", exclude_defaults=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    (folder / "README.md").write_text(_card(outcomes, config, size, digest), encoding="utf-8")
    return target


def _card(outcomes: StageZeroOutcomes, config: StageZeroConfig, size: int, digest: str) -> str:
    counts = outcomes.extra.manifest.counts
    attribution = (outcomes.extra.folder / "ATTRIBUTION.md").read_text(encoding="utf-8")
    return _CARD.format(
        layers=config.shrink.model.text_layers,
        steps=config.stage_0.steps,
        megabytes=size / 1e6,
        digest=digest,
        rank=config.shrink.rank,
        note=f"\n{config.note}\n" if config.note else "",
        examples=int(counts["examples"]),
        pictures=int(counts["pictures"]),
        refused=int(counts["refused"]),
        scores=_table(read_systems(outcomes.scores.folder)[0].tasks),
        attribution=attribution.partition("\n")[2].strip(),
    )


def _table(tasks: Iterable[TaskScore]) -> str:
    lines = ["| type | task | R@1 | R@10 | queries / pool |", "|---|---|---|---|---|"]
    for task in tasks:
        hits = " | ".join(f"{task.scores[f'hit_rate_at_{depth}']:.3f}" for depth in (1, 10))
        lines.append(f"| {task.task_type} | {task.name} | {hits} | {task.queries} / {task.pool} |")
    return "\n".join(lines)
