"""What Great Expectations lets pass in silence is a failure here."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from gme_validation.runner import SuiteResult, run_suites
from gme_validation.suites import TableSuite, between, one_of, unique

TABLE = pd.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "nothing": [None, None, None]})


def evaluate(suite: TableSuite, tmp_path: Path) -> SuiteResult:
    return run_suites([suite], tmp_path / "docs", failed_rows=2)[0]


def failure_texts(result: SuiteResult) -> str:
    return " ".join(f"{failure.expectation} {failure.why}" for failure in result.failures)


def test_a_sound_table_passes(tmp_path: Path) -> None:
    result = evaluate(TableSuite("t", TABLE, (3, 3), ("a",), (unique("a"), between("a", 1, 3, "w"))), tmp_path)
    assert not result.failures
    assert result.declared == result.evaluated == 1 + 1 + 1 + 2


def test_a_suite_that_expects_nothing_fails(tmp_path: Path) -> None:
    assert "expects nothing" in failure_texts(evaluate(TableSuite("t", TABLE, (1, None), ("a",), ()), tmp_path))


def test_an_empty_table_fails(tmp_path: Path) -> None:
    empty = TABLE.iloc[:0]
    assert "table is empty" in failure_texts(
        evaluate(TableSuite("t", empty, (0, None), ("a",), (unique("a"),)), tmp_path)
    )


def test_a_column_without_any_value_fails(tmp_path: Path) -> None:
    suite = TableSuite("t", TABLE, (1, None), ("a",), (one_of("nothing", ("x",), "w"),))
    assert "column 'nothing' has no value" in failure_texts(evaluate(suite, tmp_path))


def test_a_missing_column_fails(tmp_path: Path) -> None:
    result = evaluate(TableSuite("t", TABLE, (1, None), ("absent",), (unique("a"),)), tmp_path)
    assert "ExpectColumnToExist(column=absent)" in failure_texts(result)


def test_a_repeated_expectation_is_not_dropped_silently(tmp_path: Path) -> None:
    repeated = TableSuite("t", TABLE, (1, None), ("a",), (unique("a"), unique("a")))
    result = evaluate(repeated, tmp_path)
    assert result.declared == result.evaluated or "were evaluated" in failure_texts(result)


def test_failing_rows_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    result = evaluate(TableSuite("t", TABLE, (1, None), ("a",), (between("a", 9, None, "large"),)), tmp_path)
    (failure,) = result.failures
    assert failure.count == 3
    assert [row["b"] for row in failure.rows] == ["x", "y"]
    assert "ExpectColumnValuesToBeBetween" in failure.expectation


def test_suites_need_distinct_names(tmp_path: Path) -> None:
    suite = TableSuite("t", TABLE, (1, None), ("a",), (unique("a"),))
    with pytest.raises(ValueError, match="distinct names"):
        run_suites([suite, suite], tmp_path, failed_rows=1)


def test_equal_tables_give_equal_pages(tmp_path: Path) -> None:
    stamp = "20240131T010203.000004Z"
    table = TABLE.assign(id=["0e0f3a4e-1111-4222-8333-123456789abc", "?d=" + stamp, stamp])
    suites = [
        TableSuite(name, table, (1, None), ("a",), (between("a", 9, None, "large"), one_of("id", ("x",), "w")))
        for name in ("one", "two.b")
    ]
    for folder in ("first", "second"):
        run_suites(suites, tmp_path / folder, failed_rows=3)
    pages = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in (tmp_path / "first", tmp_path / "second")
    ]
    assert pages[0].keys() == pages[1].keys()
    assert len(pages[0]) > 4
    assert [name for name in pages[0] if pages[0][name] != pages[1][name]] == []
    html = b"".join(page for name, page in pages[0].items() if name.suffix == ".html")
    assert b"0e0f3a4e-1111-4222-8333-123456789abc" in html  # what the data holds stays as it is
    assert stamp.encode() in html
