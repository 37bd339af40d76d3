"""Would this policy allow that? Of IAM's rules those that our policies use: a statement allows and none refuses."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any


def allowed(policy: Mapping[str, Any], action: str, resource: str, **context: str) -> bool:
    """Whether a policy document allows an action on a resource.

    Args:
        policy: The document, parsed.
        action: For instance `s3:PutObject`.
        resource: Full ARN.
        context: Condition keys by their name with `:` written as `_`, such as `s3_prefix`.
    """
    matching = [entry["Effect"] for entry in policy["Statement"] if _applies(entry, action, resource, context)]
    return "Allow" in matching and "Deny" not in matching


def _applies(entry: Mapping[str, Any], action: str, resource: str, context: Mapping[str, str]) -> bool:
    return (
        any(fnmatchcase(action, pattern) for pattern in _listed(entry["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in _listed(entry["Resource"]))
        and all(
            any(fnmatchcase(context.get(key.replace(":", "_"), "\0"), pattern) for pattern in _listed(patterns))
            for keys in entry.get("Condition", {}).values()
            for key, patterns in keys.items()
        )
    )


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
