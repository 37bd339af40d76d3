"""How templates are rendered, and how numbers and names are written in them. Knows no page."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

_TEMPLATES = Path(__file__).parent / "templates"
_METRICS = {"hit_rate": "R", "ndcg": "nDCG", "mrr": "MRR", "map": "MAP"}


def environment() -> Environment:
    """The one of all pages: escaping, and an error for what is not there."""
    made = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["score"] = lambda value: "·" if value is None else f"{value:.3f}"
    made.filters["percent"] = lambda value: "·" if value is None else f"{100 * value:.2f}"
    made.filters["arrow"] = lambda kind: kind.replace("->", "→")
    made.filters["metric"] = metric_label
    made.filters["thousands"] = lambda value: f"{value:,.0f}"
    return made


def metric_label(name: str) -> str:
    """``hit_rate_at_5`` -> ``R@5``, as the papers of the field print it."""
    kind, _, cutoff = name.partition("_at_")
    return f"{_METRICS.get(kind, kind)}@{cutoff}"
