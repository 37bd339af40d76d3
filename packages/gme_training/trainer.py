"""The loop of one rank: phases, steps, events, checkpoints, and the model at the end."""

from __future__ import annotations

import logging
import resource
import time
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers.utils import is_flash_attn_2_available

from gme_data.events import append_event
from gme_data.images import ImageStore
from gme_embedder.embedder import Embedder
from gme_embedder.modeling.precision import has_bfloat16
from gme_embedder.processing.ahead import map_ahead
from gme_training import engine as engines
from gme_training.batches import BatchPlan, stage_plans
from gme_training.blend import blend
from gme_training.calibrate import calibrate, sample_items
from gme_training.catalog import Catalog
from gme_training.checkpoint_files import ResumePoint
from gme_training.checkpoints import Checkpoints
from gme_training.config import PhaseConfig
from gme_training.contrastive import ContrastiveModel, InputMaker, tower_share
from gme_training.devices import rank_device
from gme_training.frozen import to_float32, to_half
from gme_training.guards import Guards, StepFacts
from gme_training.index import ensure_index
from gme_training.job import Job
from gme_training.lora import add_adapters, merge_adapters
from gme_training.objective import PreparedStep, batch_gradients, prepare_step
from gme_training.room import explained, require_room, stage_bytes
from gme_training.schedule import rate_factor
from gme_training.seeds import mixed
from gme_training.stopping import StopWish, stopped
from gme_training.teachers import Teachers, ensure_teachers

log = logging.getLogger(__name__)


