"""The loop of one rank: phases, steps, events, checkpoints, and the model at the end."""

from __future__ import annotations

import math
import resource
import time
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from gme_data.errors import FoundryError
from gme_data.events import append_event
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_embedder.embedder import Embedder
from gme_training import engine as engines
from gme_training.batches import Batch, BatchPlan
from gme_training.calibrate import calibrate, sample_items
from gme_training.catalog import build_catalog
from gme_training.checkpoints import Checkpoints, ResumePoint
from gme_training.config import PhaseConfig
from gme_training.contrastive import ContrastiveModel, InputMaker, lay_out
from gme_training.gather import gather_rows
from gme_training.job import Job
from gme_training.lora import add_adapters, merge_adapters
from gme_training.loss import contrast
from gme_training.schedule import rate_factor


class Trainer:
    """Trains one stage. Every rank has one; they meet in the collectives of each step.

    Args:
        job: What to train on what, and where to write.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._config = job, job.config
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._catalog = build_catalog(read_examples(job.examples))
        start, seed = job.start, job.config.seed
        self._embedder = Embedder.load(start) if start else Embedder.untrained(job.config.model, seed)
        self._model = ContrastiveModel(self._embedder.model, autocast=job.config.autocast)
        self._images = ImageStore(job.images)
        self._inputs = InputMaker(self._embedder.preparer, self._images)
        self._parts = self._trainable_parts()
        self._checkpoints = Checkpoints(job.checkpoints, keep=job.config.keep_checkpoints, ranks=self._ranks)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end; rank 0 saves the model.

        Raises:
            FoundryError: No usable checkpoint where there were some, or a loss that is not finite.
        """
        resume = self._checkpoints.newest()
        self._announce(resume or ResumePoint(0, 0))
        for number, phase in enumerate(self._config.phases):
            if resume is None or number >= resume.phase:
                self._run_phase(number, phase, resume if resume and number == resume.phase else None)
        if self._rank == 0:
            if self._config.lora:
                merge_adapters(self._embedder.model.language)
            self._embedder.save(self._job.staging)
        dist.barrier()

    def _trainable_parts(self) -> dict[str, list[nn.Parameter]]:
        model = self._embedder.model
        self._model.requires_grad_(False)
        if self._config.lora:
            # The final norm is trained along: its first scale comes from data and must be in the checkpoints.
            text = [*add_adapters(model.language, self._config.lora, self._config.seed), model.language.norm.weight]
        else:
            text = list(model.text_parameters())
        return {"text": text, "vision": list(model.vision_parameters())}

    def _run_phase(self, number: int, phase: PhaseConfig, resume: ResumePoint | None) -> None:
        if number == self._calibrated_before() and resume is None:
            sample = sample_items(self._catalog.items, self._config.calibration_items, self._config.seed)
            calibrate(self._embedder, sample, self._images)
            self._model.train()
        engine = engines.start_engine(self._model, self._parts, phase, self._config)
        if resume:
            self._checkpoints.load(engine, resume, self._model)
        plan = BatchPlan(
            self._catalog,
            phase,
            number=number,
            seed=self._config.seed,
            mask_same_group=self._config.mask_same_group,
        )
        before = sum(earlier.steps for earlier in self._config.phases[:number])
        for step in range(resume.step if resume else 0, phase.steps):
            self._step(engine, phase, plan.batch(step), step, before + step)
            done = before + step + 1
            if done % self._config.checkpoint_every == 0 and done < self._config.steps:
                self._checkpoints.save(engine, ResumePoint(number, step + 1), self._carried(number))
        engine.destroy()

    def _calibrated_before(self) -> int | None:
        """The phase before which the final norm gets its scale: the first of a fresh model that goes through it."""
        if self._job.start or not self._config.calibration_items:
            return None
        numbers = (number for number, phase in enumerate(self._config.phases) if phase.objective == "embedding")
        return next(numbers, None)

    def _step(self, engine: Any, phase: PhaseConfig, batch: Batch, step: int, overall: int) -> None:  # noqa: ANN401
        """One optimizer step and its event."""
        started = time.perf_counter()
        factor = rate_factor(step, phase.steps, self._config.optimizer)
        rates = {name: peak * factor for name, peak in engines.peak_rates(phase).items()}
        engines.set_rates(engine, rates)
        loss, sums = self._loss(engine, phase, batch)
        norm = engines.descend(engine, loss)
        mean_loss, correct, similarity, tokens = self._shared(sums)
        self._check_finite(mean_loss, phase, batch, step)
        seconds = time.perf_counter() - started
        self._report(
            step=overall,
            phase=phase.name,
            source=batch.share.source,
            batch=batch.digest,
            loss=mean_loss / len(batch.rows),
            accuracy=correct / len(batch.rows),
            similarity=similarity / len(batch.rows),
            gradient_norm=norm,
            text_rate=rates["text"],
            vision_rate=rates["vision"],
            pairs_per_second=len(batch.rows) / seconds,
            tokens_per_second=tokens / seconds,
            cpu_seconds=time.process_time(),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )

    def _loss(self, engine: Any, phase: PhaseConfig, batch: Batch) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """This rank's part of the loss, scaled so that DeepSpeed's mean over ranks is the mean over the batch.

        Returns:
            The loss to go backward from, and [4] sums over this rank's rows: loss, correct, similarity, tokens.
        """
        slots = lay_out(self._catalog, batch, self._ranks)
        inputs = self._inputs.prepare(slots, self._rank, phase.objective, strength=batch.share.augment, seed=batch.seed)
        vectors = gather_rows(engine(inputs, phase.objective), slots.counts)
        device = vectors.device
        vectors = vectors[slots.restore().to(device)]
        queries, candidates = torch.split(vectors, [len(batch.rows), len(batch.candidates)])
        parts = contrast(
            queries,
            candidates,
            torch.from_numpy(batch.targets).to(device),
            torch.from_numpy(batch.masked).to(device),
            rows=torch.arange(self._rank, len(batch.rows), self._ranks, device=device),
            temperature=self._config.temperature,
            symmetric=self._config.symmetric,
        )
        tokens = torch.tensor(float(sum(len(prepared.tokens) for prepared in inputs)), device=device)
        sums = torch.stack([parts.loss.detach(), parts.correct.float(), parts.similarity, tokens])
        return parts.loss * self._ranks / len(batch.rows), sums

    def _shared(self, sums: Tensor) -> list[float]:
        dist.all_reduce(sums)
        return [float(value) for value in sums]

    def _carried(self, number: int) -> dict[str, Tensor]:
        """Weights that earlier phases trained and this one holds frozen."""
        parts = {
            name for phase in self._config.phases[:number] for name, rate in engines.peak_rates(phase).items() if rate
        }
        wanted = {id(parameter) for name in parts for parameter in self._parts[name] if not parameter.requires_grad}
        return {name: parameter for name, parameter in self._model.named_parameters() if id(parameter) in wanted}

    def _check_finite(self, loss: float, phase: PhaseConfig, batch: Batch, step: int) -> None:
        # The sum over the ranks is the same number everywhere, so all ranks stop together.
        if math.isfinite(loss):
            return
        ids = ", ".join(self._catalog.examples[row].id for row in batch.rows[:5].tolist())
        raise FoundryError(
            f"The loss is {loss} at step {step} of phase '{phase.name}', source '{batch.share.source}' "
            f"(examples {ids}, ...).",
            hint=f"Lower text_learning_rate or vision_learning_rate of phases.{phase.name}.",
            exit_code=1,
        )

    def _announce(self, point: ResumePoint) -> None:
        done = sum(phase.steps for phase in self._config.phases[: point.phase]) + point.step
        if self._rank == 0:
            append_event(self._job.events, "start", step=done, steps=self._config.steps, ranks=self._ranks)

    def _report(self, **fields: float | str) -> None:
        if self._rank == 0:
            rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in fields.items()}
            append_event(self._job.events, "step", **rounded)
            append_event(self._job.history, "step", **rounded)
