"""The report: one self-contained HTML page with tables, plots and retrieval examples. Renders; scores nothing."""
