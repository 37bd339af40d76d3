"""Which benchmark tasks a corpus of public sets is kept apart from. Knows folders; not what is in them."""

from __future__ import annotations

from pathlib import Path

from gme_data.digests import sha256_json
from gme_data.errors import FoundryError
from gme_synthesis.steps.benchmark_tables import benchmark_tasks, table_files


def benchmarks_identity(folder: Path | None) -> str:
    """Returns a digest of the tasks below a folder, of paths and sizes of their tables; empty without tasks.

    Only another fetch changes what was fetched, and the contents may have terabytes, so they are not read.
    """
    try:
        tasks = benchmark_tasks(folder) if folder else []
    except FoundryError:
        return ""
    files = [path for task in tasks for path in table_files(task)]
    return sha256_json([[path.relative_to(folder or Path()).as_posix(), path.stat().st_size] for path in files])
