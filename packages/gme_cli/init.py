"""`gme init`: write a pipeline file for a folder of data, after a survey of it."""

from __future__ import annotations

import json as json_module
import os
import re
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from gme_cli.options import print_json, say
from gme_data.errors import FoundryError

if TYPE_CHECKING:
    from gme_synthesis.corpus.survey import Survey

_FILE = """\
# {name}: from passages{and_pictures} to a registered model.
#   gme pipeline --config {path}          (`--dry-run` says what it would do)
# Written by `gme init` after a look at the data; a field that is left out has its default (`gme schema`).
name: "{name}"
corpus:
  kind: files
  passages: {passages}
{pictures}{columns}  # An SPDX expression for passages and pictures that say none themselves.
  licence: {licence}
  source: "{name}"
{survey}
synthesis:
{writer}  # Shares of the entities that are held out: the model is scored on questions about them.
  dev: 0.05
  test: 0.15

# From the starter, which runs on a laptop. For a real corpus take a pretrained model and a GPU instead of `model`:
#   base: {{model: Qwen/Qwen2-VL-2B-Instruct}}
#   lora: {{rank: 8}}
stage_1: &stage
  model: {{starter: shipped}}
  start_share: 0.5
  ranks: 1
  checkpoint_every: 50
  loss: {{symmetric: true}}
  phases:
    - name: mix
      steps: 200
      text_learning_rate: 1.2e-4
      vision_learning_rate: 0
      mixture:
{mixture}
# Hard negatives, found by the model of stage 1, and a second stage that trains on them:
# mining: {{sources: [question], range_max: 30, num_negatives: 2}}
# stage_2:
#   ... as stage_1, with `num_negatives: 1` beside the sources that were mined

baselines: {{starter: {{starter: shipped}}}}
report:
  title: "{name}"
  command: {command}
"""
# Shown as a comment, since an endpoint is the better writer but not everybody has one.
_ENDPOINT = """\
  #   vllm serve Qwen/Qwen2.5-72B-Instruct --enable-prefix-caching
  #   writer: {kind: endpoint, endpoint: {url: "http://localhost:8000/v1", model: Qwen/Qwen2.5-72B-Instruct}}
"""
_TEXT_SOURCES = ("question",)
_PAGE_SOURCES = ("page",)
_PICTURE_SOURCES = ("picture-question", "picture-question-illustrated", "illustrated", "name", "look-up", "look")


