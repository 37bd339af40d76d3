"""A chain is a value: it refuses what could not run, and order, gates and uses follow from its steps."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.chain import Chain, plan, run_alone, run_in_order
from flows.chains import pipeline_chain, study_chain
from flows.config import load_pipeline, parse_pipeline
from gme_data.errors import FoundryError
from gme_data.settings import Frozen
from gme_data.steps import Counts, Step, StepContext

ROOT = Path(__file__).resolve().parents[2]
OWN = ROOT / "examples" / "own-corpus" / "own.yaml"


class Letters(Frozen):
    """The sections of a chain that joins letters."""

    first: Frozen = Frozen()
    """The first letter."""
    second: Frozen = Frozen()
    """The second."""


def join(_: Frozen, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    letters = sorted((folder / "letters").read_text() for folder in inputs.values())
    (context.staging / "letters").write_text("".join(letters) + "x")
    return {"letters": len(letters) + 1}


FIRST = Step("first", join, "out/first", section="first", role="dataset")
SECOND = Step("second", join, "out/second", section="second", inputs={"before": "first"}, role="model")


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ((SECOND, FIRST), "second needs first, which no earlier step makes"),
        ((FIRST, FIRST), "one name or one output"),
        ((FIRST, Step("third", join, "out/third", section="thrid")), "no section 'thrid'"),
        ((FIRST, Step("third", join, "out/third", section="first", after=("fourth",))), "third needs fourth"),
    ],
)
def test_what_could_not_run_is_refused(steps: tuple[Step, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Chain(Letters(), steps)


def test_the_steps_run_in_order_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    chain = Chain(Letters(), (FIRST, SECOND))
    assert [state.reason for state in plan(chain, tmp_path)] == ["never made", "after first"]
    made = run_in_order(chain, tmp_path)
    assert (made["second"].folder / "letters").read_text() == "xx"
    assert [state.state for state in plan(chain, tmp_path)] == ["done", "done"]
    assert all(outcome.reused for outcome in run_in_order(chain, tmp_path).values())
    (tmp_path / "out/first/letters").write_text("y")
    assert [state.reason for state in plan(chain, tmp_path)] == ["config, input or code changed", "after first"]


def test_a_step_alone_names_what_is_missing_and_a_near_name(tmp_path: Path) -> None:
    chain = Chain(Letters(), (FIRST, SECOND))
    with pytest.raises(FoundryError, match="has not been made"):
        run_alone(chain, "second", tmp_path)
    with pytest.raises(FoundryError, match="Did you mean 'second'"):
        run_alone(chain, "secnod", tmp_path)


def test_what_is_released_and_what_data_are_used_for_follow_from_the_steps() -> None:
    tiny = pipeline_chain(load_pipeline(ROOT / "configs" / "tiny.yaml"))
    assert (tiny.last("model").name, tiny.last("evaluation").name) == ("train-2", "evaluate")
    uses = {step.name: tiny.uses(step.name) for step in tiny if step.role == "dataset"}
    assert uses == {"corpus": "training, evaluation", "synthesize": "training", "mine": "training"}
    own = pipeline_chain(load_pipeline(OWN))
    assert own.uses("synthesize") == "training, evaluation"
    assert {step.output.split("/")[2] for step in own} == {"signal-flags"}, "it may share a workspace with others"


def test_without_a_second_stage_nothing_is_mined() -> None:
    chain = pipeline_chain(load_pipeline(ROOT / "configs" / "tiny.yaml", ["stage_2=null"]))
    assert "mine" not in chain.names
    assert chain.last("model").name == "train-1"
    assert chain["evaluate"].inputs["model"] == "train-1"


def test_a_variant_of_a_study_shares_data_and_nothing_else() -> None:
    config = load_pipeline(ROOT / "configs" / "tiny.yaml")
    outputs = {step.name: step.output for step in study_chain(config, "runs/studies/s/v-1")}
    assert outputs.pop("corpus") == "data/atlas"
    assert outputs.pop("synthesize") == "data/synthetic"
    assert set(outputs) == {"train-1", "mine", "train-2", "evaluate"}
    assert all(output.startswith("runs/studies/s/v-1/") for output in outputs.values())


def test_a_plan_of_any_pipeline_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flows.chain import plan; from flows.chains import pipeline_chain\n"
        "from flows.config import load_pipeline\n"
        f"for path in sys.argv[1:]: plan(pipeline_chain(load_pipeline(Path(path))), Path({str(tmp_path)!r}))\n"
        "print(sorted({'torch', 'pandas', 'matplotlib', 'transformers', 'prefect', 'mlflow'} & set(sys.modules)))"
    )
    files = [str(ROOT / "configs" / "tiny.yaml"), str(ROOT / "configs" / "gme-2b.yaml"), str(OWN)]
    done = subprocess.run([sys.executable, "-c", code, *files], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({"kind": "fliles"}, "no kind 'fliles'. Did you mean 'files'"),
        ({"passages": "p.jsonl"}, "need `kind: files` (passages) or `kind: pairs`"),
        ({"kind": "files", "passages": "p.jsonl", "places": 3}, "corpus.places: unknown field"),
        ({"kind": 3}, "no kind '3'"),
    ],
)
def test_a_corpus_of_no_kind_is_refused_by_field(corpus: dict[str, object], message: str) -> None:
    raw = {"name": "x", "corpus": corpus, "stage_1": {"phases": [{"name": "m", "steps": 1, "mixture": []}]}}
    with pytest.raises(FoundryError) as refused:
        parse_pipeline(raw, where="x.yaml")
    assert message in str(refused.value)
