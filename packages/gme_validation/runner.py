"""Runs suites with Great Expectations, writes its Data Docs, and fails suites that pass vacuously.

For Great Expectations an empty suite, an empty table and an all-null column are successes; here each is a failure.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gme_data import environment
from gme_data.progress import track
from gme_validation.docs_pages import FIXED_TIME, make_reproducible
from gme_validation.suites import Expectation, TableSuite

_SITE = "docs"
"""Name of the Data Docs site."""


@dataclass(frozen=True, slots=True)
class FailedExpectation:
    """An expectation that does not hold.

    Attributes:
        expectation: Its type and arguments in one phrase.
        why: The reason for the expectation, and the exception if it could not be evaluated.
        count: Number of failing rows; 0 where the table as such fails.
        rows: The first failing rows, as JSON values.
    """

    suite: str
    expectation: str
    why: str
    count: int
    rows: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class SuiteResult:
    """The result of one suite: the numbers of expectations declared and evaluated, and those that failed."""

    suite: str
    rows: int
    declared: int
    evaluated: int
    failures: tuple[FailedExpectation, ...]


def run_suites(suites: Sequence[TableSuite], docs: Path, failed_rows: int) -> list[SuiteResult]:
    """Evaluates every suite and writes Data Docs to `docs` (start page ``index.html``).

    Args:
        suites: Suites with distinct names.
        docs: Folder for the HTML.
        failed_rows: Most rows in a `FailedExpectation`.

    Raises:
        ValueError: There is no suite, or two have one name.
    """
    if not suites or len({suite.name for suite in suites}) != len(suites):
        raise ValueError("suites need distinct names, and there must be some")
    context = _context(docs)
    source = context.data_sources.add_pandas("tables")
    results = [
        _result(suite, _evaluate(context, source, suite, failed_rows), failed_rows)
        for suite in track(suites, "validate", len(suites), "suites")
    ]
    context.build_data_docs(site_names=[_SITE])
    make_reproducible(docs)
    return results


def _result(suite: TableSuite, results: Mapping[int, dict[str, Any]], failed_rows: int) -> SuiteResult:
    """Makes a result of raw results; adds the failures of a vacuous suite, which Great Expectations doesn't report."""
    declared = suite.declared()
    failures = [
        _failure(suite, declared[position], result, failed_rows)
        for position, result in sorted(results.items())
        if not result["success"]
    ]
    failures += [
        FailedExpectation(suite.name, "not vacuous", problem, 0, ()) for problem in _vacuous(suite, len(results))
    ]
    return SuiteResult(suite.name, len(suite.frame), len(declared), len(results), tuple(failures))


def _vacuous(suite: TableSuite, evaluated: int) -> list[str]:
    problems = []
    declared = len(suite.declared())
    if not suite.expectations:
        problems.append("the suite expects nothing")
    if evaluated != declared:
        problems.append(f"{evaluated} of {declared} expectations were evaluated")
    if suite.frame.empty:
        problems.append("the table is empty")
        return problems
    columns = sorted({e.column for e in suite.expectations if e.column and e.column in suite.frame.columns})
    return problems + [f"column {name!r} has no value at all" for name in columns if suite.frame[name].isna().all()]


def _failure(
    suite: TableSuite, expectation: Expectation, result: dict[str, Any], failed_rows: int
) -> FailedExpectation:
    detail = result["result"]
    index = [row for row in detail.get("partial_unexpected_index_list") or [] if row in suite.frame.index]
    # The info of one exception, or a mapping of such infos by metric.
    info = result.get("exception_info") or {}
    infos = [info] if "raised_exception" in info else list(info.values())
    message = next((info["exception_message"] for info in infos if info.get("raised_exception")), None)
    observed = detail.get("observed_value")
    why = f"{expectation.why}; not evaluated: {message}" if message else expectation.why
    if observed is not None:
        why += f" (found {observed})"
    rows = tuple(
        {
            str(column): value if isinstance(value, int | float | bool) else str(value)
            for column, value in suite.frame.loc[row].items()
        }
        for row in index[:failed_rows]
    )
    name = f"{expectation.type}({', '.join(f'{k}={v}' for k, v in expectation.arguments.items() if k != 'value_set')})"
    return FailedExpectation(suite.name, name, why, int(detail.get("unexpected_count") or 0), rows)


def _context(docs: Path) -> Any:  # noqa: ANN401 - great_expectations is imported late and has no stubs
    environment.set_default_env()  # its analytics must be off before it is imported
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    # Suites are built anew from the data in each run, so no project of Great Expectations is kept on disk.
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


def _evaluate(context: Any, source: Any, suite: TableSuite, failed_rows: int) -> dict[int, dict[str, Any]]:  # noqa: ANN401
    """Returns raw results (``success``, ``result``, ``exception_info``) by the position of the expectation."""
    import great_expectations as gx
    from great_expectations import expectations

    batch = source.add_dataframe_asset(suite.name).add_batch_definition_whole_dataframe("whole")
    # A result is assigned by this position, so neither the order nor the number of results is relied upon.
    declared = [
        getattr(expectations, e.type)(**e.arguments, notes=e.why, meta={"position": position})
        for position, e in enumerate(suite.declared())
    ]
    gx_suite = context.suites.add(gx.ExpectationSuite(suite.name, expectations=declared))
    definition = context.validation_definitions.add(
        gx.ValidationDefinition(name=suite.name, data=batch, suite=gx_suite)
    )
    validation = definition.run(
        batch_parameters={"dataframe": suite.frame},
        # SUMMARY returns a few values of the data, COMPLETE would return every failing one.
        result_format={"result_format": "SUMMARY", "partial_unexpected_count": failed_rows},
        run_id=gx.RunIdentifier(run_name="validation", run_time=FIXED_TIME),
    )
    results = [result.to_json_dict() for result in validation.results]
    return {int(result["expectation_config"]["meta"]["position"]): result for result in results}
