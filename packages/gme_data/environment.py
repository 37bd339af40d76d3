"""Process-wide settings that must stand before a library is imported: telemetry off, offline hub, quiet tokenizers.

And what must hold in every process of ours: no credentials in what it logs.
"""

from __future__ import annotations

import os

from gme_data.redact import install

_QUIET = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # Two spinning OpenMP threads on a busy two-core machine are slower than one; whoever knows better sets it.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def settle() -> None:
    """Set each variable that the user has not set; log without credentials. Idempotent."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    install()
