"""Stages must fill the columns that they declare, and find those that they read."""

from __future__ import annotations

import pytest

from gme_synthesis.candidates import Candidate
from gme_synthesis.stages import Stage, check_columns, run_stage

NORWAY = Candidate(
    "no-p", "Norway. Capital: Oslo.", title="Norway", facts={"capital": "Oslo"}, fact_ids={"capital": "no-f"}
)


def test_stages_must_fit_together() -> None:
    reader = Stage("reader", ("fused",), (), iter)
    with pytest.raises(ValueError, match="reads \\['fused'\\]"):
        check_columns([reader], ("question",))
    liar = Stage("liar", (), ("fused",), iter)
    with pytest.raises(ValueError, match="left \\['fused'\\] empty"):
        run_stage(liar, [NORWAY])
