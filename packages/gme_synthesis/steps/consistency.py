"""Step 3, the round-trip consistency filter: a question must retrieve its passage in the top 20 (paper: 1.2% lost).

All passages are encoded once, before this step. The paper's encoder is gte-Qwen2-1.5B; here it is any text encoder, and
the search is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject, Stage

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Encodes texts as unit vectors, float32 [n, d]."""


class ConsistencyStep:
    """Keeps a candidate whose question retrieves its passage.

    Args:
        rows: Row of each passage in `vectors`, by id.
        vectors: Vectors of all passages, float32 [passages, d]; may be memory-mapped.
        encode: Encodes questions into the same space.
        top_k: Rank within which the passage must be.
        encoded_per_fact: Questions encoded for a fact; further ones take the result of its first.
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
        self._encoded_per_fact = encoded_per_fact

    def stage(self) -> Stage:
        """Returns the step as a stage of a chain."""
        return Stage("consistency", ("question",), (), self.run)

    def run(self, candidates: Sequence[Candidate]) -> Iterator[Candidate | Reject]:
        """Input columns: `id`, `fact`, `question`. Output columns: none."""
        encoded: list[Candidate] = []
        encoded_of_fact: dict[tuple[str, str], list[int]] = {}
        result_index: list[int] = []  # for each candidate, the encoded one whose result it takes
        for candidate in candidates:
            indices = encoded_of_fact.setdefault((candidate.id, candidate.fact), [])
            if len(indices) < self._encoded_per_fact:
                indices.append(len(encoded))
                encoded.append(candidate)
                result_index.append(indices[-1])
            else:
                # Wordings of one fact name the same subject and field, so the first stands for the others.
                result_index.append(indices[0])
        questions = [candidate.question for candidate in encoded]
        rows = [self._rows[candidate.id] for candidate in encoded]
        is_consistent = passage_in_top_k(questions, rows, self._vectors, self._encode, self._top_k)
        for candidate, index in zip(candidates, result_index, strict=True):
            if is_consistent[index]:
                yield candidate
            else:
                reason = f"passage-not-in-top-{self._top_k}"
                yield Reject("consistency", reason, candidate.subject, candidate.question)


def passage_in_top_k(
    questions: Sequence[str], rows: Sequence[int], vectors: NDArray[np.float32], encode: Encode, top_k: int
) -> list[bool]:
    """Says for each question whether row ``rows[i]`` of `vectors` is among the `top_k` nearest to ``questions[i]``."""
    if not questions:
        return []
    # Imported late, as it imports torch, which reading a config does not need.
    from gme_embedder.vectors.exact import search

    _, retrieved = search(encode(questions), vectors, min(top_k, len(vectors)))  # int64 [questions, top_k]
    return [bool(hit) for hit in (retrieved == np.asarray(rows)[:, None]).any(axis=1)]
