"""What the training sets of the data-value comparison may be told."""

from __future__ import annotations

from gme_data.settings import Frozen


class TrainingSetConfig(Frozen):
    """Which examples a set has."""

    brought_along: bool
    """Those that the corpus has without anybody writing."""
    written: bool
    """Questions that were written about its passages."""
