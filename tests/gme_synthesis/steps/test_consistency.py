"""A question must retrieve its passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Reject
from gme_synthesis.steps.consistency import ConsistencyStep

NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)


GAMBIA = replace(NORWAY, id="gm-p", text="The Gambia. Capital: Banjul.", title="The Gambia", fact_ids={})


def letters(texts: Sequence[str]) -> NDArray[np.float32]:
    """A real, if poor, encoder: counts of letters, normalised."""
    counts = np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)
    return counts / np.linalg.norm(counts, axis=1, keepdims=True)


def test_consistency_wants_the_own_passage_among_the_nearest() -> None:
    vectors = letters([NORWAY.text, GAMBIA.text])
    step = ConsistencyStep({"no-p": 0, "gm-p": 1}, vectors, letters, top_k=1, encoded_per_fact=1)
    asked = replace(NORWAY, fact="no-f", question="Norway capital Oslo")
    drafts = [asked, replace(asked, wording=1, question="xyz"), replace(asked, id="gm-p", fact="gm-f")]
    kept, not_encoded, refused = step.run(drafts)
    assert kept == drafts[0]
    assert not_encoded == drafts[1]  # takes the result of the fact's first question
    assert isinstance(refused, Reject)
    assert (refused.reason, refused.subject) == ("passage-not-in-top-1", "gm-f/0")
    (later,) = step.run([replace(asked, wording=1)])  # the first wording was refused before
    assert isinstance(later, Candidate)
