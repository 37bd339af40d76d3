"""Records a finished chain: publishes the report, pushes bytes to DVC, registers the model."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.chain import Chain
from flows.config import OwnPipeline, PipelineConfig
from flows.tracking import wait_until_synced
from gme_data.steps import Outcome
from gme_release.dvc.metric_files import write_metric_files
from gme_release.dvc.versioning import version_outputs
from gme_release.registry.registration import Registration, register
from gme_release.run_facts import RunFacts
from umrb.data.selection import selected_tasks


@dataclass(frozen=True, slots=True)
class RunRecord:
    """What was recorded of a run.

    Attributes:
        model_name: Name of the model in the registry.
        registration: MLflow run, verdict and version.
        scores: Content of the report's ``scores.json``.
        report: The report's page.
    """

    model_name: str
    registration: Registration
    scores: dict[str, Any]
    report: Path

    @property
    def passed(self) -> bool:
        """Returns whether the gate is open."""
        return self.registration.verdict.passed

    @property
    def reasons(self) -> list[str]:
        """Returns why the gate is closed; empty if it is open."""
        return self.registration.verdict.reasons

    def summary(self) -> str:
        """Returns one line for people."""
        registration = self.registration
        if not self.passed:
            return f"gate closed ({len(self.reasons)} reasons), not registered"
        is_champion = registration.champion == registration.version
        champion = " and champion" if is_champion else f", champion is v{registration.champion}"
        state = "registered" if registration.created else "was registered before"
        return f"{self.model_name} v{registration.version} {state}{champion}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the record as JSON values."""
        registration = self.registration
        return {
            "model": self.model_name,
            "version": registration.version,
            "created": registration.created,
            "champion": registration.champion,
            "run_id": registration.run_id,
            "passed": self.passed,
            "reasons": self.reasons,
            "types": self.scores["types"],
            "overall": self.scores["overall"],
            "report": str(self.report),
        }


def record_run(config: PipelineConfig, chain: Chain, outcomes: Mapping[str, Outcome], workspace: Path) -> RunRecord:
    """Publishes the report, pushes data and checkpoints, and registers the model if the gate opens. It is idempotent.

    Raises:
        FoundryError: Bytes could not be pushed, or the registry could not be written.
    """
    report = publish_report(config.name, outcomes[chain.last("report").name], workspace)
    facts = RunFacts(
        name=config.name,
        workspace=workspace,
        config=_with_corpus_digest(config, outcomes).model_dump(mode="json"),
        manifests={name: outcome.manifest for name, outcome in outcomes.items()},
        outputs={name: outcome.folder.relative_to(workspace).as_posix() for name, outcome in outcomes.items()},
        versions=version_outputs(workspace, config.release),
        model_step=chain.last("model").name,
        evaluate_step=chain.last("evaluation").name,
        report_step=chain.last("report").name,
        dataset_steps={step.name: uses for step in chain if step.role == "dataset" and (uses := chain.uses(step.name))},
        tasks=tuple(
            sorted(
                task.name
                for task in selected_tasks(
                    config.evaluation, outcomes[chain.last("evaluation").inputs["corpus"]].folder
                )
            )
        ),
        sections={step.name: step.section for step in chain},
        sources={step.name: step.inputs for step in chain},
    )
    # A pipeline that shares its workspace has its metrics in a folder of its own too, beside those of the default run.
    subfolder = Path(chain.last("report").output).parent.relative_to("runs").as_posix()
    write_metric_files(workspace, report.parent, "" if subfolder == "." else subfolder)
    # A version names its run, so the tracker must know all of the run before the version exists.
    facts = wait_until_synced(facts, workspace)
    return RunRecord(config.release.model_name, register(workspace, config.release, facts), facts.scores, report)


def _with_corpus_digest(config: PipelineConfig, outcomes: Mapping[str, Outcome]) -> PipelineConfig:
    """Returns the configuration with the digest of the files that the corpus was read from."""
    if not isinstance(config, OwnPipeline):
        return config
    digest = outcomes["corpus"].manifest.config["digest"]
    return config.model_copy(update={"corpus": config.corpus.model_copy(update={"digest": digest})})


def publish_report(name: str, report: Outcome, workspace: Path) -> Path:
    """Copies a report to ``reports/<name>-<key>/``, points ``reports/latest`` at it, and returns its page."""
    reports = workspace / "reports"
    folder = reports / f"{name}-{report.manifest.key[:8]}"
    part = reports / f".{folder.name}.part"
    # Copied aside and renamed, so that a kill leaves no half of a report.
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(report.folder, part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    # A link can't be overwritten, but replaced by a rename.
    link = reports / ".latest.part"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(reports / "latest")
    return folder / "report.html"
