"""What every bucket, database and right has to be: one function a rule, which yields the addresses that break it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from support.terraform import Block, Configuration, inner, statements

Rule = Callable[[Configuration], Iterator[str]]
RULES: dict[str, Rule] = {}
BLOCKS = ("block_public_acls", "block_public_policy", "ignore_public_acls", "restrict_public_buckets")
RIGHT = re.compile(r"\b(Action|Resource)\s*=\s*(\[[^\]]*\]|\"[^\"]*\")")
SECRET = re.compile(r"password|secret|token")


def rule(check: Rule) -> Rule:
    RULES[check.__name__] = check
    return check


def receives_logs(all_: Configuration, bucket: Block) -> bool:
    return any("logging.s3.amazonaws.com" in json.dumps(document.body) for document in policies(all_, bucket))


def policies(all_: Configuration, bucket: Block) -> list[Block]:
    """Policy documents in force on a bucket."""
    documents = all_.of("aws_iam_policy_document")
    attached = all_.beside(bucket, "aws_s3_bucket_policy", "bucket")
    return [document for policy in attached for document in documents if policy.refers_to(document, "policy")]


def each_bucket(kind: str, good: Callable[[dict[str, Any]], bool]) -> Rule:
    """Every bucket has a companion of a kind that is as it should be."""

    def check(all_: Configuration) -> Iterator[str]:
        for bucket in all_.of("aws_s3_bucket"):
            if not any(good(companion.body) for companion in all_.beside(bucket, kind, "bucket")):
                yield bucket.address

    return check


RULES["bucket_versioned"] = each_bucket(
    "aws_s3_bucket_versioning",
    lambda body: [found.get("status") for found in inner(body, "versioning_configuration")] == ["Enabled"],
)
RULES["bucket_private"] = each_bucket(
    "aws_s3_bucket_public_access_block", lambda body: all(body.get(name) is True for name in BLOCKS)
)
RULES["bucket_without_acls"] = each_bucket(
    "aws_s3_bucket_ownership_controls",
    lambda body: [found.get("object_ownership") for found in inner(body, "rule")] == ["BucketOwnerEnforced"],
)
RULES["bucket_cleaned"] = each_bucket(
    "aws_s3_bucket_lifecycle_configuration", lambda body: bool(inner(body, "rule", "abort_incomplete_multipart_upload"))
)


@rule
def bucket_encrypted(all_: Configuration) -> Iterator[str]:
    """By a KMS key of ours; a bucket that receives access logs can't be."""
    path = ("rule", "apply_server_side_encryption_by_default")
    for bucket in all_.of("aws_s3_bucket"):
        companions = all_.beside(bucket, "aws_s3_bucket_server_side_encryption_configuration", "bucket")
        found = [entry for companion in companions for entry in inner(companion.body, *path)]
        ours = any(entry.get("sse_algorithm") == "aws:kms" and entry.get("kms_master_key_id") for entry in found)
        if not ours and not (found and receives_logs(all_, bucket)):
            yield bucket.address


@rule
def bucket_logged(all_: Configuration) -> Iterator[str]:
    for bucket in all_.of("aws_s3_bucket"):
        if not any(all_.beside(bucket, "aws_s3_bucket_logging", "bucket")) and not receives_logs(all_, bucket):
            yield bucket.address


@rule
def bucket_by_tls_only(all_: Configuration) -> Iterator[str]:
    for bucket in all_.of("aws_s3_bucket"):
        found = [entry for document in policies(all_, bucket) for entry in statements(document)]
        if not any(_refuses_plain_http(entry, bucket) for entry in found):
            yield bucket.address


def _refuses_plain_http(entry: dict[str, Any], bucket: Block) -> bool:
    condition = {"test": "Bool", "variable": "aws:SecureTransport", "values": ["false"]}
    both = {f"${{{bucket.address}.arn}}", f"${{{bucket.address}.arn}}/*"}
    everyone = {"type": "AWS", "identifiers": ["*"]}
    return (
        entry.get("effect") == "Deny"
        and entry.get("actions") == ["s3:*"]
        and set(entry.get("resources", [])) == both
        and entry.get("principals") == [everyone]
        and entry.get("condition") == [condition]
    )


@rule
def kept_from_destruction(all_: Configuration) -> Iterator[str]:
    for kind in ("aws_s3_bucket", "aws_db_instance", "aws_kms_key"):
        for block in all_.of(kind):
            if [found.get("prevent_destroy") for found in inner(block.body, "lifecycle")] != [True]:
                yield block.address


