"""Writes the comment of a pull request: metrics and curves of the working tree beside those of its base, by DVC.

    python .github/scripts/metrics_comment.py BASE [--page FOLDER]

Curves are drawn in Mermaid, which comments can show without a picture being hosted anywhere; `--page` keeps DVC's own
interactive page. It does not know which metrics there are: `dvc.yaml` says it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

POINTS = 40
"""Points of a drawn curve; longer ones are averaged to so many."""
OPEN_ROWS = 20
"""Rows of a table that is shown without a click."""
WORKSPACE = "workspace"
"""What DVC calls the working tree."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the comment in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("base", help="commit to compare with")
    parser.add_argument("--page", help="folder for the interactive page of all plots")
    options = parser.parse_args(arguments)
    table = dvc("metrics", "diff", "--md", "--precision", "4", options.base).strip()
    charts = curves(json.loads(dvc("plots", "diff", options.base, "--json") or "{}"), options.base)
    if options.page and charts:
        dvc("plots", "diff", options.base, "--out", options.page)
    sys.stdout.write(comment(table, charts, options.base, page=bool(options.page)))


def dvc(*arguments: str) -> str:
    """Run DVC; its error ends the program."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"dvc {' '.join(arguments)}\n{done.stderr}")
    return done.stdout


def comment(table: str, charts: Sequence[str], base: str, *, page: bool) -> str:
    """The whole text."""
    parts = ["## Metrics", f"The working tree beside `{base[:10]}`."]
    parts.append(_folded(table) if len(table.splitlines()) > 2 else "No metric differs.")
    if charts:
        parts += ["## Curves", *charts]
        parts += ["All plots, interactive: the artifact `plots` of this run."] if page else []
    return "\n\n".join(parts) + "\n"


def _folded(table: str) -> str:
    rows = len(table.splitlines()) - 2
    if rows <= OPEN_ROWS:
        return table
    return f"<details><summary>{rows} metrics differ</summary>\n\n{table}\n\n</details>"


def curves(plots: Mapping[str, Any], base: str) -> list[str]:
    """A Mermaid chart of every plot with a line through numbers."""
    found = [entry["content"] for entries in plots.get("data", {}).values() for entry in entries]
    charts = [_chart(content, base) for content in found if isinstance(content, dict)]
    return [chart for chart in charts if chart]


def _chart(content: Mapping[str, Any], base: str) -> str:
    x, y = _axes(content)
    if not x or not y:
        return ""
    lines = {rev: _line(content["data"]["values"], rev, x, y) for rev in (base, WORKSPACE)}
    drawn = {rev: values for rev, values in lines.items() if values}
    if WORKSPACE not in drawn or lines[base] == lines[WORKSPACE]:
        return ""
    names = " then ".join("base" if rev == base else "this pull request" for rev in drawn)
    body = [f'    title "{content["title"]["text"]}: {names}"', f'    x-axis "{x}"', f'    y-axis "{y}"']
    body += [f"    line [{', '.join(f'{value:.5g}' for value in values)}]" for values in drawn.values()]
    return "\n".join(["```mermaid", "xychart-beta", *body, "```"])


def _axes(content: Mapping[str, Any]) -> tuple[str, str]:
    """Fields of the axes of a line plot; empty for plots of another kind."""
    layers = content.get("layer", [])
    encoding = {**content.get("encoding", {}), **(layers[0].get("encoding", {}) if layers else {})}
    axes = [encoding.get(name, {}) for name in ("x", "y")]
    if not layers or any(axis.get("type") != "quantitative" for axis in axes):
        return "", ""
    return axes[0]["field"], axes[1]["field"]


def _line(rows: Sequence[Mapping[str, Any]], revision: str, x: str, y: str) -> list[float]:
    points = sorted((float(row[x]), float(row[y])) for row in rows if row["rev"] == revision)
    size = -(-len(points) // POINTS) or 1
    return [fmean(value for _, value in points[start : start + size]) for start in range(0, len(points), size)]


if __name__ == "__main__":
    main()
