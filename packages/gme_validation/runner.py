"""Runs suites with Great Expectations, writes its Data Docs, and refuses every pass that proves nothing.

Great Expectations calls an empty suite, an empty table and an all-null column a success; here each is a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gme_data import environment
from gme_data.progress import track
from gme_validation.docs_pages import NO_TIME, settle_pages
from gme_validation.suites import Expect, Suite

_SITE = "docs"


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that does not hold.

    Attributes:
        expectation: Its type and column in one phrase.
        why: Why it is asked, or what went wrong in asking.
        count: Number of failing rows; 0 where the whole table is at fault.
        rows: The first failing rows, as JSON values.
    """

    suite: str
    expectation: str
    why: str
    count: int
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Judged:
    """The result of one suite: how many expectations were declared and evaluated, and those that failed."""

    suite: str
    rows: int
    declared: int
    evaluated: int
    failures: tuple[Failure, ...]


def run_suites(suites: Sequence[Suite], docs: Path, failed_rows: int) -> list[Judged]:
    """Judge every suite and write Data Docs to `docs` (start page ``index.html``).

    Args:
        suites: With names of their own each.
        docs: Folder for the HTML.
        failed_rows: Rows kept of each failed expectation.

    Raises:
        ValueError: There is no suite, or two have one name.
    """
    if not suites or len({suite.name for suite in suites}) != len(suites):
        raise ValueError("suites need distinct names, and there must be some")
    context = _context(docs)
    source = context.data_sources.add_pandas("tables")
    judged = [
        judge(suite, _evaluate(context, source, suite, failed_rows), failed_rows)
        for suite in track(suites, "validate", len(suites), "suites")
    ]
    context.build_data_docs(site_names=[_SITE])
    settle_pages(docs)
    return judged


def judge(suite: Suite, results: Mapping[int, dict[str, Any]], failed_rows: int) -> Judged:
    """Turn raw results into failures, adding those that Great Expectations passes over in silence."""
    declared = suite.declared()
    failures = [
        _failure(suite, declared[position], result, failed_rows)
        for position, result in sorted(results.items())
        if not result["success"]
    ]
    failures += [Failure(suite.name, "not vacuous", problem, 0, ()) for problem in _vacuous(suite, len(results))]
    return Judged(suite.name, len(suite.frame), len(declared), len(results), tuple(failures))


def _vacuous(suite: Suite, evaluated: int) -> list[str]:
    problems = []
    declared = len(suite.declared())
    if not suite.expects:
        problems.append("the suite expects nothing")
    if evaluated != declared:
        problems.append(f"{evaluated} of {declared} expectations were evaluated")
    if suite.frame.empty:
        problems.append("the table is empty")
        return problems
    asked = sorted({e.column for e in suite.expects if e.column and e.column in suite.frame.columns})
    return problems + [f"column {name!r} has no value at all" for name in asked if suite.frame[name].isna().all()]


def _failure(suite: Suite, expect: Expect, result: dict[str, Any], failed_rows: int) -> Failure:
    detail = result["result"]
    index = [row for row in detail.get("partial_unexpected_index_list") or [] if row in suite.frame.index]
    raised = next((info["exception_message"] for info in _exceptions(result)), None)
    observed = detail.get("observed_value")
    why = f"{expect.why}; not evaluated: {raised}" if raised else expect.why
    if observed is not None:
        why += f" (found {observed})"
    rows = tuple(_plain(suite.frame.loc[row]) for row in index[:failed_rows])
    name = f"{expect.type}({', '.join(f'{k}={v}' for k, v in expect.arguments.items() if k != 'value_set')})"
    return Failure(suite.name, name, why, int(detail.get("unexpected_count") or 0), rows)


def _exceptions(result: dict[str, Any]) -> list[dict[str, Any]]:
    info = result.get("exception_info") or {}
    entries = [info] if "raised_exception" in info else list(info.values())
    return [entry for entry in entries if entry.get("raised_exception")]


def _plain(row: pd.Series[Any]) -> dict[str, Any]:
    return {str(name): value if isinstance(value, int | float | bool) else str(value) for name, value in row.items()}


def _context(docs: Path) -> Any:  # noqa: ANN401 - great_expectations is imported late and has no stubs
    environment.set_default_env()  # its analytics must be off before it is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    context.add_data_docs_site(
        _SITE,
        {
            "class_name": "SiteBuilder",
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.resolve())},
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
        },
    )
    return context


def _evaluate(context: Any, source: Any, suite: Suite, failed_rows: int) -> dict[int, dict[str, Any]]:  # noqa: ANN401
    """Raw results (``success``, ``result``, ``exception_info``) by the expectation's place among those declared."""
    import great_expectations as gx
    from great_expectations import expectations

    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
    asked = [
        getattr(expectations, e.type)(**e.arguments, notes=e.why, meta={"position": position})
        for position, e in enumerate(suite.declared())
    ]
    declared = context.suites.add(gx.ExpectationSuite(suite.name, expectations=asked))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=declared)
    )
    outcome = definition.run(
        batch_parameters={"dataframe": suite.frame},
        # Results carry values from the data: few of them, and never the whole column.
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": failed_rows},
        run_id=gx.RunIdentifier(run_name="validation", run_time=NO_TIME),
    )
    results = [result.to_json_dict() for result in outcome.results]
    return {int(result["expectation_config"]["meta"]["position"]): result for result in results}
