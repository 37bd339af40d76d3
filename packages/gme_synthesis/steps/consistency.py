"""Step 3, the consistency filter: the passage must be in the top 20 for its question (paper: 1.2% lost).

The pool is encoded once, before; `gme_synthesis.consistency` has the search.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gme_synthesis.candidates import Candidate
from gme_synthesis.consistency import Encode, lead_back
from gme_synthesis.records import Reject, Stage


class ConsistencyStep:
    """Keeps a candidate whose question leads back to its passage.

    Args:
        rows: Row of each passage by id.
        vectors: The pool, float32 [passages, d]; may be memory-mapped.
        encode: Questions into the same space.
        top_k: How near the passage must be.
    """

    def __init__(self, rows: Mapping[str, int], vectors: NDArray[np.float32], encode: Encode, top_k: int) -> None:
        self._rows, self._vectors, self._encode, self._top_k = rows, vectors, encode, top_k

    def stage(self) -> Stage[Candidate]:
        """As a step of a chain."""
        return Stage("consistency", ("question",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `id`, `question`. Output columns: none."""
        own = [self._rows[one.id] for one in candidates]
        found = lead_back([one.question for one in candidates], own, self._vectors, self._encode, self._top_k)
        for candidate, back in zip(candidates, found, strict=True):
            if back:
                yield candidate
            else:
                yield Reject("consistency", f"passage-not-in-top-{self._top_k}", candidate.id, candidate.question)
