"""The steps of this package, as the chain runs them.

Each step's function lives in a module of its own: the step key covers the source that it imports, and a change in the
report must not evaluate the model again.
"""

from __future__ import annotations

from gme_data.steps import Step
from umrb.baselines import run_baselines
from umrb.evaluation import run_evaluation
from umrb.report.build import build_report

BASELINES = Step("baselines", "runs/baselines", run_baselines)
EVALUATE = Step("evaluate", "runs/evaluation", run_evaluation)
REPORT = Step("report", "runs/report", build_report)
