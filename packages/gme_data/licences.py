"""How licences combine: an item made of several parts is under all of theirs."""

from __future__ import annotations


def combine_licences(*licences: str) -> str:
    """Returns one SPDX expression for an item made of several parts.

    >>> combine_licences("MIT", "CC-BY-4.0 AND MIT")
    'CC-BY-4.0 AND MIT'
    """
    parts = {part for licence in licences for part in licence.split(" AND ")}
    return " AND ".join(sorted(parts))
