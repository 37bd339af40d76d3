"""What a corpus of public sets would fetch and read, by the registry and the lock file; nothing is fetched for it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gme_data.errors import FoundryError
from gme_synthesis.public.benchmarks import benchmarks_identity
from gme_synthesis.public.config import PublicConfig, SetChoice
from gme_synthesis.public.store import missing_parts, read_lock, require_fetched


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """A set of a pipeline file.

    Attributes:
        revision: Pinned commit of the set's main repository; None before the first fetch.
        accepted: Whether the pipeline file accepts the licence.
        bytes: Size of all files; None where no source states it.
        rows: Rows of the set; None where no source states them.
        rows_read: Rows that are sampled; None where all are read and no source states how many.
        unverified: Facts for which no source was found.
        missing: Why the set can't be read yet; empty once it is fetched.
    """

    name: str
    title: str
    repository: str
    revision: str | None
    licence: str
    accepted: bool
    gated: bool
    bytes: int | None
    rows: int | None
    rows_read: int | None
    task_types: tuple[str, ...]
    unverified: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True)
class DataPlan:
    """All sets of a pipeline file.

    Attributes:
        config: The configuration that was planned for.
        benchmarks_missing: The folder of benchmarks that the file names and that has no tasks; empty otherwise.
    """

    config: PublicConfig
    sets: tuple[PlannedSet, ...]
    benchmarks_missing: str

    @property
    def bytes_to_fetch(self) -> int:
        """Stated bytes of the sets that are not fetched; a set of unstated size counts as 0."""
        return sum(planned.bytes or 0 for planned in self.sets if planned.missing)

    @property
    def licences(self) -> dict[str, list[str]]:
        """Licences that are not accepted yet, each with its sets."""
        by_licence: dict[str, list[str]] = {}
        for planned in self.sets:
            if not planned.accepted:
                by_licence.setdefault(planned.licence, []).append(planned.name)
        return by_licence

    def require_ready(self) -> None:
        """Refuses to start before everything is accepted and fetched.

        Raises:
            FoundryError: A licence is not accepted, a set is not fetched, or the benchmarks are not there.
        """
        self.config.require_licences()
        require_fetched(self.config.sets, self.config.data, self.config.seed)
        if self.benchmarks_missing:
            raise FoundryError(
                f"corpus.benchmarks: {self.benchmarks_missing}: no evaluation tasks to keep apart from.",
                hint="`gme umrb fetch --data FOLDER` brings UMRB's; `benchmarks: null` compares with nothing.",
            )


def plan_sets(config: PublicConfig) -> DataPlan:
    """Plans the public sets of a pipeline file."""
    lock = read_lock(config.data)
    sets = tuple(
        _plan_set(choice, config, lock[name].revision if (name := choice.upstream.repository) in lock else None)
        for choice in config.sets
    )
    missing_benchmarks: Path | None = None if benchmarks_identity(config.benchmarks) else config.benchmarks
    return DataPlan(config, sets, str(missing_benchmarks or ""))


def _plan_set(choice: SetChoice, config: PublicConfig, revision: str | None) -> PlannedSet:
    upstream = choice.upstream
    return PlannedSet(
        name=upstream.name,
        title=upstream.title,
        repository=upstream.repository,
        revision=revision or upstream.revision,
        licence=upstream.licence,
        accepted=upstream.licence in config.accept_licences,
        gated=upstream.gated,
        bytes=upstream.bytes,
        rows=upstream.rows,
        rows_read=min((count for count in (upstream.rows, choice.rows) if count is not None), default=None),
        task_types=choice.task_types or upstream.task_types,
        unverified=upstream.unverified,
        missing=missing_parts(choice, config.data, config.seed),
    )
