"""Names are refused where MLflow would refuse them, and else only where an address of ours could not hold them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from mlflow.exceptions import MlflowException
from mlflow.utils import validation
from pydantic import ValidationError

from gme_release import names
from gme_release.config import ReleaseConfig

PIECES = [*"aZ09_-. /:%\"'@?#\\+ü\n\t~,;", "latest", "LATEST", "v1", "V22", "12", "..", "x" * 120, "é" * 60, ""]


def drawn(count: int) -> list[str]:
    draw = random.Random(17)
    return ["".join(draw.choices(PIECES, k=draw.choice([0, 1, 1, 2, 3, 4]))) for _ in range(count)]


def passes(check: Callable[[str], object], name: str) -> bool:
    try:
        check(name)
    except (ValueError, MlflowException):
        return False
    return True


def mlflow_model_name(name: str) -> None:
    validation._validate_model_name(name)
    validation._validate_logged_model_name(name)


def mlflow_alias(name: str) -> None:
    validation._validate_model_alias_name(name)
    validation._validate_model_alias_name_reserved(name)


def mlflow_key(path: str) -> None:
    validation._validate_tag(f"gme.dvc.{path}", "x")


@pytest.mark.parametrize(
    ("ours", "theirs", "narrower"),
    [
        (
            names.check_model_name,
            mlflow_model_name,
            lambda name: (
                set(name) & set("@?#\\")
                or name != name.strip()
                or not name.isprintable()
                or len(name.encode()) > names.MAX_MODEL_NAME
            ),
        ),
        (names.check_alias, mlflow_alias, lambda name: name.endswith("\n")),
        (
            names.check_experiment_name,
            validation._validate_experiment_name,
            lambda name: not name.strip() or not name.isprintable() or len(name) > names.MAX_EXPERIMENT_NAME,
        ),
        (
            names.check_tracked_folder,
            mlflow_key,
            lambda path: not path or path.startswith("/") or path == "." or ".." in path.split("/") or "\n" in path,
        ),
    ],
    ids=["model", "alias", "experiment", "tracked"],
)
def test_the_rules_are_those_of_the_installed_mlflow(
    ours: Callable[[str], str], theirs: Callable[[str], None], narrower: Callable[[str], object]
) -> None:
    seen = set()
    for name in drawn(4000):
        accepted = passes(ours, name)
        if not narrower(name):
            assert accepted == passes(theirs, name), repr(name)
        elif accepted:
            assert passes(theirs, name), repr(name)
        seen.add(accepted)
    assert seen == {True, False}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_name", "team/gme:v1"),
        ("model_name", "gme.v1"),
        ("model_name", ""),
        ("model_name", "x" * 201),
        ("candidate", "latest"),
        ("champion", "v12"),
        ("previous", "in use"),
        ("previous", "champion"),
        ("experiment", " "),
        ("experiment", "x" * 257),
        ("remote", 'a"b'),
        ("remote", "gme"),
        ("remote_url", ""),
        ("remote_url", "ftp://host/x"),
        ("remote_url", "s3://key:hidden@bucket"),
        ("remote_url", "store%(x)s"),
        ("tracked", ()),
        ("tracked", ("../data",)),
        ("tracked", ("/data",)),
        ("tracked", ("data/",)),
        ("tracked", ("data", "data/atlas")),
        ("tracked", ("data", "data")),
        ("tracked", ("data+more",)),
    ],
)
def test_what_would_fail_at_the_end_is_refused_where_it_is_read(field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        ReleaseConfig.model_validate({field: value})
    assert "hidden" not in str(refused.value.errors()[0]["msg"])


def test_what_mlflow_takes_is_taken() -> None:
    ReleaseConfig(model_name="Our model_2-ü", champion="12", experiment="/team/Größe: 7?", tracked=("data/a b", "c:d"))
