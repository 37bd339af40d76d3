"""A chain is a value: it refuses what could not run, and order, gates and uses follow from its steps."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest

from flows.chain import Chain, plan, run_alone, run_in_order
from flows.chains import pipeline_chain, study_chain
from flows.config import PipelineConfig, load_pipeline, parse_pipeline
from gme_data.errors import FoundryError
from gme_data.examples import read_examples
from gme_data.images import ImageStore
from gme_data.settings import Frozen, read_raw
from gme_data.steps import Counts, Step, StepContext
from gme_data.tasks import list_tasks, load_card, load_task

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


def joined(tmp_path: Path, **changes: object) -> PipelineConfig:
    raw, _ = read_raw(OWN)
    (tmp_path / "pairs.jsonl").write_text("".join(f'{{"anchor": "q{n}", "positive": "p{n}"}}\n' for n in range(40)))
    files = {"share": 1, "corpus": {**raw.pop("corpus"), "passages": str(OWN.parent / "passages.jsonl")}}
    files["corpus"] |= {"pictures": str(OWN.parent / "pictures")}
    pairs = {"share": 2, "corpus": {"kind": "pairs", "pairs": str(tmp_path / "pairs.jsonl"), "source": "clicks"}}
    corpora = {"flags": {**files, "synthesis": raw.pop("synthesis")}, "clicks": pairs}
    return parse_pipeline({**raw, "corpora": corpora, **changes}, where="x.yaml")


def test_several_corpora_are_made_one_in_their_shares(tmp_path: Path) -> None:
    chain = pipeline_chain(joined(tmp_path))
    assert chain.names[:5] == ["flags.corpus", "flags.synthesize", "flags.validate", "clicks.corpus", "corpus"]
    assert dict(chain["corpus"].inputs) == {"flags": "flags.synthesize", "clicks": "clicks.corpus"}
    assert chain["corpus"].after == ("flags.validate",)
    assert chain["train-1"].inputs == {"corpus": "corpus", "synthetic": "corpus"}
    assert {step.output.split("/")[1] for step in chain} == {"pipelines"}
    variant = study_chain(chain.config, "runs/studies/x").names
    assert variant == ["flags.corpus", "flags.synthesize", "clicks.corpus", "corpus", "train-1", "evaluate"]
    made = run_in_order(Chain(chain.config, chain.steps[:5]), tmp_path)["corpus"]
    examples = read_examples(made.folder / "train")
    counts = Counter(example.source.partition("/")[0] for example in examples)
    assert counts["clicks"] == made.manifest.counts["examples of clicks"] > 20
    assert abs(counts["clicks"] - 2 * counts["flags"]) <= 1
    assert {example.entity_group.partition(":")[0] for example in examples} == {"flags", "clicks"}
    tasks = [load_task(path) for path in list_tasks(made.folder / "tasks" / "test")]
    assert {task.card.name for task in tasks} >= {"clicks-clicks-t2t", "flags-question-t2t"}
    store = ImageStore([made.folder / "images"])
    shown = [example.positive.image for example in examples if example.positive.image]
    assert shown
    assert all(image in store for image in shown)
    assert plan(Chain(chain.config, chain.steps[:5]), tmp_path)[-1].state == "done"


def with_atlas(tmp_path: Path) -> Chain:
    """A small Atlas beside pairs, with the limits of its size."""
    raw = joined(tmp_path).model_dump(mode="json", exclude={"join"})
    small = {"kind": "atlas", "places": 30, "families": 60, "imagined": 1, "queries": 40}
    limits = {"min_places": 10, "min_pictographs": 20, "min_examples": 50, "min_queries": 1, "min_pool": 2}
    synthesis = {"picture_filter": {"model": ""}}
    atlas = {"share": 3, "corpus": small, "synthesis": synthesis, "validation": {**limits, "max_reject_share": 0.9}}
    corpora = {"atlas": atlas, "clicks": raw.pop("corpora")["clicks"]}
    return pipeline_chain(parse_pipeline({**raw, "corpora": corpora}, where="x.yaml"))


def test_atlas_is_one_corpus_among_several(tmp_path: Path) -> None:
    chain = with_atlas(tmp_path)
    assert chain.names[:5] == ["atlas.corpus", "atlas.synthesize", "atlas.validate", "clicks.corpus", "corpus"]
    examples = {"atlas": "atlas.synthesize", "clicks": "clicks.corpus"}
    assert chain["corpus"].inputs == {**examples, "atlas.tasks": "atlas.corpus"}
    assert [state.state for state in plan(chain, tmp_path)[:2]] == ["run", "run"]


@pytest.mark.slow  # both validations run over a hundred suites
def test_atlas_is_trained_on_and_judged_among_several(tmp_path: Path) -> None:
    chain = with_atlas(tmp_path)
    data = Chain(chain.config, tuple(step for step in chain if step.name in (*chain.names[:5], "validate")))
    made = run_in_order(data, tmp_path)["corpus"]
    examples = read_examples(made.folder / "train")
    assert {example.source for example in examples} >= {"atlas/place-question", "atlas/pictograph", "clicks/clicks"}
    tasks = {load_card(path).name for path in list_tasks(made.folder / "tasks" / "test")}
    assert tasks >= {"atlas-flag-i2i", "atlas-flag-map-seen-it2i", "clicks-clicks-t2t"}
    store = ImageStore([made.folder / "images"])
    items = [item for one in examples for item in (one.query, one.positive, *one.negatives)]
    assert all(item.image in store for item in items if item.image)


def test_folders_of_suites_start_at_the_pipeline_file() -> None:
    suites = "evaluation.suites=[held-out, {tasks: labelled}, {suite: umrb, data: fetched}, mmeb]"
    config = load_pipeline(OWN, [suites])
    expected = [(None, None), (OWN.parent / "labelled", None), (None, OWN.parent / "fetched"), (None, None)]
    assert [(suite.tasks, suite.data) for suite in config.evaluation.suites] == expected
    assert config.baselines.suites == config.evaluation.suites


def test_what_one_corpus_holds_out_no_other_trains_on(tmp_path: Path) -> None:
    for name in ("first", "second"):
        rows = "".join(f'{{"anchor": "which letter comes after {n}", "positive": "{name} {n}"}}\n' for n in range(30))
        (tmp_path / f"{name}.jsonl").write_text(rows)
    corpora = {
        name: {"corpus": {"kind": "pairs", "pairs": str(tmp_path / f"{name}.jsonl"), "source": name, "seed": seed}}
        for seed, name in enumerate(("first", "second"))
    }
    raw = {key: value for key, value in read_raw(OWN)[0].items() if key not in ("corpus", "synthesis")}
    chain = pipeline_chain(parse_pipeline({**raw, "corpora": corpora}, where="x.yaml"))
    made = run_in_order(Chain(chain.config, chain.steps[:3]), tmp_path)["corpus"]
    tasks = [load_task(path.parent) for path in (made.folder / "tasks").rglob("task.yaml")]
    held_out = {query.item.text for task in tasks for query in task.queries}
    assert held_out
    assert made.manifest.counts["rejects"] > 0
    assert held_out.isdisjoint(example.query.text for example in read_examples(made.folder / "train"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"join": {"shares": {"flags": 1}}}, "shares stand with the corpora"),
        ({"corpora": {"only": {"corpus": {"kind": "files"}}}}, "at least 2"),
        ({"corpora": {"a": {"corpus": {"kind": "pairs"}, "synthesis": {}}, "b": {"corpus": {"kind": "files"}}}},
         "a corpus of the kind pairs has examples"),
        ({"corpora": {"a": {"corpus": {"kind": "flies"}}, "b": {"corpus": {"kind": "files"}}}},
         "corpora.a: expected corpus.kind to be atlas, files, pairs or public"),
        ({"corpora": {"a": {"corpus": {"kind": "atlas", "place": 9}}, "b": {"corpus": {"kind": "files"}}}},
         "corpora.a.atlas.corpus.place: unknown field"),
        ({"corpora": {"a.b": {"corpus": {"kind": "files"}}, "b": {"corpus": {"kind": "flies"}}}}, "corpora.a.b"),
    ],
)  # fmt: skip
def test_several_corpora_that_make_no_sense(tmp_path: Path, changes: dict[str, object], message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        joined(tmp_path, **changes)


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


@pytest.mark.parametrize(
    ("synthesis", "message"),
    [
        ({"shard_facts": 64}, "synthesis.shard_facts: this field is called shard (of passages, not of facts) now"),
        ({"min_picture_std": 4}, "synthesis.min_picture_std: this field is called picture_filter.min_std now"),
        ({"judged_per_fact": 2}, "synthesis.judged_per_fact: this field is called encoded_per_fact now"),
        ({"picture_filter": "none"}, "picture_filter is now a section; in it, model is 'champion', or '' for nobody"),
        ({"writer": {"kind": "local"}}, "wordings_per_fact needs writer.kind 'rules'"),
    ],
)
def test_fields_of_earlier_files_are_refused_by_where_they_are_now(synthesis: dict[str, object], message: str) -> None:
    raw = {"name": "x", "synthesis": synthesis, "stage_1": {"phases": [{"name": "m", "steps": 1, "mixture": []}]}}
    with pytest.raises(FoundryError) as refused:
        parse_pipeline(raw, where="x.yaml")
    assert message in str(refused.value)
