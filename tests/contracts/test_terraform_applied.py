"""The dev environment, applied by terraform's real AWS provider to a simulated AWS, and looked at from outside."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from support.terraform_command import initialise, passes

TERRAFORM = Path(__file__).resolve().parents[2] / "infra" / "terraform"
REGION = "eu-central-1"
KEYS = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": REGION}
SERVICES = ("s3", "kms", "iam", "rds", "sts", "ec2", "secretsmanager")
OVERRIDE = """
terraform {{
  backend "local" {{}}
}}
provider "aws" {{
  access_key                  = "testing"
  secret_key                  = "testing"
  s3_use_path_style           = true
  skip_credentials_validation = true
  skip_metadata_api_check     = true
  skip_requesting_account_id  = true
  endpoints {{
{endpoints}
  }}
}}
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def aws() -> Iterator[str]:
    """Address of a moto server that knows Amazon's own policies."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-p", str(port)],
        env={**os.environ, "MOTO_IAM_LOAD_MANAGED_POLICIES": "true"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        for _ in range(600):
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait()


@pytest.fixture(scope="module")
def outputs(aws: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `terraform output` says after dev was applied."""
    copy = tmp_path_factory.mktemp("applied") / "terraform"
    shutil.copytree(TERRAFORM, copy, ignore=shutil.ignore_patterns(".terraform*"))
    dev = copy / "envs" / "dev"
    endpoints = "\n".join(f'    {name} = "{aws}"' for name in SERVICES)
    (dev / "simulated_override.tf").write_text(OVERRIDE.format(endpoints=endpoints))
    ec2 = boto3.client("ec2", endpoint_url=aws, **KEYS)
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    group = ec2.describe_security_groups()["SecurityGroups"][0]["GroupId"]
    variables = (copy / "example.tfvars").read_text()
    variables = re.sub(r"vpc-\w+", ec2.describe_vpcs()["Vpcs"][0]["VpcId"], variables)
    variables = re.sub(r"subnet_ids .*", f"subnet_ids = {json.dumps(subnets[:2])}", variables)
    (dev / "dev.tfvars").write_text(re.sub(r"sg-\w+", group, variables))
    initialise(dev)
    passes(dev, "apply", "-no-color", "-auto-approve", "-var-file=dev.tfvars")
    return {name: entry["value"] for name, entry in json.loads(passes(dev, "output", "-json")).items()}


def test_settings_name_what_was_made(aws: str, outputs: dict[str, Any]) -> None:
    s3 = boto3.client("s3", endpoint_url=aws, **KEYS)
    buckets = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for name in ("GME_DVC_REMOTE", "GME_ARTIFACT_ROOT"):
        assert outputs["settings"][name].split("/")[2] in buckets
    server = boto3.client("rds", endpoint_url=aws, **KEYS).describe_db_instances()["DBInstances"][0]
    assert server["Endpoint"]["Address"] in outputs["settings"]["GME_MLFLOW_URI"]
    assert "password" not in json.dumps(outputs["settings"]).lower()


def test_buckets_are_closed_versioned_and_encrypted(aws: str, outputs: dict[str, Any]) -> None:
    s3 = boto3.client("s3", endpoint_url=aws, **KEYS)
    found = [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]]
    assert len(found) == 4
    for name in found:
        assert s3.get_bucket_versioning(Bucket=name)["Status"] == "Enabled"
        assert set(s3.get_public_access_block(Bucket=name)["PublicAccessBlockConfiguration"].values()) == {True}
        rule = s3.get_bucket_encryption(Bucket=name)["ServerSideEncryptionConfiguration"]["Rules"][0]
        expected = "AES256" if name.endswith("-log") else "aws:kms"
        assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == expected
        policy = json.loads(s3.get_bucket_policy(Bucket=name)["Policy"])
        assert "OnlyByTls" in [entry["Sid"] for entry in policy["Statement"]]
    lock = s3.get_object_lock_configuration(Bucket=outputs["release_bucket"])["ObjectLockConfiguration"]
    retention = lock["Rule"]["DefaultRetention"]
    assert (retention["Mode"], retention["Days"]) == ("GOVERNANCE", 1)


def test_a_release_is_not_taken_back(aws: str, outputs: dict[str, Any]) -> None:
    s3 = boto3.client("s3", endpoint_url=aws, **KEYS)
    policy = json.loads(s3.get_bucket_policy(Bucket=outputs["release_bucket"])["Policy"])
    refused = next(entry for entry in policy["Statement"] if entry["Sid"] == "NothingIsTakenBack")
    assert refused["Effect"] == "Deny"
    assert {"s3:DeleteObject", "s3:DeleteObjectVersion"} < set(refused["Action"])


def test_the_server_is_as_it_should_be(aws: str, outputs: dict[str, Any]) -> None:
    rds = boto3.client("rds", endpoint_url=aws, **KEYS)
    server = rds.describe_db_instances()["DBInstances"][0]
    assert (server["StorageEncrypted"], server["PubliclyAccessible"], server["DeletionProtection"]) == (
        True,
        False,
        True,
    )
    assert server["IAMDatabaseAuthenticationEnabled"]
    assert server["BackupRetentionPeriod"] == 7
    assert outputs["database_secret_arn"] == server["MasterUserSecret"]["SecretArn"]


def test_each_job_has_its_role(aws: str, outputs: dict[str, Any]) -> None:
    iam = boto3.client("iam", endpoint_url=aws, **KEYS)
    for job, arn in outputs["role_arns"].items():
        role = arn.rpartition("/")[2]
        policy = iam.get_role_policy(RoleName=role, PolicyName=job)["PolicyDocument"]
        writes = [entry for entry in policy["Statement"] if "s3:PutObject" in entry["Action"]]
        assert len(writes) == 1
        assert any("releases" in resource for resource in writes[0]["Resource"]) == (job == "registrar")
        trusted = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]["Statement"][0]["Principal"]["AWS"]
        assert trusted.startswith("arn:aws:iam::123456789012:role/workers-")
