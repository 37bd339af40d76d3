"""The cloud that keeps the records: formatted, valid, closed, and with rights as narrow as they are meant."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from support.rights import allowed
from support.terraform import read
from support.terraform_command import initialise, need_terraform, passes
from support.terraform_rules import RULES

ROOT = Path(__file__).resolve().parents[2]
TERRAFORM = ROOT / "infra" / "terraform"
BAD = Path(__file__).parent / "bad_terraform"
BUCKETS = {"aws_s3_bucket.bare", "aws_s3_bucket.half"}
SERVER = {"aws_db_instance.open"}
CAUGHT = {
    **{name: BUCKETS for name in RULES if name.startswith("bucket_")},
    **{name: SERVER for name in RULES if name.startswith("database_")},
    "kept_from_destruction": BUCKETS | SERVER | {"aws_kms_key.still"},
    "releases_locked": {"local.buckets.releases"},
    "key_rotates_under_a_policy": {"aws_kms_key.still"},
    "network_open_to_groups_only": {"aws_vpc_security_group_ingress_rule.world", "aws_security_group.world"},
    "rights_without_wildcards": {
        "aws_iam_policy_document.everything",
        "aws_iam_policy_document.everywhere",
        "aws_iam_policy_document.half",
        "aws_iam_role_policy.written",
        "local.computed",
    },
    "roles_trust_somebody_named": {"aws_iam_policy_document.anybody"},
    "no_secret_in_the_text": {"aws_db_instance.open.password"},
}
STORE, STAGING = "arn:aws:s3:::dvc/store/files/md5/ab/cd", "arn:aws:s3:::dvc/staging"
ARTIFACT, RELEASE = "arn:aws:s3:::mlflow/artifacts/1/run/a", "arn:aws:s3:::releases/releases/v1/record.json"
KEY, DATABASE = (
    "arn:aws:kms:eu-central-1:123456789012:key/k",
    "arn:aws:rds-db:eu-central-1:123456789012:dbuser:db/mlflow",
)
MAY_READ = {
    "synthesize": {STORE, f"{STAGING}/data/x"},
    "train": {STORE, f"{STAGING}/data/x", f"{STAGING}/checkpoints/x"},
    "evaluate": {STORE, f"{STAGING}/data/x", f"{STAGING}/checkpoints/x", f"{STAGING}/evaluation/x"},
    "registrar": {STORE, ARTIFACT, RELEASE, *(f"{STAGING}/{name}/x" for name in ("data", "checkpoints", "evaluation"))},
}
MAY_WRITE = {
    "synthesize": {f"{STAGING}/data/x"},
    "train": {f"{STAGING}/checkpoints/x"},
    "evaluate": {f"{STAGING}/evaluation/x"},
    "registrar": {STORE, ARTIFACT, RELEASE},
}
EVERYTHING = MAY_READ["registrar"] | {
    "arn:aws:s3:::dvc/other",
    "arn:aws:s3:::releases/x",
    "arn:aws:s3:::elsewhere/store/x",
}


@pytest.mark.parametrize("name", RULES)
def test_our_configuration_keeps_the_rule(name: str) -> None:
    assert set(RULES[name](read(TERRAFORM))) == set()


@pytest.mark.parametrize("name", RULES)
def test_the_rule_finds_what_is_wrong(name: str) -> None:
    assert set(RULES[name](read(BAD))) == CAUGHT[name]


def test_there_is_something_to_judge() -> None:
    """Rules over nothing would hold as well."""
    found = read(TERRAFORM)
    counts = {
        kind: len(found.of(kind)) for kind in ("aws_s3_bucket", "aws_db_instance", "aws_iam_role_policy", "aws_kms_key")
    }
    assert counts == {"aws_s3_bucket": 2, "aws_db_instance": 1, "aws_iam_role_policy": 1, "aws_kms_key": 1}


def test_formatted() -> None:
    need_terraform()
    assert passes(ROOT, "fmt", "-check", "-recursive", "-list=true", str(TERRAFORM)) == ""


@pytest.fixture(scope="module")
def computed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the modules without a provider give for invented buckets: policies and settings, computed by terraform."""
    need_terraform()
    folder = tmp_path_factory.mktemp("computed")
    (folder / "main.tf").write_text(f"""
module "grants" {{
  source            = "{TERRAFORM}/modules/grants"
  bucket_arns       = {{ dvc = "arn:aws:s3:::dvc", mlflow = "arn:aws:s3:::mlflow", releases = "arn:aws:s3:::releases" }}
  key_arn           = "{KEY}"
  database_user_arn = "{DATABASE}"
  region            = "eu-central-1"
}}
module "settings" {{
  source        = "{TERRAFORM}/modules/settings"
  bucket_names  = {{ dvc = "dvc", mlflow = "mlflow", releases = "releases" }}
  database_host = "records.example"
  database_port = 5432
}}
output "policies" {{
  value = module.grants.policies
}}
output "settings" {{
  value = module.settings.settings
}}
""")
    passes(folder, "init", "-no-color")
    passes(folder, "apply", "-no-color", "-auto-approve")
    outputs = json.loads(passes(folder, "output", "-json"))
    policies = {job: json.loads(text) for job, text in outputs["policies"]["value"].items()}
    return {"policies": policies, "settings": outputs["settings"]["value"]}


