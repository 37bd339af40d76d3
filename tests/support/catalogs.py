"""A catalog of examples that are in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

from gme_data.examples import Example, write_examples
from gme_training.data.catalog import Catalog
from gme_training.data.example_index import ensure_index


class Everything:
    """Holds every picture."""

    def __contains__(self, _: object) -> bool:
        return True


def catalog_of(examples: Iterable[Example]) -> Catalog:
    """Its files are mapped, and so outlive their folder."""
    with tempfile.TemporaryDirectory() as folder:
        write_examples(Path(folder) / "train", examples)
        ensure_index([Path(folder) / "train"], Path(folder) / "index", Everything())
        return Catalog(Path(folder) / "index")
