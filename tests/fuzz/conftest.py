"""The server's door is tried with what the tests of the server use."""

from __future__ import annotations

import sys
from pathlib import Path

# The import mode of the suite puts no test folder on the path.
sys.path.insert(0, str(Path(__file__).parents[1] / "gme_serve"))