@pytest.mark.parametrize("job", MAY_READ)
def test_a_job_may_what_it_needs_and_no_more(computed: dict[str, Any], job: str) -> None:
    policy = computed["policies"][job]
    assert {arn for arn in EVERYTHING if allowed(policy, "s3:GetObject", arn)} == MAY_READ[job]
    assert {arn for arn in EVERYTHING if allowed(policy, "s3:PutObject", arn)} == MAY_WRITE[job]
    own = {arn for arn in MAY_WRITE[job] if arn.startswith(STAGING)}
    assert {arn for arn in EVERYTHING if allowed(policy, "s3:DeleteObject", arn)} == own
    assert allowed(policy, "rds-db:connect", DATABASE) == (job == "registrar")


@pytest.mark.parametrize("job", MAY_READ)
def test_key_and_listing_are_bound(computed: dict[str, Any], job: str) -> None:
    policy = computed["policies"][job]
    assert allowed(policy, "kms:Decrypt", KEY, kms_ViaService="s3.eu-central-1.amazonaws.com")
    assert not allowed(policy, "kms:Decrypt", KEY)
    assert allowed(policy, "s3:ListBucket", "arn:aws:s3:::dvc", s3_prefix="store/files/")
    assert not allowed(policy, "s3:ListBucket", "arn:aws:s3:::dvc", s3_prefix="")
    assert allowed(policy, "s3:GetBucketLocation", "arn:aws:s3:::releases") == (job == "registrar")


def test_computed_rights_have_no_wildcard(computed: dict[str, Any]) -> None:
    for policy in computed["policies"].values():
        for entry in policy["Statement"]:
            assert not any("*" in action for action in entry["Action"])
            assert all(arn.removesuffix("/*").count("*") == 0 and arn.startswith("arn:") for arn in entry["Resource"])


def test_outputs_are_the_settings_of_the_pipeline(computed: dict[str, Any]) -> None:
    assert computed["settings"] == {
        "GME_MLFLOW_URI": "postgresql+psycopg://mlflow@records.example:5432/mlflow?sslmode=verify-full",
        "GME_ARTIFACT_ROOT": "s3://mlflow/artifacts",
        "GME_DVC_REMOTE": "s3://dvc/store",
        "PREFECT_API_DATABASE_CONNECTION_URL": "postgresql+asyncpg://prefect@records.example:5432/prefect?ssl=verify-full",
    }


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TERRAFORM, tmp_path / "terraform", ignore=shutil.ignore_patterns(".terraform*")))


def test_dev_is_valid(copy: Path) -> None:
    initialise(copy / "envs" / "dev", "-backend=false")
    passes(copy / "envs" / "dev", "validate", "-no-color")


def test_prod_gives_what_it_promises(copy: Path) -> None:
    initialise(copy / "envs" / "prod", "-backend=false")
    shown = passes(copy / "envs" / "prod", "test", "-no-color", "-var-file=../../example.tfvars")
    assert "1 passed, 0 failed" in shown


def test_roles_are_for_named_workers(copy: Path) -> None:
    initialise(copy / "modules" / "iam", "-backend=false")
    assert "2 passed, 0 failed" in passes(copy / "modules" / "iam", "test", "-no-color")


def test_exceptions_for_checkov_have_reasons() -> None:
    texts = [path.read_text() for path in TERRAFORM.rglob("*.tf")]
    found = [line for text in texts for line in text.splitlines() if "checkov:skip" in line]
    assert len(found) >= 8
    assert [line for line in found if not re.fullmatch(r"\s*#checkov:skip=CKV2?_AWS_\d+: \S.{12,}\.", line)] == []


@pytest.mark.slow
def test_checkov_finds_nothing() -> None:
    checkov = ROOT / ".venv" / "checkov" / "bin" / "checkov"
    if not checkov.exists():
        pytest.skip("checkov has an environment of its own: `make check-infra` makes it")
    command = [str(checkov), "--directory", str(TERRAFORM), "--framework", "terraform", "--compact", "--skip-download"]
    done = subprocess.run([*command, "--output", "json"], capture_output=True, text=True, check=False)
    summary = json.loads(done.stdout)["summary"]
    assert summary["failed"] == 0, done.stdout[-4000:]
    assert summary["passed"] > 100
