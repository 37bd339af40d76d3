"""The one reader of users' tables: Parquet, JSON lines, CSV, TSV, PDF and Hugging Face `datasets` folders, row by row.

`open_table` finds the files behind a path; `Table.rows` streams them. A row that can't be read is handed over as a
`RowError`, with its file and line, so that the caller decides whether it ends the job or is counted. What a cell means
is decided in `gme_data.cells`.
"""

from gme_data.tables.table import Row, RowError, Table, TableFile, count_by_suffix, open_table

__all__ = ["Row", "RowError", "Table", "TableFile", "count_by_suffix", "open_table"]
