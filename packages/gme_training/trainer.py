"""The training loop of one rank: phases, steps, events, checkpoints, and the model that is saved at the end."""

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
from gme_training.checkpoint_files import ResumePoint
from gme_training.checkpoints import Checkpoints
from gme_training.config import PhaseConfig
from gme_training.data.batches import BatchSampler, batch_samplers
from gme_training.data.catalog import Catalog
from gme_training.data.example_index import ensure_index
from gme_training.devices import rank_device
from gme_training.disk_space import explain_write_errors, require_disk_space, stage_bytes
from gme_training.guards import Guards, StepMetrics
from gme_training.job import TrainingJob
from gme_training.losses.objective import PreparedStep, batch_gradients, prepare_step
from gme_training.losses.teachers import TeacherVectors, ensure_teacher_vectors
from gme_training.model.calibrate import calibrate_final_norm, sample_items
from gme_training.model.contrastive import ContrastiveModel, InputMaker, tower_share
from gme_training.model.frozen_weights import store_in_bfloat16, to_float32
from gme_training.model.lora import add_adapters, merge_adapters
from gme_training.model.weight_interpolation import interpolate_weights
from gme_training.schedule import learning_rate_factor
from gme_training.seeds import derive_seed
from gme_training.stop_request import StopRequest, stopped_error

log = logging.getLogger(__name__)


