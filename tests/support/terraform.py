"""Terraform files as data: blocks parsed by python-hcl2, quotes taken off. Knows nothing of what is right or wrong."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import hcl2
from hcl2 import SerializationOptions

PLAIN = SerializationOptions(with_comments=False, explicit_blocks=False, strip_string_quotes=True)


@dataclass(frozen=True)
class Block:
    """A resource or a data source."""

    folder: Path
    kind: str
    name: str
    body: dict[str, Any]

    @property
    def address(self) -> str:
        return f"{self.kind}.{self.name}"

    def refers_to(self, other: Block, attribute: str) -> bool:
        """Whether an attribute is a reference into another block of the same folder."""
        return other.folder == self.folder and f"{other.address}." in str(self.body.get(attribute, ""))


@dataclass(frozen=True)
class Configuration:
    """All blocks below a folder, and the locals of its files."""

    blocks: tuple[Block, ...]
    locals: tuple[dict[str, Any], ...]

    def of(self, kind: str) -> list[Block]:
        return [block for block in self.blocks if block.kind == kind]

    def beside(self, block: Block, kind: str, attribute: str) -> Iterator[Block]:
        """Blocks of a kind whose attribute refers to the given block."""
        return (other for other in self.of(kind) if other.refers_to(block, attribute))


@cache
def read(root: Path) -> Configuration:
    """Parse every `.tf` file below a folder."""
    blocks: list[Block] = []
    values: list[dict[str, Any]] = []
    for path in sorted(root.rglob("*.tf")):
        parsed = hcl2.loads(path.read_text(encoding="utf-8"), serialization_options=PLAIN)
        values += parsed.get("locals", [])
        for entry in [*parsed.get("resource", []), *parsed.get("data", [])]:
            for kind, named in entry.items():
                blocks += [Block(path.parent, kind, name, body) for name, body in named.items()]
    return Configuration(tuple(blocks), tuple(values))


def inner(body: dict[str, Any], *names: str) -> list[dict[str, Any]]:
    """Nested blocks by their path of names."""
    found = [body]
    for name in names:
        found = [child for parent in found for child in parent.get(name, [])]
    return found


def statements(document: Block) -> list[dict[str, Any]]:
    """Statements of an aws_iam_policy_document, those of dynamic blocks too."""
    dynamic = [content for entry in inner(document.body, "dynamic") for content in _contents(entry)]
    return [*inner(document.body, "statement"), *dynamic]


def _contents(entry: dict[str, Any]) -> list[dict[str, Any]]:
    return [content for body in entry.values() for content in body.get("content", [])]
