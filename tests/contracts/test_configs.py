"""Every pipeline file loads, says on top how it is run."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from flows.chain import section_of
from flows.chains import pipeline_chain
from flows.config import KINDS, AtlasPipeline, JoinedPipeline, load_pipeline
from flows.study import StudyConfig
from gme_data.settings import Frozen, load_config
from research.starter.chain import StageZeroConfig

ROOT = Path(__file__).resolve().parents[2]
STARTERS = [ROOT / "research" / "starter.yaml"]
STUDIES = sorted((ROOT / "configs" / "studies").glob("*.yaml"))
EXAMPLES = {ROOT / "examples" / "own-corpus" / "own.yaml", ROOT / "examples" / "symbols" / "symbols.yaml"}
OTHERS = {ROOT / "tests" / "flows" / "small.yaml", *EXAMPLES}
PIPELINES = sorted({*(ROOT / "configs").glob("*.yaml"), *OTHERS})
SHIPPED = [*(path for path in PIPELINES if path.is_relative_to(ROOT / "configs")), *STARTERS, *STUDIES]


@pytest.mark.parametrize("path", PIPELINES, ids=lambda path: path.name)
def test_config_loads(path: Path) -> None:
    chain = pipeline_chain(load_pipeline(path))
    assert {section_of(chain.config, step.section).model_config["frozen"] for step in chain} == {True}
    assert all(callable(step.load()) for step in chain), "import paths are checked by nobody else"


def test_other_files_load() -> None:
    assert all(load_config(path, StageZeroConfig).stage_0.phases for path in STARTERS)
    assert all((ROOT / load_config(path, StudyConfig).base).is_file() for path in STUDIES)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_config_opens_with_its_launch_line(path: Path) -> None:
    command = {"research": "python -m research.starter --config", "studies": "gme study"}.get(path.parent.name)
    head = path.read_text().splitlines()[:3]
    assert all(line.startswith("#") for line in head[:2])
    assert f"{command or 'gme pipeline --config'} {path.relative_to(ROOT)}" in "\n".join(head)


@pytest.mark.parametrize("kind", [*KINDS.values(), JoinedPipeline, StageZeroConfig, StudyConfig])
def test_every_field_is_explained(kind: type[Frozen]) -> None:
    """The schema that editors show has a sentence for each field."""
    schema = kind.model_json_schema()
    for name, definition in {kind.__name__: schema, **schema.get("$defs", {})}.items():
        for field, facts in definition.get("properties", {}).items():
            assert facts.get("description"), f"{name}.{field} has no docstring"


def test_the_model_and_its_baseline_are_scored_alike() -> None:
    config = load_pipeline(ROOT / "configs" / "tiny.yaml")
    assert config.baselines.scoring == config.evaluation.scoring
    assert config.baselines.dtype == config.evaluation.dtype
    assert config.baselines.model == config.stage_1.model.model_copy(update={"starter": None})
    assert config.baselines.starter == config.stage_1.model


def test_yaml_round_trip() -> None:
    raw = yaml.safe_load((ROOT / "configs" / "tiny.yaml").read_text())
    assert AtlasPipeline.model_validate(raw).name == "tiny"


def _configs(base: type[Frozen]) -> Iterator[type[Frozen]]:
    for config in base.__subclasses__():
        yield config
        yield from _configs(config)


def test_every_renamed_field_has_a_name_of_now() -> None:
    renamed = {config: config.RENAMED for config in _configs(Frozen) if config.__module__.split(".")[0] != "tests"}
    assert sum(map(len, renamed.values())) > 20
    for config, names in renamed.items():
        for earlier, now in names.items():
            assert re.split(r"[. ]", now)[0] in config.model_fields, (config, now)
            assert earlier not in config.model_fields, (config, earlier)
