"""Checks, before any rank starts, that the data exists and fits the stage. Knows the index; no model."""

from __future__ import annotations

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig, require_sources
from gme_training.data.batches import batch_samplers
from gme_training.data.catalog import Catalog
from gme_training.data.example_index import ensure_index
from gme_training.job import TrainingJob
from gme_training.losses.teachers import ensure_teacher_vectors


def require_trainable(job: TrainingJob) -> None:
    """Builds the index of the job's examples and the teachers' vectors, unless they exist, and checks the stage.

    Raises:
        FoundryError: Damaged data, an example whose picture is missing, a source without examples or without the hard
            negatives it should have, more ranks than items in a batch, or a start_share of a fresh model.
    """
    config = job.config
    if config.start_share and job.is_fresh:
        raise FoundryError(
            f"start_share: {config.start_share} of the weights at the start are to stay, and the stage starts from "
            "none that were trained.",
            hint="Set start_share to 0, or start from a model: `model: {starter: shipped}` or `base`.",
        )
    images = ImageStore(job.images)
    ensure_index(job.examples, job.index, images)
    catalog = Catalog(job.index)
    sources = catalog.sources()
    require_sources(config, {(source, task_type) for source, types in sources.items() for task_type in types})
    for phase in config.phases:
        for share in phase.mixture:
            _require_negatives(catalog, phase, share)
            _require_items_for_all_ranks(catalog, phase, share, config)
    ensure_teacher_vectors(batch_samplers(catalog, config), catalog, images, job.teachers)


def _require_negatives(catalog: Catalog, phase: PhaseConfig, share: SourceShare) -> None:
    if not share.num_negatives and not share.only_with_negatives:
        return
    # Mining may have left a source without any, and the stage would train on in-batch negatives without a word.
    if not len(catalog.rows(share.source, share.task_type, only_with_negatives=True)):
        raise FoundryError(
            f"phases.{phase.name}.mixture: no example of source '{share.source}' has hard negatives.",
            hint="Name it in mining.sources, or set num_negatives to 0 and only_with_negatives to false.",
        )


def _require_items_for_all_ranks(
    catalog: Catalog, phase: PhaseConfig, share: SourceShare, config: TrainingConfig
) -> None:
    rows = catalog.rows(share.source, share.task_type, only_with_negatives=share.only_with_negatives)
    items = 2 * min(share.batch_size, len(rows))  # each row's query and positive
    if items < config.ranks:
        raise FoundryError(
            f"phases.{phase.name}.mixture: a batch of source '{share.source}' has {items} items, too few for "
            f"{config.ranks} ranks.",
            hint=f"Set ranks to at most {items}, or take a larger batch_size and more examples.",
        )
