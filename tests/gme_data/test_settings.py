"""A config with a mistake names file, field and the likely correction."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import Field, ValidationError

from gme_data.errors import FoundryError, explain_os_error
from gme_data.settings import Frozen, load_config, parse_config


class Inner(Frozen):
    temperature: float = Field(default=0.03, gt=0)


class Outer(Frozen):
    training: Inner = Inner()
    phases: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("training: {temprature: 1}", ["training.temprature", "Did you mean 'temperature'?"]),
        ("phases: [{temperatur: 1}]", ["phases.0.temperatur", "Did you mean 'temperature'?"]),
        ("training: {temperature: -1}", ["training.temperature", "greater than 0", "-1"]),
        ("trainin: {}", ["trainin", "Did you mean 'training'?"]),
        ("[1, 2]", ["expected a mapping"]),
        ("a: [", ["not valid YAML"]),
    ],
)
def test_mistakes_are_explained(tmp_path: Path, text: str, expected: list[str]) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(FoundryError) as caught:
        load_config(path, Outer)
    for part in ["c.yaml", *expected]:
        assert part in str(caught.value)


def test_fields_are_set_on_top_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("phases: [{temperature: 1}, {temperature: 2}]")
    config = load_config(path, Outer, ["phases.1.temperature=0.5", "training.temperature=3"])
    assert [phase.temperature for phase in config.phases] == [1, 0.5]
    assert config.training.temperature == 3


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("phases", "expected FIELD=VALUE"),
        (".a=1", "expected FIELD=VALUE"),
        ("phases.7.temperature=1", "no such field"),
        ("phases.x.temperature=1", "no such field"),
        ("training.temperature.deep=1", "no such field"),
        ("training=[", "not valid YAML"),
        ("training.temprature=1", "Did you mean 'temperature'"),
    ],
)
def test_bad_overrides_are_explained(tmp_path: Path, override: str, expected: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("{phases: [{}], training: {temperature: 1}}")
    with pytest.raises(FoundryError, match=expected) as caught:
        load_config(path, Outer, [override])
    assert override in str(caught.value)


def test_one_mistake_in_a_list_is_one_line_and_no_long_one(tmp_path: Path) -> None:
    class Needy(Outer):
        phases: tuple[Inner, ...] = Field(min_length=1)

    path = tmp_path / "c.yaml"
    path.write_text("{phases: [{temprature: 1}]}")
    with pytest.raises(FoundryError, match="1 bad field") as caught:
        load_config(path, Needy)
    path.write_text(f"training: [{'9, ' * 200}]")
    with pytest.raises(FoundryError, match=r" \.\.\.") as caught:
        load_config(path, Outer)
    assert len(str(caught.value)) < 300


def test_missing_file_suggests_a_neighbour(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text("{}")
    with pytest.raises(FoundryError, match=r"Did you mean 'tiny.yaml'"):
        load_config(tmp_path / "tinny.yaml", Outer)


def test_configs_are_frozen() -> None:
    with pytest.raises(ValidationError):
        Outer().training = Inner()  # type: ignore[misc]


def test_disk_errors_become_advice() -> None:
    explained = explain_os_error(OSError(errno.ENOSPC, "No space left on device", "data/x"))
    assert explained is not None
    assert "disk is full: data/x" in str(explained)
    assert explain_os_error(OSError(errno.ENOENT, "nope")) is None
    too_long = explain_os_error(OSError(errno.ENAMETOOLONG, "File name too long", "x" * 300))
    assert too_long is not None
    assert (too_long.exit_code, explained.exit_code) == (2, 1), "another name helps, another disk does not"


def test_a_nul_is_no_part_of_a_config(tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text('training: {}\nfolders: [a, "b\\0c"]\n')
    with pytest.raises(FoundryError, match=r"c\.yaml: folders\.1 holds a NUL"):
        load_config(path, Outer)


class Miner(Frozen):
    RENAMED: ClassVar = {"skip": "range_min"}

    range_min: int = 0


class Stages(Frozen):
    mining: Miner = Miner()


def test_a_field_of_an_earlier_version_is_named_by_its_new_name() -> None:
    with pytest.raises(FoundryError, match=r"mining\.skip: this field is called range_min now\."):
        parse_config({"mining": {"skip": 3}}, Stages, where="x.yaml")
