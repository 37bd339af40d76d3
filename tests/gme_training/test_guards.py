"""Steps that must not go on."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gme_data.errors import FoundryError
from gme_training.config import GuardConfig
from gme_training.guards import Guards, StepMetrics

GOOD = StepMetrics(3, "mix", "flag", ("flag-1", "flag-2"), loss=20.0, gradient=1.5, gap=0.2)


def test_good_steps_pass():
    guards = Guards(GuardConfig(patience=1))
    for _ in range(3):
        guards.check(GOOD)


@pytest.mark.parametrize("name", ["loss", "gradient"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_named_with_its_examples(name: str, value: float):
    with pytest.raises(FoundryError, match=f"The {name} is {value} at step 3 of phase 'mix'.*flag-1, flag-2") as caught:
        Guards(GuardConfig()).check(replace(GOOD, **{name: value}))
    assert "phases.mix" in str(caught.value.hint)


def test_an_exploding_gradient_stops():
    with pytest.raises(FoundryError, match=r"norm of 2e\+03"):
        Guards(GuardConfig(gradient_norm=1e3)).check(replace(GOOD, gradient=2e3))


def test_collapse_stops_after_a_while_and_one_good_step_starts_the_count_anew():
    guards, flat = Guards(GuardConfig(patience=3)), replace(GOOD, gap=0.0)
    for facts in (flat, flat, GOOD, flat, flat):
        guards.check(facts)
    with pytest.raises(FoundryError, match="collapsed: for 3 steps"):
        guards.check(flat)
