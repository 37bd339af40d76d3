"""Settings of a process that must be made before libraries are imported: no telemetry, quiet tokenizers, safe logs."""

from __future__ import annotations

import os

from gme_data.redact import install_redaction

_DEFAULTS = {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # On a busy machine of two cores, two spinning OpenMP threads are slower than one; a user may set another number.
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}


def set_default_env() -> None:
    """Sets each variable that the user has not set, and has credentials redacted in logs. Idempotent."""
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    install_redaction()
