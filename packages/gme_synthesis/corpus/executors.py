"""Where shards are worked on: in this process, or by Ray actors. The output has the same bytes either way.

An executor is handed the shards that are not finished yet and yields each as soon as it is, in any order; neither the
journal nor anything after it knows who did the work.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from itertools import groupby
from typing import Any

from gme_data.errors import FoundryError
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.resources import WAITING, Resources, RunFolders
from gme_synthesis.corpus.shard_runner import STEP_BUILDERS, ShardRunner
from gme_synthesis.corpus.shards import Shard, ShardJournal

Execute = Callable[[Sequence[str], Sequence[str], Iterable[Shard]], Iterator[Shard]]
"""An executor: names of steps, columns that are filled, and shards to finished shards."""


def make_executor(config: SynthesisConfig, folders: RunFolders, resources: Resources) -> Execute:
    """Returns the executor that the config names; `resources` are those of this process."""
    if config.executor.kind == "ray":
        return RayExecutor(config, folders)
    return lambda names, filled, shards: map(ShardRunner(names, resources, filled).run, shards)


class RayExecutor:
    """A pool of actors for each group of steps with equal needs, chained by Ray Data, which streams between them."""

    def __init__(self, config: SynthesisConfig, folders: RunFolders) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            hint = "pip install 'gme-foundry[ray]'"
            raise FoundryError("The executor 'ray' needs the package ray.", hint=hint) from error
        self._config, self._folders = config, folders
        if not ray.is_initialized():
            _join_or_start(config.executor.workers + config.executor.gpu_workers)

    def __call__(self, names: Sequence[str], filled: Sequence[str], shards: Iterable[Shard]) -> Iterator[Shard]:
        """See `Execute`."""
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        executor, folder = self._config.executor, self._folders.scratch / WAITING
        shutil.rmtree(folder, ignore_errors=True)
        # Shards lie on disk until an actor reads one, and rows only name them: there may be millions of passages.
        journal = ShardJournal(folder)
        rows = []
        for shard in shards:
            journal.put(shard)
            rows.append({"number": shard.number})
        if not rows:
            return
        flow: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
        # Neighbouring steps with equal needs share an actor, so that a shard moves between processes seldom.
        for gpu, group in groupby(names, key=lambda name: STEP_BUILDERS[name].gpu):
            flow = flow.map(
                _Actor,
                fn_constructor_args=(self._config, self._folders, tuple(group)),
                compute=ray.data.ActorPoolStrategy(size=executor.gpu_workers if gpu else executor.workers),
                num_gpus=executor.gpus_per_worker if gpu else 0,
                num_cpus=0.5,
            )
        for row in flow.iter_rows():
            if "error" in row:
                raise row["error"]
            yield row["shard"]
        shutil.rmtree(folder, ignore_errors=True)


def _join_or_start(cpus: int) -> None:
    """Joins the cluster of this machine or of `RAY_ADDRESS`, or starts one (``RAY_ADDRESS=local`` never joins)."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS") != "local":
        with suppress(ConnectionError):
            ray.init(address="auto", logging_level=logging.ERROR)
            return
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


class _Actor:
    """A shard runner in a process of its own."""

    def __init__(self, config: SynthesisConfig, folders: RunFolders, names: Sequence[str]) -> None:
        import ray

        # Each actor appends to its own file of answers, and reads those of all actors.
        process = str(ray.get_runtime_context().get_actor_id())
        self._runner = ShardRunner(names, Resources(config, folders, process))
        self._waiting = ShardJournal(folders.scratch / WAITING)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if "error" in row:
            return row
        try:
            shard = row["shard"] if "shard" in row else self._waiting.get(row["number"])
            return {"shard": self._runner.run(shard)}
        except FoundryError as error:
            # As data: Ray would raise one of its own in its place, which has lost the hint.
            return {"error": error}
