"""The plots of a stage: all that was measured is drawn, the same data gives the same bytes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gme_data.events import append_event
from gme_training.curves import PANELS, Curve, plot_curves, read_curve, write_curves

SPEED = ("Speed", "Peak memory of rank 0")
SOURCES = tuple(f"source {letter}" for letter in "abcdefghij")


def event(step: int, steps: int) -> dict[str, object]:
    early = step < steps // 2
    return {
        "step": step,
        "phase": "tower" if early else "mix",
        "source": SOURCES[step % 2 if early else step % len(SOURCES)],
        "batch": f"{step:012x}",
        "loss": 4.0 / (1 + step % 50),
        "accuracy": 0.5,
        "similarity": 0.9,
        "negative_similarity": 0.4,
        "temperature": 0.03,
        "gradient_norm": 10.0 + step % 3,
        "text_rate": 0.0 if early else 1e-3,
        "vision_rate": 2e-3,
        "computed_to_real": 0.97,
        "pairs_per_second": 400.0,
        "tokens_per_second": 9000.0,
        "cpu_seconds": 1.0,
        "peak_memory": 2 * 2**30,
    }


def events(path: Path, steps: int = 60) -> Path:
    for step in range(steps):
        append_event(path, "step", **event(step, steps))
    return path


def comments(path: Path) -> list[str]:
    """What is written in a plot; matplotlib draws the letters and leaves the words beside them."""
    return re.findall(r"<!-- (.+?) -->", path.read_text(encoding="utf-8"))


def test_the_figure_has_a_panel_for_all_that_was_measured(tmp_path: Path) -> None:
    plot_curves(tmp_path / "curves.svg", read_curve(events(tmp_path / "events.jsonl"), speed=True))
    labels = comments(tmp_path / "curves.svg")
    for panel in PANELS:
        assert {panel.title, panel.unit} <= set(labels)
    assert len(PANELS) == 8
    assert {*SOURCES, "positives", "negatives", "gap", "language part", "vision tower", "optimizer step"} <= set(labels)
    assert labels.count("tower") == labels.count("mix") == 2  # over both columns
    ElementTree.parse(tmp_path / "curves.svg")  # noqa: S314 - our own file


def test_a_stage_leaves_data_and_plots_that_speed_and_memory_do_not_change(tmp_path: Path) -> None:
    curves = []
    for name, seconds in (("one", 1.0), ("other", 3.0)):
        path = tmp_path / f"{name}.jsonl"
        for step in range(40):
            slower = {"pairs_per_second": 400 / seconds, "peak_memory": 2**30 * seconds, "cpu_seconds": seconds}
            append_event(path, "step", **{**event(step, 40), **slower})
        (tmp_path / name).mkdir()
        write_curves(tmp_path / name, read_curve(path))
        curves.append({file.name: file.read_bytes() for file in (tmp_path / name).iterdir()})
    assert curves[0] == curves[1]
    assert curves[0].keys() == {"curves.json", "curves.svg", "loss.svg"}
    series = json.loads(curves[0]["curves.json"])["series"]
    assert [entry["step"] for entry in series] == list(range(40))
    assert series[3]["temperature"] == 0.03
    labels = comments(tmp_path / "one" / "curves.svg")
    assert {panel.title for panel in PANELS} - set(labels) == set(SPEED)


def test_steps_done_again_count_as_they_were_done_last(tmp_path: Path) -> None:
    path = events(tmp_path / "events.jsonl", 4)
    append_event(path, "step", **{**event(2, 4), "loss": 77.0})
    assert [entry["loss"] for entry in read_curve(path)] == [4.0, 2.0, 77.0, 1.0]


@pytest.mark.parametrize("steps", [1, 2])
def test_the_shortest_stages_are_drawn(tmp_path: Path, steps: int) -> None:
    curve: Curve = read_curve(events(tmp_path / "events.jsonl", steps))
    write_curves(tmp_path, curve)
    assert (tmp_path / "curves.svg").stat().st_size


def test_plots_of_long_stages_stay_small(tmp_path: Path) -> None:
    curve: Curve = [event(step, 30_000) for step in range(30_000)]
    plot_curves(tmp_path / "curves.svg", curve)
    assert (tmp_path / "curves.svg").stat().st_size < 2_000_000
