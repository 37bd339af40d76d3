"""What must hold before any rank starts: the data is there, and fits the stage. Knows the index; no model."""

from __future__ import annotations

from gme_data.errors import FoundryError
from gme_data.images import ImageStore
from gme_training.config import PhaseConfig, SourceShare, TrainingConfig, require_sources
from gme_training.data.batches import stage_plans
from gme_training.data.catalog import Catalog
from gme_training.data.example_index import ensure_index
from gme_training.job import Job
from gme_training.losses.teachers import ensure_teachers


def require_trainable(job: Job) -> None:
    """Build the index of the job's examples, if need be, and check the stage against it.

    Raises:
        FoundryError: Damaged data, an example whose picture is missing, a source without examples or without the hard
            negatives it should have, more ranks than there is data for, a share of a start that is none.
    """
    _require_start(job)
    ensure_index(job.examples, job.index, ImageStore(job.images))
    catalog = Catalog(job.index)
    require_sources(job.config, {(source, kind) for source, kinds in catalog.sources().items() for kind in kinds})
    for phase in job.config.phases:
        for share in phase.mixture:
            _require_negatives(catalog, phase, share)
            _require_work_for_all(catalog, phase, share, job.config)
    ensure_teachers(stage_plans(catalog, job.config), catalog, ImageStore(job.images), job.teachers)


def _require_start(job: Job) -> None:
    if job.config.start_share and job.is_fresh:
        raise FoundryError(
            f"start_share: {job.config.start_share} of the weights at the start are to stay, and the stage starts from "
            "none that were trained.",
            hint="Set start_share to 0, or start from a model: `model: {starter: shipped}` or `base`.",
        )


def _require_negatives(catalog: Catalog, phase: PhaseConfig, share: SourceShare) -> None:
    if not share.negatives and not share.only_with_negatives:
        return
    if not len(catalog.rows(share.source, share.task_type, only_with_negatives=True)):
        raise FoundryError(
            f"phases.{phase.name}.mixture: no example of source '{share.source}' has hard negatives.",
            hint="Name it in mining.sources, or set negatives to 0 and only_with_negatives to false.",
        )


def _require_work_for_all(catalog: Catalog, phase: PhaseConfig, share: SourceShare, config: TrainingConfig) -> None:
    rows = catalog.rows(share.source, share.task_type, only_with_negatives=share.only_with_negatives)
    items = 2 * min(share.batch_size, len(rows))
    if items < config.ranks:
        raise FoundryError(
            f"phases.{phase.name}.mixture: a batch of source '{share.source}' has {items} items, too few for "
            f"{config.ranks} ranks.",
            hint=f"Set ranks to at most {items}, or take a larger batch_size and more examples.",
        )