@rule
def releases_locked(all_: Configuration) -> Iterator[str]:
    for values in all_.locals:
        releases = values.get("buckets", {}).get("releases", {}) if isinstance(values.get("buckets"), dict) else {}
        if releases and releases.get("locked_days") in (None, "null", "${null}"):
            yield "local.buckets.releases"


@rule
def key_rotates_under_a_policy(all_: Configuration) -> Iterator[str]:
    for key in all_.of("aws_kms_key"):
        if key.body.get("enable_key_rotation") is not True or "policy" not in key.body:
            yield key.address


def each_database(**expected: object) -> Rule:
    def check(all_: Configuration) -> Iterator[str]:
        for server in all_.of("aws_db_instance"):
            if any(server.body.get(name) is not value for name, value in expected.items()):
                yield server.address

    return check


RULES["database_private"] = each_database(publicly_accessible=False)
RULES["database_kept"] = each_database(deletion_protection=True, skip_final_snapshot=False)
RULES["database_by_iam"] = each_database(iam_database_authentication_enabled=True)
RULES["database_password_managed"] = each_database(manage_master_user_password=True)


@rule
def database_encrypted(all_: Configuration) -> Iterator[str]:
    for server in all_.of("aws_db_instance"):
        if server.body.get("storage_encrypted") is not True or not server.body.get("kms_key_id"):
            yield server.address


@rule
def database_backed_up(all_: Configuration) -> Iterator[str]:
    for server in all_.of("aws_db_instance"):
        days = server.body.get("backup_retention_period", 0)
        if isinstance(days, int) and days < 7:  # a variable has a validation of its own
            yield server.address


@rule
def database_by_tls_only(all_: Configuration) -> Iterator[str]:
    forced = {"name": "rds.force_ssl", "value": "1"}
    for server in all_.of("aws_db_instance"):
        groups = [
            group for group in all_.of("aws_db_parameter_group") if server.refers_to(group, "parameter_group_name")
        ]
        if not any(forced in inner(group.body, "parameter") for group in groups):
            yield server.address


@rule
def network_open_to_groups_only(all_: Configuration) -> Iterator[str]:
    for block in all_.of("aws_vpc_security_group_ingress_rule"):
        if "referenced_security_group_id" not in block.body:
            yield block.address
    for block in all_.of("aws_security_group"):
        if inner(block.body, "ingress"):
            yield block.address


@rule
def rights_without_wildcards(all_: Configuration) -> Iterator[str]:
    """In documents and in JSON written by hand; the policy of a key, where "*" is the key, is another matter."""
    of_keys = [str(key.body.get("policy")) for key in all_.of("aws_kms_key")]
    for document in all_.of("aws_iam_policy_document"):
        if any(f"data.{document.address}." in text for text in of_keys):
            continue
        allowed = [entry for entry in statements(document) if entry.get("effect", "Allow") == "Allow"]
        if any(_too_wide(entry.get("actions", []), entry.get("resources", [])) for entry in allowed):
            yield document.address
    for block in [*all_.of("aws_iam_role_policy"), *all_.of("aws_iam_policy")]:
        if _wide_text(str(block.body.get("policy"))):
            yield block.address
    for values in all_.locals:
        yield from (f"local.{name}" for name, value in values.items() if _wide_text(str(value)))


def _too_wide(actions: list[str], resources: list[str]) -> bool:
    return any("*" in action for action in actions) or "*" in resources


def _wide_text(text: str) -> bool:
    for kind, value in RIGHT.findall(text):
        listed = re.findall(r'"([^"]*)"', value)
        if _too_wide(listed if kind == "Action" else [], listed if kind == "Resource" else []):
            return True
    return False


@rule
def roles_trust_somebody_named(all_: Configuration) -> Iterator[str]:
    for document in all_.of("aws_iam_policy_document"):
        for entry in statements(document):
            if "sts:AssumeRole" in entry.get("actions", []):
                named = [name for who in inner(entry, "principals") for name in who.get("identifiers", [])]
                if not named or "*" in named:
                    yield document.address


@rule
def no_secret_in_the_text(all_: Configuration) -> Iterator[str]:
    for block in all_.blocks:
        for name, value in block.body.items():
            if SECRET.search(name) and isinstance(value, str) and "${" not in value:
                yield f"{block.address}.{name}"
