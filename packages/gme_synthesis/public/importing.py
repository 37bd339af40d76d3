"""The step of a corpus of public sets: fetched files -> training examples, held-out tasks and the picture store.

Each set goes through the import of pairs by itself, which is the unit of work that a kill loses. Then examples that a
benchmark contains are refused, the others are sampled by the shares, and all is written as one corpus, in the layout of
an import of pairs.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from gme_data.examples import SCHEMA as EXAMPLES_SCHEMA
from gme_data.images import ROW_GROUP_ROWS
from gme_data.images import SCHEMA as IMAGES_SCHEMA
from gme_data.parquet import write_shards
from gme_data.steps import Counts, StepContext
from gme_synthesis.corpus.import_index import ReasonCount
from gme_synthesis.corpus.importing import ImportSummary
from gme_synthesis.funnel import REJECTS_SCHEMA
from gme_synthesis.joining import read_image_rows, read_shard_rows
from gme_synthesis.pairs.config import PairsConfig
from gme_synthesis.pairs.importing import import_rows
from gme_synthesis.public.config import PublicConfig, SetChoice
from gme_synthesis.public.mixing import ImportedSet, Mixture, mix
from gme_synthesis.public.registry import in_type_order
from gme_synthesis.public.sampling import select_rows
from gme_synthesis.public.store import read_lock, require_fetched
from gme_synthesis.public.upstream import UpstreamRows

REPORT = "sets.json"
"""File of the output with what was read, refused and used of each set, and the benchmarks that were compared with."""
_SETS = ".sets"


def import_public(config: PublicConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Writes ``train/``, ``tasks/``, ``images/``, ``rejects/`` and ``sets.json``.

    Raises:
        FoundryError: A licence is not accepted, a set is not fetched or has nothing to train on, or a kind that has a
            share has no examples.
    """
    del inputs
    config.require_licences()
    require_fetched(config.sets, config.data, config.seed)
    staging = context.staging
    imported_sets = [ImportedSet(choice, _import_set(choice, config, staging / _SETS)) for choice in config.sets]
    mixture = mix(config, imported_sets)
    # Ids of pictures are collected while examples and tasks are written: those that nothing uses are not copied.
    pictures: set[str] = set()
    write_shards(staging / "train", "examples", _examples(imported_sets, mixture, pictures), EXAMPLES_SCHEMA)
    tasks = [task for imported in imported_sets for task in _copy_tasks(imported, staging / "tasks", pictures)]
    write_shards(
        staging / "images",
        "images",
        read_image_rows([imported.folder / "images" for imported in imported_sets], pictures),
        IMAGES_SCHEMA,
        row_group_rows=ROW_GROUP_ROWS,
    )
    write_shards(staging / "rejects", "rejects", _rejects(imported_sets, mixture), REJECTS_SCHEMA)
    _summary(imported_sets, mixture).write(staging)
    report = _report(config, imported_sets, mixture)
    (staging / REPORT).write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {
        "sets": len(imported_sets),
        "examples": sum(len(rows) for rows in mixture.selected.values()),
        "tasks": len(tasks),
        "rejects": sum(reason.rows for reason in _summary(imported_sets, mixture).reasons),
        "benchmark_tasks": len(mixture.benchmarks),
    }


def _import_set(choice: SetChoice, config: PublicConfig, parent: Path) -> Path:
    """Imports a set by itself, unless an interrupted run did; returns its folder."""
    # A folder gets its final name when its import is complete, so one that has it need not be imported again.
    folder, part = parent / choice.name, parent / f"{choice.name}.part"
    if folder.is_dir():
        return folder
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    upstream = choice.upstream
    settings = PairsConfig(
        pairs=Path(choice.name),
        layout="columns",
        pages=upstream.layout == "pages",
        instruction=upstream.instruction,
        licence=upstream.licence,
        source=choice.name,
        skip_bad=True,
        dev=config.dev,
        test=config.test,
        max_queries=config.max_queries,
        seed=config.seed,
    )
    with closing(UpstreamRows(choice, config.data, config.seed)) as rows:
        import_rows(settings, rows, part)
    part.rename(folder)
    return folder


def _examples(imported_sets: list[ImportedSet], mixture: Mixture, pictures: set[str]) -> Iterator[dict[str, Any]]:
    """Yields the rows of the selected examples, set by set; adds the ids of their pictures to `pictures`."""
    for imported in imported_sets:
        for row in select_rows(imported.rows(), mixture.selected[imported.choice.name]):
            for item in (row["query"], row["positive"], *row["negatives"]):
                if item["image"]:
                    pictures.add(item["image"])
            yield row


def _copy_tasks(imported: ImportedSet, folder: Path, pictures: set[str]) -> Iterator[str]:
    """Copies the held-out tasks of a set and yields their names; adds the ids of their pictures to `pictures`."""
    for task in imported.tasks():
        split = task.parent.name
        shutil.copytree(task, folder / split / task.name, dirs_exist_ok=True)
        for table in ("corpus", "queries"):
            column = pq.read_table(task / f"{table}.parquet", columns=["image"]).column("image")
            pictures.update(image for image in column.to_pylist() if image)
        yield task.name


def _rejects(imported_sets: list[ImportedSet], mixture: Mixture) -> Iterator[dict[str, Any]]:
    """Yields the rows of all rejects: of each set's import, then of the mixture."""
    for imported in imported_sets:
        for row in read_shard_rows(imported.folder / "rejects", "rejects"):
            yield {**row, "subject": f"{imported.choice.name}: {row['subject']}"}
    for reject in mixture.rejects:
        yield {"step": reject.step, "reason": reject.reason, "subject": reject.subject, "text": reject.text}


def _summary(imported_sets: list[ImportedSet], mixture: Mixture) -> ImportSummary:
    """Returns what was left out, by reason over all sets, with the first row of each reason."""
    rows: Counter[str] = Counter()
    first: dict[str, str] = {}
    for imported in imported_sets:
        for reason in ImportSummary.read(imported.folder).reasons:
            rows[reason.reason] += reason.rows
            first.setdefault(reason.reason, f"{imported.choice.name}: {reason.first}")
    for reject in mixture.rejects:
        rows[reject.reason] += 1
        first.setdefault(reject.reason, f"{reject.subject}: {reject.text[:200]}")
    return ImportSummary(tuple(ReasonCount(name, count, first[name]) for name, count in rows.most_common()), "")


def _report(config: PublicConfig, imported_sets: list[ImportedSet], mixture: Mixture) -> dict[str, Any]:
    lock = read_lock(config.data)
    refused = Counter((reject.subject.partition(":")[0], reject.reason) for reject in mixture.rejects)
    sets = []
    for imported in imported_sets:
        name, upstream = imported.choice.name, imported.choice.upstream
        refused_by_import = {reason.reason: reason.rows for reason in ImportSummary.read(imported.folder).reasons}
        refused_by_import |= {reason: count for (set_name, reason), count in refused.items() if set_name == name}
        sets.append(
            {
                "name": name,
                "revisions": {repository: lock[repository].revision for repository in upstream.repositories},
                "licence": upstream.licence,
                "unverified": list(upstream.unverified),
                "examples": mixture.available[name],
                "taken": len(mixture.selected[name]),
                "task_types": in_type_order(imported.task_types()),
                "refused": refused_by_import,
            }
        )
    return {
        "sets": sets,
        "kinds": mixture.kinds,
        "benchmarks": {"compared": config.compared, "tasks": list(mixture.benchmarks)},
    }
