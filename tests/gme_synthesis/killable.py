"""Synthesis in processes of their own, to be killed. One server imports everything once and forks a child for each.

A module by itself: children import it by name, which they could not do with a test.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from gme_data.steps import StepContext
from gme_synthesis.corpus.config import SynthesisConfig

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["gme_synthesis.corpus.run", "sentence_transformers"])


def start(
    target: Callable[[str, Path, Path], None], settings: str, corpus_folder: Path, home: Path
) -> ForkServerProcess:
    """Start `target` in a child of the server."""
    process = _CONTEXT.Process(target=target, args=(settings, corpus_folder, home), daemon=True)
    process.start()
    return process


def corpus(settings: str, corpus_folder: Path, home: Path) -> None:
    """Synthesis of an imported corpus in the folders of `home`."""
    _synthesize(SynthesisConfig.model_validate_json(settings), corpus_folder, home)


def atlas(settings: str, corpus_folder: Path, home: Path) -> None:
    """Synthesis of an Atlas in the folders of `home`."""
    from gme_synthesis.corpus.atlas_config import AtlasSynthesisConfig

    _synthesize(AtlasSynthesisConfig.model_validate_json(settings), corpus_folder, home)


def _synthesize(config: SynthesisConfig, corpus_folder: Path, home: Path) -> None:
    from gme_synthesis.corpus.run import synthesize

    _silent()
    synthesize(config, {"corpus": corpus_folder}, StepContext(home / "staging", "key", home / "log"))


def _silent() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
