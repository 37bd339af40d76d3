"""What the site is given beside its pages: the reference of commands and of pipeline files, made from the code.

A hook of mkdocs. Links out of `docs/` become the path they lead to, since the site doesn't hold the repository.
It does not know what the pages say.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((\.\.?/[^)#]+)(#[^)]*)?\)")
ROOT = Path(__file__).resolve().parents[1]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of folders that the navigation names with a trailing slash."""
    config.nav = [_listed(entry, Path(config.docs_dir)) for entry in config.nav or []]
    return config


def _listed(entry: object, docs: Path) -> object:
    if isinstance(entry, dict):
        return {title: _listed(below, docs) for title, below in entry.items()}
    if isinstance(entry, list):
        return [_listed(below, docs) for below in entry]
    if isinstance(entry, str) and entry.endswith("/"):
        return [str(path.relative_to(docs)) for path in sorted((docs / entry).glob("*.md"))]
    return entry


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    made = {"reference/commands.md": commands(), "reference/config.md": pipeline_files()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Write links out of `docs/` as the path of the file in the repository."""
    here = (Path(config.docs_dir) / page.file.src_uri).parent

    def settle(link: re.Match[str]) -> str:
        there = (here / link[2]).resolve()
        inside = there.is_relative_to(Path(config.docs_dir).resolve())
        return link[0] if inside or not there.exists() else f"{link[1]} (`{there.relative_to(ROOT)}`)"

    return LINK.sub(settle, markdown)


def commands() -> str:
    """The page of all commands."""
    from gme_cli.main import app

    text = app.generate_docs(output_format="markdown").replace("# gme\n", "# Commands\n", 1)
    # The site shows a table of contents of its own.
    return re.sub(r"## Table of Contents\n.*?(?=\*\*Commands)", "", text, flags=re.DOTALL)


def pipeline_files() -> str:
    """The page of all fields of a pipeline file, from the JSON schema that `gme schema` prints."""
    from flows.config import PipelineConfig

    schema = PipelineConfig.model_json_schema()
    top = {"title": "A pipeline file", **schema}
    parts = [
        "# Pipeline files",
        "One YAML file is one pipeline. Fields that are left out have these defaults; unknown ones are refused. "
        "`gme schema --out schema.json` writes the same for editors, `--set FIELD=VALUE` changes one field of one run.",
        *_section("The file", top),
    ]
    for name in _in_order(schema):
        parts += _section(name, schema["$defs"][name])
    return "\n\n".join(parts) + "\n"


def _in_order(schema: Mapping[str, Any]) -> list[str]:
    """Names of the sections in the order in which a reader meets them."""
    found: dict[str, None] = {}

    def follow(part: Mapping[str, Any]) -> None:
        for name in _names(part.get("properties", {})):
            if name not in found:
                found[name] = None
                follow(schema["$defs"][name])

    follow(schema)
    return list(found)


def _names(part: object) -> Iterator[str]:
    if isinstance(part, dict):
        if "$ref" in part:
            yield part["$ref"].rpartition("/")[2]
        for key, value in part.items():
            if key != "default":
                yield from _names(value)
    elif isinstance(part, list):
        for value in part:
            yield from _names(value)


def _section(name: str, part: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {name}"
    yield str(part.get("description", "")).replace("``", "`")
    required = part.get("required", [])
    rows = ["| field | type | default | meaning |", "|---|---|---|---|"]
    for field, facts in part.get("properties", {}).items():
        default = "needed" if field in required else _default(facts)
        meaning = " ".join(facts.get("description", "").replace("``", "`").split())
        rows.append(f"| `{field}` | {_type(facts)} | {default} | {_cell(meaning)} |")
    yield "\n".join(rows)


def _default(facts: Mapping[str, Any]) -> str:
    value = facts.get("default")
    if isinstance(value, dict) and (list(_names(facts)) or len(value) > 4):
        return "as below" if list(_names(facts)) else "see the schema"
    text = json.dumps(value, ensure_ascii=False)
    return f"`{_cell(text)}`" if len(text) < 60 else "see the schema"


def _type(facts: Mapping[str, Any]) -> str:
    if "$ref" in facts:
        name = facts["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in facts:
        return " or ".join(dict.fromkeys(_type(one) for one in facts["anyOf"]))
    if "enum" in facts or "const" in facts:
        return " or ".join(f"`{value}`" for value in facts.get("enum", [facts.get("const")]))
    if facts.get("type") == "array":
        return f"list of {_type(facts.get('items', {}))}"
    if facts.get("additionalProperties"):
        return f"mapping to {_type(facts['additionalProperties'])}"
    return _bounded(facts)


def _bounded(facts: Mapping[str, Any]) -> str:
    names = {"string": "text", "boolean": "yes or no", "null": "none", "object": "mapping"}
    kind = str(facts.get("type", "any"))
    signs = {"minimum": "≥", "maximum": "≤", "exclusiveMinimum": ">", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {facts[key]:g}" for key, sign in signs.items() if key in facts]
    return " ".join([names.get(kind, kind), ", ".join(bounds)]).strip()


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
