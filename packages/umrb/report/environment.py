"""The Jinja environment of the pages, and how numbers and names are formatted in them. Knows no page."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"
_METRICS = {"hit_rate": "R", "ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}


def page_environment() -> Environment:
    """Return the environment of all pages. It escapes values, and an undefined variable is an error."""
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["score"] = lambda value: "·" if value is None else f"{value:.3f}"
    environment.filters["percent"] = lambda value: "·" if value is None else f"{100 * value:.2f}"
    environment.filters["arrow"] = lambda kind: kind.replace("->", "→")
    environment.filters["metric"] = metric_label
    environment.filters["thousands"] = lambda value: f"{value:,.0f}"
    return environment


def metric_label(name: str) -> str:
    """``hit_rate_at_5`` -> ``R@5``, as the papers of the field print it."""
    kind, _, cutoff = name.partition("_at_")
    return f"{_METRICS.get(kind, kind)}@{cutoff}"
