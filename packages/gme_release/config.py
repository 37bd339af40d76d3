"""What the release step may be told."""

from __future__ import annotations

from pathlib import Path

from gme_data.settings import Frozen


class ReleaseConfig(Frozen):
    """Where a run is recorded and what decides whether its model is registered. Paths are relative to the workspace."""

    experiment: str = "gme-tiny"
    """MLflow experiment of the runs."""
    model_name: str = "gme-tiny"
    """Name in the model registry."""
    promotion: Path = Path("mlflow/promotion.yaml")
    """The promotion policy; looked for in the workspace, then in the source checkout."""
    tracked: tuple[str, ...] = ("data", "checkpoints")
    """Folders whose bytes DVC keeps, each behind the pointer file ``<folder>.dvc``."""
    remote: str = "store"
    """DVC remote the bytes are pushed to."""
    remote_url: str = "dvc-store"
    """Address of the remote in a workspace that has no DVC configuration yet."""
    scrub: bool = True
    """Hash every object of the local cache and of a local remote again before adding to it (about 2 s per GB)."""
    promote: bool = True
    """Make a model that passed the champion at once; else it is the candidate until `gme promote`."""
    candidate: str = "candidate"
    """Alias of the version that passed the gate last."""
    champion: str = "champion"
    """Alias of the version in use."""
    previous: str = "previous"
    """Alias of the version that was the champion before."""
