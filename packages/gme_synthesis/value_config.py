"""What the training sets of the data-value comparison may be told."""

from __future__ import annotations

from gme_data.settings import Frozen


class AtlasPassagesConfig(Frozen):
    """Which part of Atlas is taken as a corpus of passages."""

    split: str = "train"
    """``train`` for examples; ``dev`` and ``test`` only to judge writers by."""


class TrainingSetConfig(Frozen):
    """Which examples a set has."""

    templates: bool
    """Those written by rules, beside what the corpus brings along."""


class DefaultSourcesConfig(Frozen):
    """Written examples under the names of the default sources; nothing to choose."""
