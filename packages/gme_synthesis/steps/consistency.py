"""Step 3, the consistency filter: the passage must be in the top 20 for its question (paper: 1.2% lost).

The pool is encoded once, before. Paper: gte-Qwen2-1.5B; here any text encoder, and exact search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject, Stage

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> unit vectors, float32 [n, d]."""


class ConsistencyStep:
    """Keeps a candidate whose question leads back to its passage.

    Args:
        rows: Row of each passage by id.
        vectors: The pool, float32 [passages, d]; may be memory-mapped.
        encode: Questions into the same space.
        top_k: How near the passage must be.
        encoded_per_fact: Questions encoded for a fact; further ones take the verdict of its first.
    """

    def __init__(
        self,
        rows: Mapping[str, int],
        vectors: NDArray[np.float32],
        encode: Encode,
        top_k: int,
        encoded_per_fact: int = 1,
    ) -> None:
        self._rows, self._vectors, self._encode, self._top_k = rows, vectors, encode, top_k
        self._judged_per_fact = encoded_per_fact

    def stage(self) -> Stage:
        """As a step of a chain."""
        return Stage("consistency", ("question",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `id`, `fact`, `question`. Output columns: none."""
        judged: list[Candidate] = []
        of_fact: dict[tuple[str, str], list[int]] = {}
        judge: list[int] = []  # for each candidate, whose verdict it takes
        for one in candidates:
            places = of_fact.setdefault((one.id, one.fact), [])
            if len(places) < self._judged_per_fact:
                places.append(len(judged))
                judged.append(one)
                judge.append(places[-1])
            else:
                judge.append(places[0])
        verdicts = self._lead_back(judged)
        for one, place in zip(candidates, judge, strict=True):
            if verdicts[place]:
                yield one
            else:
                yield Reject("consistency", f"passage-not-in-top-{self._top_k}", one.subject, one.question)

    def _lead_back(self, judged: Sequence[Candidate]) -> list[bool]:
        own = [self._rows[one.id] for one in judged]
        return lead_back([one.question for one in judged], own, self._vectors, self._encode, self._top_k)


def lead_back(
    questions: Sequence[str], own: Sequence[int], vectors: NDArray[np.float32], encode: Encode, top_k: int
) -> list[bool]:
    """Whether row ``own[i]`` of `vectors` is among the `top_k` nearest to ``questions[i]``, for each of them."""
    if not questions:
        return []
    from gme_embedder.index import search  # torch, which who reads a config alone does not need

    _, rows = search(encode(questions), vectors, min(top_k, len(vectors)))
    return [bool(hit) for hit in (rows == np.asarray(own)[:, None]).any(axis=1)]
