"""Builds Atlas into a folder: pictures, tables, training examples, retrieval tasks, attribution."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path

from atlas.album import Album
from atlas.assemble import assemble
from atlas.config import AtlasConfig
from atlas.examples import native_examples
from atlas.flag_tasks import flag_tasks
from atlas.imagined_examples import imagined_examples
from atlas.licences import ATTRIBUTION
from atlas.pictograph_tasks import pictograph_tasks
from atlas.question_tasks import question_tasks
from atlas.world import write_world
from gme_data.examples import write_examples
from gme_data.images import write_images
from gme_data.tasks import save_task

_SCRATCH = ".album"
"""Folder of pictures that a killed build left. Its name begins with a dot, so publishing the step drops it."""


def build(config: AtlasConfig, folder: Path) -> dict[str, float]:
    """Builds one Atlas and returns its counts: pictures, rows of each table, examples, tasks and queries.

    Pictures that a killed build of the same config left in `folder` are reused.

    Raises:
        FoundryError: A package that Atlas is made from is missing.
    """
    album = Album(config.picture_size, scratch=folder / _SCRATCH)
    world = assemble(config, album)
    write_images(folder / "images", album.records())
    write_world(folder / "corpus", world)
    counts: Counter[str] = Counter(
        images=len(world.picture_licences),
        places=len(world.places),
        passages=len(world.passages),
        facts=len(world.facts),
        wordings=len(world.wordings),
        pictographs=len(world.pictographs),
        imagined=len(world.imagined),
    )
    for split in ("train", "dev"):
        examples = native_examples(world, config, split)
        examples += imagined_examples(world, config) if split == "train" else []
        write_examples(folder / "examples" / split, examples)
        counts[f"examples_{split}"] = len(examples)
    for split in ("dev", "test"):
        for task in itertools.chain(
            question_tasks(world, config, split),
            flag_tasks(world, config, split),
            pictograph_tasks(world, config, split),
        ):
            save_task(folder / "tasks" / split / task.card.name, task)
            counts[f"tasks_{split}"] += 1
            counts[f"queries_{split}"] += len(task.queries)
    (folder / "ATTRIBUTION.md").write_text(ATTRIBUTION, encoding="utf-8")
    return {name: float(count) for name, count in counts.items()}
