"""Which examples a training set of the data-value comparison has."""

from __future__ import annotations

from gme_data.settings import Frozen


class TrainingSubsetConfig(Frozen):
    """Which examples of a synthetic dataset a training set has."""

    supplied: bool
    """Include the examples that the corpus supplies itself, without any generated question."""
    generated: bool
    """Include the questions that a writer, rules or a model, generated about its passages."""
