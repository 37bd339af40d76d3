"""Every pipeline file loads, says on top how it is run."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.chain import CHAIN, section
from flows.config import PipelineConfig, load_pipeline

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted([*(ROOT / "configs").glob("*.yaml"), ROOT / "tests" / "flows" / "small.yaml"])


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_config_loads(path: Path) -> None:
    config = load_pipeline(path)
    assert {section(config, name).model_config["frozen"] for name in CHAIN} == {True}


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda path: path.name)
def test_config_opens_with_its_launch_line(path: Path) -> None:
    head = path.read_text().splitlines()[:3]
    assert all(line.startswith("#") for line in head)
    assert f"gme pipeline --config configs/{path.name}" in "\n".join(head)


def test_every_field_is_explained() -> None:
    """The schema that editors show has a sentence for each field."""
    schema = PipelineConfig.model_json_schema()
    for name, definition in {"PipelineConfig": schema, **schema["$defs"]}.items():
        for field, facts in definition.get("properties", {}).items():
            assert facts.get("description"), f"{name}.{field} has no docstring"


def test_the_model_and_its_baseline_are_scored_alike() -> None:
    config = load_pipeline(ROOT / "configs" / "tiny.yaml")
    assert config.baselines.scoring == config.evaluation.scoring
    assert config.baselines.dtype == config.evaluation.dtype
    assert config.baselines.model == config.stage_1.model


def test_yaml_round_trip() -> None:
    raw = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    assert PipelineConfig.model_validate(raw).name == "tiny"