class Trainer:
    """Trains one stage. Every rank has one; they synchronise in the collectives of each step.

    Args:
        job: What to train on what, and where to write.
    """

    def __init__(self, job: TrainingJob) -> None:
        self._job, self._config = job, job.config
        self._rank, self._ranks = dist.get_rank(), dist.get_world_size()
        self._images = ImageStore(job.images)
        # The index and the teachers' vectors exist already if `step.train` made the job; one rank builds them if not.
        if self._rank == 0:
            ensure_index(job.examples, job.index, self._images)
        dist.barrier()
        self._catalog = Catalog(job.index)
        self._samplers = batch_samplers(self._catalog, job.config)
        if self._rank == 0:
            ensure_teacher_vectors(self._samplers, self._catalog, self._images, job.teachers)
        dist.barrier()
        self._teachers = TeacherVectors(job.teachers) if any(phase.distill for phase in job.config.phases) else None

        self._embedder = initial_model(job)
        # Weights that are frozen in bfloat16 can be multiplied only under autocast, however slow that is on a device
        # without bfloat16.
        autocast = job.config.autocast and (has_bfloat16(rank_device()) or job.config.frozen_weights == "bfloat16")
        self._model = ContrastiveModel(self._embedder.model, autocast=autocast, temperature=job.config.loss.temperature)
        self._embedder.model.checkpointed = job.config.activation_checkpointing
        tower_work = tower_share(self._embedder.model, frozen="vision" not in job.config.trained_parts)
        micro_batch_tokens = job.config.gradient_cache.micro_batch_tokens
        self._inputs = InputMaker(self._embedder.preparer, self._images, micro_batch_tokens, tower_work)
        self._parts = self._trainable_parts()
        trained = [parameter for part in job.config.trained_parts for parameter in self._parts[part]]
        if job.config.frozen_weights == "bfloat16":
            # Token embeddings open the residual stream, whose precision all layers share.
            store_in_bfloat16(self._model, [*trained, self._embedder.model.language.embed_tokens.weight])
        if self._rank == 0:
            trained_count = sum(parameter.numel() for parameter in trained)
            count = sum(parameter.numel() for parameter in self._model.parameters())
            require_disk_space(job.staging, stage_bytes(job.config, trained_count, count))

        self._last_step_end = 0.0
        self._guards, self._stop_request = Guards(job.config.guards), StopRequest()
        self._checkpoints = Checkpoints(job.checkpoints, keep=job.config.keep_checkpoints, ranks=self._ranks)

    def run(self) -> None:
        """Trains from the newest checkpoint, or from the start, to the end; rank 0 saves the model.

        Raises:
            FoundryError: No usable checkpoint where there were some, or a loss that is not finite.
        """
        resume = self._checkpoints.newest(self._warn)
        self._report_start(resume or ResumePoint(0, 0))
        for number, phase in enumerate(self._config.phases):
            # A checkpoint has the weights of all phases before its own.
            if resume is None or number >= resume.phase:
                self._run_phase(number, phase, resume if resume and number == resume.phase else None)
        if self._rank == 0:
            # Before the merge: adapters are added to weights in float32, without rounding.
            to_float32(self._model)
            if self._config.lora:
                merge_adapters(self._embedder.model.language)
            if self._config.start_share:
                start = initial_model(self._job).model
                interpolate_weights(self._embedder.model, start, self._config.start_share)
            with explain_write_errors(self._job.staging):
                self._embedder.save(self._job.staging)
        dist.barrier()

    def _trainable_parts(self) -> dict[str, list[nn.Parameter]]:
        model = self._embedder.model
        self._model.requires_grad_(False)
        if self._config.lora:
            # The final norm is trained too: its calibration comes from data and must be in the checkpoints.
            text = [*add_adapters(model.language, self._config.lora, self._config.seed), model.language.norm.weight]
        else:
            text = list(model.text_parameters())
        return {"text": text, "vision": list(model.vision_parameters()), "temperature": [self._model.log_temperature]}

    def _run_phase(self, number: int, phase: PhaseConfig, resume: ResumePoint | None) -> None:
        if number == self._phase_to_calibrate() and resume is None:
            sample = sample_items(self._catalog.items, self._config.calibration_items, self._config.seed)
            # Weights that are stored in bfloat16 need autocast; all others are calibrated in full precision.
            with self._model.precision(self._config.frozen_weights == "bfloat16"):
                calibrate_final_norm(self._embedder, sample, self._images)
        self._model.train()
        engine = engines.start_engine(self._model, self._parts, phase, self._config)
        if resume:
            self._checkpoints.load(engine, resume, self._model)
        steps_before = sum(earlier.steps for earlier in self._config.phases[:number])
        steps = range(resume.step if resume else 0, phase.steps)
        # Threads prepare the next batches while this one is trained on.
        prepare = partial(self._prepare, self._samplers[number], phase)
        prepared_steps = map_ahead(prepare, steps, self._config.prepare_threads)
        self._last_step_end = time.perf_counter()
        for step, prepared in zip(steps, prepared_steps, strict=True):
            stop = self._train_step(engine, phase, prepared, step, steps_before + step)
            done = steps_before + step + 1
            if (stop or done % self._config.checkpoint_every == 0) and done < self._config.steps:
                self._checkpoints.save(engine, ResumePoint(number, step + 1), self._trained_and_frozen(number))
                if stop:
                    raise stopped_error(done, self._config.steps)
                self._last_step_end = time.perf_counter()  # the speed of a step is without the checkpoint
        engine.destroy()

    def _prepare(self, sampler: BatchSampler, phase: PhaseConfig, step: int) -> PreparedStep:
        teachers = self._teachers if phase.distill else None
        batch = sampler.batch(step)
        return prepare_step(self._inputs, self._catalog, batch, phase.objective, self._rank, self._ranks, teachers)

    def _phase_to_calibrate(self) -> int | None:
        """Returns the phase before which the final norm is calibrated: a fresh model's first with the language part."""
        if not self._job.is_fresh or not self._config.calibration_items:
            return None
        numbers = (number for number, phase in enumerate(self._config.phases) if phase.objective == "embedding")
        return next(numbers, None)

    def _train_step(
        self,
        engine: Any,  # noqa: ANN401
        phase: PhaseConfig,
        prepared: PreparedStep,
        step: int,
        overall_step: int,
    ) -> bool:
        """Takes one optimizer step and reports it; returns whether a rank was asked to stop."""
        batch = prepared.batch
        factor = learning_rate_factor(step, phase.steps, self._config.optimizer)
        rates = {name: peak * factor for name, peak in engines.peak_learning_rates(phase, self._config).items()}
        engines.set_learning_rates(engine, rates)
        # Dropout is a function of the step, so that a resumed run repeats it.
        torch.manual_seed(derive_seed((*batch.seed, self._rank)))
        gradients, sums = batch_gradients(self._model, prepared, phase, self._config, self._rank)
        (loss, correct, positive, negative, tokens, real_tokens, gradient_norm), stop = self._sum_over_ranks(sums)
        count = len(batch.rows)
        example_ids = tuple(self._catalog.examples[row].id for row in batch.rows[:5].tolist())
        gap = (positive - negative) / count
        # Before the gradients are applied: the checkpoint from which a stopped run resumes must be a good one.
        self._guards.check(StepMetrics(step, phase.name, batch.share.source, example_ids, loss, gradient_norm, gap))
        norm = engines.optimizer_step(engine, gradients)
        now = time.perf_counter()
        seconds, self._last_step_end = now - self._last_step_end, now  # with the wait for the batch
        self._report_step(
            step=overall_step,
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
            tokens_per_second=real_tokens / seconds,
            computed_to_real=tokens / real_tokens,
            cpu_seconds=time.process_time(),
            peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )
        return stop

    def _sum_over_ranks(self, sums: Tensor) -> tuple[list[float], bool]:
        """Returns the sums over the ranks, and whether any of them was asked to stop: one collective for both."""
        with_stop = torch.cat([sums, sums.new_tensor([self._stop_request.received])])
        dist.all_reduce(with_stop)
        *totals, requests = with_stop.tolist()
        return totals, requests > 0

    def _trained_and_frozen(self, number: int) -> dict[str, Tensor]:
        """Returns the weights that phases before `number` trained and that are frozen now: no engine saves them."""
        parts = {
            name
            for phase in self._config.phases[:number]
            for name, rate in engines.peak_learning_rates(phase, self._config).items()
            if rate
        }
        frozen = {id(parameter) for name in parts for parameter in self._parts[name] if not parameter.requires_grad}
        return {name: parameter for name, parameter in self._model.named_parameters() if id(parameter) in frozen}

    def _report_start(self, point: ResumePoint) -> None:
        done = sum(phase.steps for phase in self._config.phases[: point.phase]) + point.step
        if self._rank == 0:
            fields = {"steps": self._config.steps, "ranks": self._ranks, "device": rank_device()}
            append_event(self._job.events, "start", step=done, **fields)

    def _report_step(self, **fields: float | str) -> None:
        if self._rank == 0:
            rounded = {name: round(value, 6) if isinstance(value, float) else value for name, value in fields.items()}
            append_event(self._job.events, "step", **rounded)
            append_event(self._job.history, "step", **rounded)

    def _warn(self, text: str) -> None:
        """Writes a warning to the log of this rank and, from rank 0, to the events of the run."""
        log.warning(text)
        if self._rank == 0:
            append_event(self._job.events, "warning", text=text)


def initial_model(job: TrainingJob) -> Embedder:
    """Returns the model that the stage starts from: that of an earlier stage, a pretrained one, or a fresh one."""
    config = job.config
    # Weights are in float32, but under autocast attention is in half precision, which its fast kernel requires.
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
