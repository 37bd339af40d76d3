"""Step 2, the consistency filter: a question must lead back to its own passage.

Paper: gte-Qwen2-1.5B, top-20, 1.2% refused. Here: any text encoder, all-MiniLM-L6-v2 by default, exact search.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from gme_synthesis.records import Draft, Fact, Passage, Reject

Encode = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts -> unit vectors, float32 [n, d]."""


class ConsistencyFilter:
    """Keeps a draft if its passage is among the `top_k` nearest of all passages to its question.

    Args:
        passages: The pool, in the order of the rows of `vectors`.
        vectors: float32 [passages, d].
        facts: To find a draft's passage.
        encode: Encodes questions into the same space.
        judged_per_fact: Questions encoded for a fact; further ones take the verdict of its first.
    """

    def __init__(
        self,
        passages: Sequence[Passage],
        vectors: NDArray[np.float32],
        facts: Mapping[str, Fact],
        encode: Encode,
        *,
        top_k: int,
        judged_per_fact: int,
    ) -> None:
        self._row = {passage.id: row for row, passage in enumerate(passages)}
        self._vectors, self._facts, self._encode = vectors, facts, encode
        self._top_k, self._judged = min(top_k, len(passages)), judged_per_fact

    def run(self, drafts: Sequence[Draft]) -> Iterator[Draft | Reject]:
        """Input columns: `fact_id`, `wording`, `question`. Output columns: none."""
        judged = [draft for draft in drafts if draft.wording < self._judged]
        verdict = dict(zip([(d.fact_id, d.wording) for d in judged], self._found(judged), strict=True))
        for draft in drafts:
            if verdict[draft.fact_id, draft.wording if draft.wording < self._judged else 0]:
                yield draft
            else:
                yield Reject("consistency", f"passage-not-in-top-{self._top_k}", draft.fact_id, draft.question)

    def _found(self, drafts: Sequence[Draft]) -> list[bool]:
        own = [self._row[self._facts[draft.fact_id].passage_id] for draft in drafts]
        return lead_back([draft.question for draft in drafts], own, self._vectors, self._encode, self._top_k)


def lead_back(
    questions: Sequence[str], own: Sequence[int], vectors: NDArray[np.float32], encode: Encode, top_k: int
) -> list[bool]:
    """Whether row ``own[i]`` of `vectors` is among the `top_k` nearest to ``questions[i]``, for each of them."""
    if not questions:
        return []
    from gme_embedder.index import search  # torch, which who reads a config alone does not need

    _, rows = search(encode(questions), vectors, min(top_k, len(vectors)))
    return [bool(hit) for hit in (rows == np.asarray(own)[:, None]).any(axis=1)]
