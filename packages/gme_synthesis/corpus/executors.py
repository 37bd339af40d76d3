"""Where shards are worked on: in this process, or by Ray actors. The same bytes either way.

An executor is handed the shards that are not finished yet and gives each back as soon as it is, in any order; the
journal and all that follows don't know who did the work.
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
from gme_synthesis.corpus.chain import PARTS, Chain
from gme_synthesis.corpus.config import SynthesisConfig
from gme_synthesis.corpus.shards import Shard, ShardJournal
from gme_synthesis.corpus.tools import WAITING, Places, Tools

Execute = Callable[[Sequence[str], Sequence[str], Iterable[Shard]], Iterator[Shard]]
"""(names of steps, columns that are filled, shards) -> finished shards."""


def make_executor(config: SynthesisConfig, places: Places, tools: Tools) -> Execute:
    """The executor that the config names; `tools` are those of this process."""
    if config.executor.kind == "ray":
        return RayExecutor(config, places)
    return lambda names, given, shards: map(Chain(names, tools, given).run, shards)


class RayExecutor:
    """A pool of actors for each run of steps with the same needs, chained by Ray Data, which streams between them."""

    def __init__(self, config: SynthesisConfig, places: Places) -> None:
        try:
            import ray
        except ModuleNotFoundError as error:
            hint = "pip install 'gme-foundry[ray]'"
            raise FoundryError("The executor 'ray' needs the package ray.", hint=hint) from error
        self._config, self._places = config, places
        if not ray.is_initialized():
            _join_or_start(config.executor.workers + config.executor.gpu_workers)

    def __call__(self, names: Sequence[str], given: Sequence[str], shards: Iterable[Shard]) -> Iterator[Shard]:
        """See `Execute`."""
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        executor, folder = self._config.executor, self._places.scratch / WAITING
        shutil.rmtree(folder, ignore_errors=True)
        waiting = _laid_out(ShardJournal(folder), shards)
        if not waiting:
            return
        flow: Any = ray.data.from_items(waiting, override_num_blocks=len(waiting))
        for gpu, group in groupby(names, key=lambda name: PARTS[name].gpu):
            flow = flow.map(
                _Actor,
                fn_constructor_args=(self._config, self._places, tuple(group)),
                compute=ray.data.ActorPoolStrategy(size=executor.gpu_workers if gpu else executor.workers),
                num_gpus=executor.gpus_per_worker if gpu else 0,
                num_cpus=0.5,
            )
        for row in flow.iter_rows():
            if "refused" in row:
                raise row["refused"]
            yield row["shard"]
        shutil.rmtree(folder, ignore_errors=True)


def _laid_out(journal: ShardJournal, shards: Iterable[Shard]) -> list[dict[str, Any]]:
    """Rows that name shards. The shards lie on disk until an actor takes one: there may be millions of passages."""
    rows = []
    for shard in shards:
        journal.put(shard)
        rows.append({"number": shard.number})
    return rows


def _join_or_start(cpus: int) -> None:
    """Join the cluster of this machine, or that of `RAY_ADDRESS`, or be one (``RAY_ADDRESS=local`` never joins)."""
    import ray

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if os.environ.get("RAY_ADDRESS") != "local":
        with suppress(ConnectionError):
            ray.init(address="auto", logging_level=logging.ERROR)
            return
    ray.init(address="local", num_cpus=cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


class _Actor:
    """A chain in a process of its own."""

    def __init__(self, config: SynthesisConfig, places: Places, names: Sequence[str]) -> None:
        import ray

        # Each actor adds to a file of its own, and reads those of all.
        writer = str(ray.get_runtime_context().get_actor_id())
        self._chain = Chain(names, Tools(config, places, writer))
        self._waiting = ShardJournal(places.scratch / WAITING)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        if "refused" in row:
            return row
        try:
            return {"shard": self._chain.run(row["shard"] if "shard" in row else self._waiting.get(row["number"]))}
        except FoundryError as error:
            # As data: Ray would raise one of its own in its place, which has lost the hint.
            return {"refused": error}