def init(
    name: str,
    *,
    passages: Annotated[Path, Parameter(name=["--passages", "-p"])],
    pictures: Path | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    encoding: str = "utf-8",
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a pipeline file for passages and pictures of your own, with what was seen of them as comments.

    Parameters
    ----------
    name
        Name of the pipeline and its model: small letters, digits, dots and hyphens.
    passages
        A .parquet, .jsonl, .csv, .tsv or .pdf file (text formats also as .gz), a folder of them, or one of `datasets`.
    pictures
        A folder of pictures, or a table with their bytes.
    out
        The file to write; NAME.yaml if not given. One that is there is not overwritten.
    encoding
        Encoding of text formats, if it is not UTF-8.
    json
        Print what was seen as JSON and nothing else on standard output.
    """
    from flows.config import MAX_NAME, NAME, load_pipeline
    from gme_data.journal import atomic_write
    from gme_synthesis.corpus.survey import survey as survey_data

    if not re.fullmatch(NAME, name) or len(name) > MAX_NAME:
        raise FoundryError(f"{name!r} can't name a pipeline: small letters, digits, dots and hyphens can.")
    path = out or Path(f"{name}.yaml")
    if path.exists():
        raise FoundryError(f"{path} is there already.", hint="Give another file with --out, or delete it.")
    survey = survey_data(passages, pictures, encoding)
    try:
        text = pipeline_file(name, path, passages, pictures, encoding, survey).encode()
    except UnicodeEncodeError as error:
        raise FoundryError("A name of a file or column is not UTF-8, so no YAML file can hold it.") from error
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, text)
    # Read back, so that no file is left that `gme pipeline` would refuse.
    try:
        load_pipeline(path)
    except FoundryError:
        path.unlink()  # the name of a column can make a file that we don't read
        raise
    if json:
        print_json({"file": path, **asdict(survey)})
        return
    for line in survey_lines(survey):
        say(line)
    say(f"\n{path} is written. Next: look at it, then gme pipeline --config {path} --dry-run")


def pipeline_file(name: str, path: Path, passages: Path, pictures: Path | None, encoding: str, survey: Survey) -> str:
    """Returns the text of the file; paths in it are relative to its folder."""
    folder = path.resolve().parent
    renamed = {field: column for field, column in survey.columns.items() if field != column}
    columns = f"  columns: {_flow(renamed)}\n" if renamed else ""
    columns += f"  encoding: {encoding}\n" if encoding != "utf-8" else ""
    pages = _PAGE_SOURCES if "page" in survey.columns else ()
    sources = (*_TEXT_SOURCES, *pages, *(_PICTURE_SOURCES if pictures else ()))
    return _FILE.format(
        name=name,
        path=path,
        command=_quoted(f"gme pipeline --config {path}"),
        and_pictures=" and pictures" if pictures else "",
        passages=_quoted(os.path.relpath(passages, folder)),
        pictures=f"  pictures: {_quoted(os.path.relpath(pictures, folder))}\n" if pictures else "",
        columns=columns,
        licence="LicenseRef-unknown",  # SPDX's form for what has no identifier; the user knows better
        survey="".join(f"{_comment(line)}\n" for line in survey_lines(survey)),
        writer=_writer(survey),
        mixture="".join(f"        - {{source: {source}, batch_size: 32, grouped: 0}}\n" for source in sources),
    )


def survey_lines(survey: Survey) -> list[str]:
    """Returns the survey as lines for people."""
    rows = f"{survey.rows:,} rows" if survey.rows is not None else f"at least {survey.sampled:,} rows"
    median, longest = survey.characters
    scripts = ", ".join(f"{name.title()} {share:.0%}" for name, share in survey.scripts)
    lines = [
        f"{rows} in {survey.files} file{'s' * (survey.files > 1)}; texts of {median:,} characters (longest {longest:,})"
        f" in {scripts or 'no letters'}"
    ]
    lines += [
        f"{field:<12} {'' if field == column else f'is {column}, '}filled in {survey.filled[field]:.0%}"
        for field, column in survey.columns.items()
    ]
    missing = [field for field in ("title", "picture", "facts") if field not in survey.columns]
    lines += [f"not found: {', '.join(missing)}"] * bool(missing)
    lines += [f"not used: {', '.join(survey.unused)}"] * bool(survey.unused)
    if survey.pictures is not None:
        lines.append(f"{survey.pictures:,} pictures")
    count, first = survey.unreadable
    lines += [f"{count} of {survey.sampled} rows can't be read, first {first}"] * bool(count)
    return lines + [f"passed over: {survey.passed_over}"] * bool(survey.passed_over)


def _writer(survey: Survey) -> str:
    """Returns the section of the writer: rules where passages have title and facts, else a language model."""
    by_rules = {"title", "facts"} <= survey.columns.keys()
    reason = (
        "By rules, since passages have titles and facts; a large language model writes better questions:"
        if by_rules
        else "A language model, since titles or facts are missing; `local` proves the path and no more:"
    )
    return f"  # {reason}\n{_ENDPOINT}  writer: {{kind: {'rules' if by_rules else 'local'}}}\n"


def _flow(mapping: Mapping[str, str]) -> str:
    return "{" + ", ".join(f"{field}: {_quoted(column)}" for field, column in mapping.items()) + "}"


def _quoted(text: str) -> str:
    """Returns a text of the user's as a quoted scalar of YAML."""
    # Every JSON string is a YAML scalar, whatever quotes or line breaks the text has.
    return json_module.dumps(text, ensure_ascii=False)


def _comment(line: str) -> str:
    """Returns a line as a comment; the name of a column may have a line break, which would end it."""
    return "  # " + "".join(char if char.isprintable() else "?" for char in line)
