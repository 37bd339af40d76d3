"""Step 5b, the picture-text score of flags: by the champion of the last run, once there is one.

Paper: CLIP ViT-L/14, below 0.2 refused. An embedder of ours has a scale of its own, on which unrelated pairs lie around
0, so the default refuses what is below that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from gme_data.images import ImageStore
from gme_synthesis.records import Draft, Reject
from gme_synthesis.steps.picture_score import PictureTextScorer
from gme_synthesis.world import World


class FlagScore:
    """Refuses drafts of which a flag looks to the scorer like anything but the flag of its place; asks once a flag."""

    def __init__(self, world: World, store: ImageStore, scorer: PictureTextScorer, min_score: float) -> None:
        self._world, self._store, self._scorer, self._least = world, store, scorer, min_score
        self._scores: dict[str, float] = {}

    def run(self, drafts: Sequence[Draft]) -> Iterator[Draft | Reject]:
        """Input columns: `fact_id`, `flag`, `other_flag`. Output columns: none."""
        self._score({id_: self._caption(draft) for draft in drafts for id_ in (draft.flag, draft.other_flag)})
        for draft in drafts:
            low = [id_ for id_ in (draft.flag, draft.other_flag) if self._scores[id_] < self._least]
            if low:
                said = f"{self._caption(draft)} {self._scores[low[0]]:.3f}"
                yield Reject("picture-score", "low-score", draft.fact_id, said)
            else:
                yield draft

    def _caption(self, draft: Draft) -> str:
        return f"The flag of {self._world.places[self._world.facts[draft.fact_id].place_id].name}."

    def _score(self, captions: dict[str, str]) -> None:
        missing = [id_ for id_ in captions if id_ not in self._scores]
        if missing:
            found = self._scorer.score([self._store.load(id_) for id_ in missing], [captions[id_] for id_ in missing])
            self._scores.update(zip(missing, found.tolist(), strict=True))