class Trainer:
    """Trains one stage. Every rank has one; they meet in the collectives of each step.

    Args:
        job: What to train on what, and where to write.
    """

    def __init__(self, job: Job) -> None:
        self._job, self._config = job, job.config
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._images = ImageStore(job.images)
        if self._rank == 0:  # where no parent did it
            ensure_index(job.examples, job.index, self._images)
        dist.barrier()
        self._catalog = Catalog(job.index)
        self._plans = stage_plans(self._catalog, job.config)
        if self._rank == 0:
            ensure_teachers(self._plans, self._catalog, self._images, job.teachers)
        dist.barrier()
        self._teachers = Teachers(job.teachers) if any(phase.distill for phase in job.config.phases) else None
        self._embedder = first_model(job)
        # Weights that are frozen in bfloat16 can be multiplied under autocast alone, however slow that is.
        autocast = job.config.autocast and (has_bfloat16(rank_device()) or job.config.frozen_weights == "bfloat16")
        self._model = ContrastiveModel(self._embedder.model, autocast=autocast, temperature=job.config.loss.temperature)
        share = tower_share(self._embedder.model, frozen="vision" not in job.config.trained_parts)
        self._inputs = InputMaker(self._embedder.preparer, self._images, job.config.cache.tokens, share)
        self._embedder.model.checkpointed = job.config.activation_checkpointing
        self._parts = self._trainable_parts()
        if job.config.frozen_weights == "bfloat16":
            spared = [one for part in job.config.trained_parts for one in self._parts[part]]
            to_half(self._model, [*spared, self._embedder.model.language.embed_tokens.weight])
        self._require_room()
        self._mark = 0.0  # when the last step was done
        self._guards, self._wish = Guards(job.config.guards), StopWish()
        self._checkpoints = Checkpoints(job.checkpoints, keep=job.config.keep_checkpoints, ranks=self._ranks)

    def run(self) -> None:
        """Train from the newest checkpoint, or from the start, to the end; rank 0 saves the model.

        Raises:
            FoundryError: No usable checkpoint where there were some, or a loss that is not finite.
        """
        resume = self._checkpoints.newest(self._warn)
        self._announce(resume or ResumePoint(0, 0))
        for number, phase in enumerate(self._config.phases):
            if resume is None or number >= resume.phase:
                self._run_phase(number, phase, resume if resume and number == resume.phase else None)
        if self._rank == 0:
            to_float32(self._model)
            if self._config.lora:
                merge_adapters(self._embedder.model.language)
            if self._config.start_share:
                blend(self._embedder.model, first_model(self._job).model, self._config.start_share)
            with explained(self._job.staging):
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
        return {"text": text, "vision": list(model.vision_parameters()), "temperature": [self._model.log_temperature]}

    def _require_room(self) -> None:
        trained = sum(one.numel() for part in self._config.trained_parts for one in self._parts[part])
        parameters = sum(one.numel() for one in self._model.parameters())
        if self._rank == 0:
            require_room(self._job.staging, stage_bytes(self._config, trained, parameters))

    def _run_phase(self, number: int, phase: PhaseConfig, resume: ResumePoint | None) -> None:
        if number == self._calibrated_before() and resume is None:
            sample = sample_items(self._catalog.items, self._config.calibration_items, self._config.seed)
            with self._model.precision(self._config.frozen_weights == "bfloat16"):  # half precision only where it must
                calibrate(self._embedder, sample, self._images)
        self._model.train()
        engine = engines.start_engine(self._model, self._parts, phase, self._config)
        if resume:
            self._checkpoints.load(engine, resume, self._model)
        before = sum(earlier.steps for earlier in self._config.phases[:number])
        steps = range(resume.step if resume else 0, phase.steps)
        prepared = map_ahead(partial(self._prepare, self._plans[number], phase), steps, self._config.prepare_threads)
        self._mark = time.perf_counter()
        for step, ready in zip(steps, prepared, strict=True):
            stop = self._step(engine, phase, ready, step, before + step)
            done = before + step + 1
            if (stop or done % self._config.checkpoint_every == 0) and done < self._config.steps:
                self._checkpoints.save(engine, ResumePoint(number, step + 1), self._carried(number))
                if stop:
                    raise stopped(done, self._config.steps)
                self._mark = time.perf_counter()
        engine.destroy()

    def _prepare(self, plan: BatchPlan, phase: PhaseConfig, step: int) -> PreparedStep:
        batch = plan.batch(step)
        teachers = self._teachers if phase.distill else None
        return prepare_step(self._inputs, self._catalog, batch, phase.objective, self._rank, self._ranks, teachers)

    def _calibrated_before(self) -> int | None:
        """The phase before which the final norm gets its scale: the first of a fresh model that goes through it."""
        if not self._job.is_fresh or not self._config.calibration_items:
            return None
        numbers = (number for number, phase in enumerate(self._config.phases) if phase.objective == "embedding")
        return next(numbers, None)

    def _step(
        self,
        engine: Any,  # noqa: ANN401
        phase: PhaseConfig,
        ready: PreparedStep,
        step: int,
        overall: int,
    ) -> bool:
        """One optimizer step and its event; whether a rank was asked to stop."""
        batch = ready.batch
        factor = rate_factor(step, phase.steps, self._config.optimizer)
        rates = {name: peak * factor for name, peak in engines.peak_rates(phase, self._config).items()}
        engines.set_rates(engine, rates)
        torch.manual_seed(mixed((*batch.seed, self._rank)))  # of dropout
        gradients, sums = batch_gradients(self._model, ready, phase, self._config, self._rank)
        (loss, correct, positive, negative, tokens, real, gradient), stop = self._shared(sums)
        count = len(batch.rows)
        examples = tuple(self._catalog.examples[row].id for row in batch.rows[:5].tolist())
        gap = (positive - negative) / count
        self._guards.check(StepFacts(step, phase.name, batch.share.source, examples, loss, gradient, gap))
        norm = engines.descend(engine, gradients)
        seconds, self._mark = time.perf_counter() - self._mark, time.perf_counter()  # with the wait for its batch
        self._report(
            step=overall,
            phase=phase.name,
            source=batch.share.source,
            batch=batch.digest,
            loss=loss / count,
            accuracy=correct / count,
            similarity=positive / count,
            negative_similarity=negative / count,
            temperature=1 / float(self._model.scale()),
            gradient_norm=norm,
            text_rate=rates["text"],
            vision_rate=rates["vision"],
            pairs_per_second=count / seconds,
            tokens_per_second=real / seconds,
            computed_to_real=tokens / real,
            cpu_seconds=time.process_time(),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        return stop

    def _shared(self, sums: Tensor) -> tuple[list[float], bool]:
        """Sums over the ranks, and whether any of them was asked to stop: one collective for both."""
        everything = torch.cat([sums, sums.new_tensor([self._wish.asked])])
        dist.all_reduce(everything)
        *values, asked = everything.tolist()
        return values, asked > 0

    def _carried(self, number: int) -> dict[str, Tensor]:
        """Weights that earlier phases trained and this one holds frozen."""
        parts = {
            name
            for phase in self._config.phases[:number]
            for name, rate in engines.peak_rates(phase, self._config).items()
            if rate
        }
        wanted = {id(parameter) for name in parts for parameter in self._parts[name] if not parameter.requires_grad}
        return {name: parameter for name, parameter in self._model.named_parameters() if id(parameter) in wanted}

    def _announce(self, point: ResumePoint) -> None:
        done = sum(phase.steps for phase in self._config.phases[: point.phase]) + point.step
        if self._rank == 0:
            fields = {"steps": self._config.steps, "ranks": self._ranks, "device": rank_device()}
            append_event(self._job.events, "start", step=done, **fields)

    def _warn(self, text: str) -> None:
        """Say something in the log of this rank and, from rank 0, to whoever follows the run."""
        log.warning(text)
        if self._rank == 0:
            append_event(self._job.events, "warning", text=text)

    def _report(self, **fields: float | str) -> None:
        if self._rank == 0:
            rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in fields.items()}
            append_event(self._job.events, "step", **rounded)
            append_event(self._job.history, "step", **rounded)


def first_model(job: Job) -> Embedder:
    """The model of the stage before, a pretrained one, or a fresh one."""
    config = job.config
    # Weights are in float32, but under autocast attention is in half precision, which its fast kernel asks for.
    fast = config.autocast and rank_device() == "cuda" and is_flash_attn_2_available()
    attention = "flash_attention_2" if fast else None
    if job.start:
        return Embedder.load(job.start, attention=attention)
    if config.base:
        limits = config.base.model_dump(exclude={"model", "revision"})
        return Embedder.load(
            config.base.model, revision=config.base.revision, attention=attention, inputs="gme", **limits
        )
    return Embedder.fresh(config.model, config.seed)
