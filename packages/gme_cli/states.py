"""A chain in the terminal: a line for each step, with its inputs, whether it is done, and if not, why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from gme_cli.options import print_json, say
from gme_data.errors import FoundryError

if TYPE_CHECKING:
    from flows.chain import StepState


def show_states(states: Sequence[StepState], *, json: bool) -> None:
    """Prints what a run would do, as a table of the steps or as JSON.

    Raises:
        FoundryError: A step is blocked; the whole table was printed before.
    """
    _print_states(states, json=json)
    # Raised after printing, so that the reader sees all steps, and a script gets the exit code.
    if blocked := [f"{state.name}: {state.reason}" for state in states if state.state == "blocked"]:
        raise FoundryError("\n".join(blocked))


def _print_states(states: Sequence[StepState], *, json: bool) -> None:
    if json:
        print_json([asdict(state) for state in states])
        return
    name_width = max(len(state.name) for state in states)
    arrows = [f"← {', '.join(state.inputs)}" if state.inputs else "" for state in states]
    arrow_width = max(map(len, arrows))
    for state, arrow in zip(states, arrows, strict=True):
        mark = {"done": "=", "run": "▸", "blocked": "✗"}[state.state]
        last = f"  (took {state.seconds_last_time:.0f} s last time)" if state.seconds_last_time is not None else ""
        # The reason "after ..." names the same steps as the arrow.
        reason = "" if state.reason.startswith("after ") else state.reason
        say(f"{mark} {state.name:<{name_width}} {arrow:<{arrow_width}}  {state.state:<7}  {reason}{last}".rstrip())
