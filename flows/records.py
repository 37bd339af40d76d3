"""What a finished chain leaves behind: the published report, versioned bytes, the model's record in the registry."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.chain import Chain
from flows.config import OwnPipeline, PipelineConfig
from flows.tracking import settled
from gme_data.steps import Outcome
from gme_release.diffable import write_diffable
from gme_release.records import RunFacts
from gme_release.registration import Registration, register
from gme_release.versioning import version_outputs
from umrb.data.selection import selected_tasks


@dataclass(frozen=True, slots=True)
class Record:
    """The end of a run.

    Attributes:
        model_name: Name in the registry.
        registration: Run, verdict and version.
        scores: Content of the report's ``scores.json``.
        report: The page to open.
    """

    model_name: str
    registration: Registration
    scores: dict[str, Any]
    report: Path

    @property
    def passed(self) -> bool:
        """Whether the gate opened."""
        return self.registration.verdict.passed

    @property
    def reasons(self) -> list[str]:
        """Why it did not."""
        return self.registration.verdict.reasons

    def summary(self) -> str:
        """One line for people."""
        found = self.registration
        if not self.passed:
            return f"gate closed ({len(self.reasons)} reasons), not registered"
        crowned = " and champion" if found.champion == found.version else f", champion is v{found.champion}"
        return (
            f"{self.model_name} v{found.version} {'registered' if found.created else 'was registered before'}{crowned}"
        )

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        found = self.registration
        return {
            "model": self.model_name,
            "version": found.version,
            "created": found.created,
            "champion": found.champion,
            "run_id": found.run_id,
            "passed": self.passed,
            "reasons": self.reasons,
            "types": self.scores["types"],
            "overall": self.scores["overall"],
            "report": str(self.report),
        }


def record(config: PipelineConfig, chain: Chain, outcomes: Mapping[str, Outcome], workspace: Path) -> Record:
    """Publish the report, push data and checkpoints, then judge and register the model. Idempotent.

    Raises:
        FoundryError: Bytes could not be pushed, or the registry could not be written.
    """
    report = publish_report(config.name, outcomes[chain.last("report").name], workspace)
    facts = RunFacts(
        name=config.name,
        workspace=workspace,
        config=_as_read(config, outcomes).model_dump(mode="json"),
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
    # Beside the default run's, as the outputs of a pipeline that shares its workspace lie.
    shared = Path(chain.last("report").output).parent.relative_to("runs").as_posix()
    write_diffable(workspace, report.parent, "" if shared == "." else shared)
    facts = settled(facts, workspace)
    return Record(config.release.model_name, register(workspace, config.release, facts), facts.scores, report)


def _as_read(config: PipelineConfig, outcomes: Mapping[str, Outcome]) -> PipelineConfig:
    """The configuration with the digest of the files that the corpus was read from."""
    if not isinstance(config, OwnPipeline):
        return config
    digest = outcomes["corpus"].manifest.config["digest"]
    return config.model_copy(update={"corpus": config.corpus.model_copy(update={"digest": digest})})


def publish_report(name: str, report: Outcome, workspace: Path) -> Path:
    """Copy a report to ``reports/<name>-<key>/``, let ``reports/latest`` point at it, return its page."""
    home = workspace / "reports"
    folder = home / f"{name}-{report.manifest.key[:8]}"
    part = home / f".{folder.name}.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.copytree(report.folder, part)
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    link = home / ".latest.part"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    link.replace(home / "latest")
    return folder / "report.html"
