"""One preparer of a real model for the doors of items and bodies; the server's is tried with what its tests use."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from gme_embedder.config import ModelConfig
from gme_embedder.embedder import Embedder
from gme_embedder.processing.prepare import Preparer

# The import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parents[1] / "gme_serve"))


@pytest.fixture(scope="session")
def preparer() -> Preparer:
    return Embedder.fresh(ModelConfig(), seed=7).preparer
