"""The plan against the sums that were worked out by hand from mteb's statistics."""

from __future__ import annotations

import numpy as np
import pytest

from gme_cli.main import run as gme
from gme_embedder.costs import PUBLISHED
from umrb.estimates import PAPER_HOURS, estimate_suite
from umrb.registry import choose, load_suite
from umrb.systems.models import ModelOptions

GME_7B = PUBLISHED["Alibaba-NLP/gme-Qwen2-VL-7B-Instruct"]
GME_2B = PUBLISHED["Alibaba-NLP/gme-Qwen2-VL-2B-Instruct"]
A100 = 312e12


def test_the_whole_of_umrb() -> None:
    plan = estimate_suite(load_suite("umrb"), GME_7B, devices=8, speed=0.4 * A100)
    assert len(plan.tasks) == 46 + 12
    assert sum(task.docs.items for task in plan.tasks) == pytest.approx(39.81e6, rel=0.002)
    assert sum(task.queries.items for task in plan.tasks) == pytest.approx(271_393, rel=0.002)
    # 6.85e19 operations and 19 hours, by another reckoning of the same sizes, without padding and without any trick.
    assert plan.savings[1].flop == pytest.approx(6.85e19, rel=0.02)
    assert plan.savings[1].hours == pytest.approx(19, rel=0.02)
    assert plan.hours == pytest.approx(plan.savings[-1].hours, rel=0.01)
    assert plan.device_hours < PAPER_HOURS["umrb"]
    assert plan.search_flop < 0.01 * sum(plan.flop.values())


def test_every_step_saves_and_fever_is_the_largest_shared_pool() -> None:
    plan = estimate_suite(load_suite("umrb"), GME_2B, devices=1, speed=A100)
    flops = [saving.flop for saving in plan.savings]
    assert flops == sorted(flops, reverse=True)
    shared = {task.task: task.docs.reused for task in plan.tasks if task.docs.reused}
    assert shared == {"FEVER": 5_416_568}
    assert 0.08 < 1 - flops[-1] / flops[-2] < 0.2  # of 2B's operations FEVER's corpus is some 13 %


def test_what_is_done_costs_nothing() -> None:
    some = choose("umrb", ["SciFact", "NFCorpus", "TAT-DQA"])
    unfinished = estimate_suite(some, GME_2B, devices=1, speed=A100)
    remaining = estimate_suite(some, GME_2B, devices=1, speed=A100, done={"SciFact"})
    assert remaining.flop["SciFact"] == 0
    assert remaining.hours == pytest.approx(unfinished.hours - unfinished.flop["SciFact"] / A100 / 3600, rel=0.01)
    assert [task.task for task in remaining.tasks if task.done] == ["SciFact"]


def test_pages_meet_the_cap_on_visual_tokens() -> None:
    (task,) = estimate_suite(choose("umrb", ["DocVQA"]), GME_2B, devices=1, speed=A100).tasks
    assert task.docs.picture == 1280
    assert task.docs.text == 0


def test_of_what_mteb_does_not_have_each_side_is_what_its_type_says() -> None:
    tasks = estimate_suite(load_suite("retrieval-page"), GME_2B, devices=1, speed=A100).tasks
    by_name = {task.task: task for task in tasks}
    assert by_name["DCIT2I"].queries.picture == 0 < by_name["DCIT2I"].queries.text
    assert by_name["DCIT2I"].docs.text == 0 < by_name["DCIT2I"].docs.picture
    assert by_name["DiDeMoT2VRetrieval"].docs.picture == pytest.approx(584.6 * 409.05 / 28**2, rel=1e-3)  # a frame
    assert by_name["Flickr30kCNI2T"].queries.text == 0 == by_name["Flickr30kCNI2T"].docs.picture


def test_vectors_take_what_a_run_by_default_writes() -> None:
    plan = estimate_suite(choose("umrb", ["SciFact"]), GME_2B, devices=1, speed=A100)
    encoded = sum(side.distinct - side.reused for side in plan.tasks[0].sides)
    assert plan.vectors_bytes == encoded * 1536 * np.dtype(ModelOptions().store).itemsize


def test_a_suite_that_mteb_does_not_have_is_planned_by_its_sizes() -> None:
    plan = estimate_suite(load_suite("mmeb"), GME_2B, devices=1, speed=A100)
    assert sum(task.queries.items for task in plan.tasks) == 36_000


def test_the_plan_as_it_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert gme(["evaluate", "--suite", "umrb", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = lines[1:60]
    assert len({len(line) for line in table}) == 1
    assert sum(line.split()[0] in {task for row in load_suite("umrb") for task in row.tasks} for line in lines if line)
    assert lines[-1].endswith("GPU-hours; the paper states 400 A100 hours for GME-7B.")
    assert gme(["umrb", "plan", "--suite", "mmeb", "--mfu", "0"]) == 2
    assert gme(["umrb", "plan", "--suite", "mmeb"]) == 0
    assert "how many documents 36 of the tasks have" in capsys.readouterr().out
