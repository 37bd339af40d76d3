"""The facts of a finished pipeline run, from which it is recorded: outputs, manifests, configuration, scores.

Reads the files of the steps, writes nothing, and knows no tracking server.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from gme_data.digests import sha256_json
from gme_data.manifest import Manifest
from gme_data.scores import read_report_scores
from gme_release.dvc.tracked_folders import VersionedOutputs


@dataclass(frozen=True)
class RunFacts:
    """The facts of a pipeline run whose steps are all done.

    Attributes:
        name: Name of the pipeline, e.g. ``tiny``.
        config: The resolved configuration of the whole pipeline.
        manifests: Manifest by name of the step.
        outputs: Output folder by name of the step, relative to the workspace, e.g. ``checkpoints/stage2``.
        workspace: The workspace.
        versions: The tracked folders that hold the outputs, as pushed by DVC.
        model_step: Name of the step whose output is the model.
        evaluate_step: Name of the step that evaluated the model.
        report_step: Name of the step that wrote ``scores.json``.
        dataset_steps: Use of the dataset (``training``, ``evaluation``) by name of the step that made it.
        tags: Further tags of the run, e.g. the id of the flow run; `record_key` does not depend on them.
        sections: Field of `config` that configures a step, by name of the step.
        sources: For each step, the name of the step that makes an input, by the input's name.
        tasks: Names of all tasks of the evaluation; the gate requires a score of each.
    """

    name: str
    config: Mapping[str, Any]
    manifests: Mapping[str, Manifest]
    outputs: Mapping[str, str]
    workspace: Path
    versions: VersionedOutputs
    model_step: str = "train-2"
    evaluate_step: str = "evaluate"
    report_step: str = "report"
    dataset_steps: Mapping[str, str] = field(
        default_factory=lambda: {"corpus": "training, evaluation", "synthesize": "training", "mine": "training"}
    )
    tags: Mapping[str, str] = field(default_factory=dict)
    sections: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()

    def folder(self, step: str) -> Path:
        """Returns the output folder of a step."""
        return self.workspace / self.outputs[step]

    @property
    def model(self) -> Path:
        """Returns the folder of the model."""
        return self.folder(self.model_step)

    @property
    def model_digest(self) -> str:
        """Returns the content digest of the model."""
        return self.manifests[self.model_step].content

    @property
    def scored_digest(self) -> str:
        """Returns the content digest of the evaluated model; empty if the report was made from another evaluation."""
        evaluation = self.manifests[self.evaluate_step]
        # A report that was made from another evaluation than the present one proves nothing about this model.
        if evaluation.content not in self.manifests[self.report_step].inputs.values():
            return ""
        return evaluation.inputs.get("model", "")

    @cached_property
    def scores(self) -> dict[str, Any]:
        """Returns the content of ``scores.json``.

        Raises:
            FoundryError: It is missing, or does not fit the schema of a report.
        """
        return read_report_scores(self.folder(self.report_step)).model_dump(mode="json")


def record_key(facts: RunFacts, policy: Mapping[str, Any]) -> str:
    """Returns the identity of a run: sha256 of configuration, outputs and policy, without times."""
    return sha256_json(
        {
            "name": facts.name,
            "config": facts.config,
            "steps": {name: [manifest.key, manifest.content] for name, manifest in facts.manifests.items()},
            "versions": {folder.path: folder.md5 for folder in facts.versions.folders},
            "policy": policy,
        }
    )
