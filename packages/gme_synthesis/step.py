"""The step `synthesize`: corpus -> the whole training set, with rejects and a funnel.

Main path, top to bottom: read the train part, write and filter questions shard by shard (each journaled), assemble,
merge what the corpus brings along, deduplicate, decontaminate, balance, write.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from operator import attrgetter
from pathlib import Path

from gme_data.events import append_event
from gme_data.examples import Example, read_examples, write_examples
from gme_data.images import ImageStore
from gme_data.journal import Journal
from gme_data.progress import Progress
from gme_data.steps import Counts, StepContext
from gme_embedder.frozen import MiniLM
from gme_embedder.store import EmbeddingStore
from gme_synthesis.assembly import NAMED_RECIPES, PICTURED_RECIPES, assemble
from gme_synthesis.card import write_card
from gme_synthesis.config import SynthesisConfig
from gme_synthesis.consistency import ConsistencyFilter
from gme_synthesis.decontamination import Said, benchmark_queries, decontaminate
from gme_synthesis.flag_score import FlagScore
from gme_synthesis.funnel import merge_tallies, write_funnel, write_rejects
from gme_synthesis.funnel_plot import plot_funnel
from gme_synthesis.pictures import PictureAttacher, PictureFilter
from gme_synthesis.pipeline import ShardResult, check_columns, run_stage, seconds_by_step, tally
from gme_synthesis.records import Draft, Fact, Reject, Stage, Tally
from gme_synthesis.rewrite import EntityRewriter
from gme_synthesis.selection import balance, deduplicate, require_all_task_types
from gme_synthesis.steps.picture_score import load_scorer
from gme_synthesis.world import World, read_world
from gme_synthesis.writer import QuestionWriter, TemplateWriter, write_questions

_WRITTEN = ("fact_id", "wording", "question")


def synthesize(config: SynthesisConfig, inputs: Mapping[str, Path], context: StepContext) -> Counts:
    """Write ``train/``, ``rejects/``, a funnel and a card from the input ``corpus``; a model ``judge`` scores pictures.

    Seconds by step go to the log: they are no part of the output, which is the same at every run.

    Raises:
        FoundryError: The corpus is incomplete, or a task type ends up without examples.
    """
    corpus = inputs["corpus"]
    world = read_world(corpus)
    writer = TemplateWriter(world.templates, config.wordings_per_fact, config.seed)
    judge = inputs.get("judge")
    store = ImageStore([corpus / "images"])
    stages = build_stages(config, world, store, context.staging, judge)
    shards = run_shards(config, world, writer, stages, Journal(context.staging, "shards"))
    native = read_examples(corpus / "examples" / "train")
    benchmark = benchmark_queries(corpus / "tasks")
    examples, rejects, tallies = collect(config, world, shards, native, benchmark)
    require_all_task_types(examples)
    write_examples(context.staging / "train", examples)
    write_rejects(context.staging / "rejects", sorted(rejects, key=attrgetter("step", "reason", "subject", "text")))
    facts = write_funnel(context.staging / "funnel.json", tallies, examples, skipped(config, judge))
    plot_funnel(context.staging / "funnel.svg", tallies)
    write_card(context.staging, config, examples, store, facts)
    append_event(context.log_dir / "events.jsonl", "steps", key=context.key, seconds=seconds_by_step(shards))
    return {"examples": len(examples), "rejects": len(rejects), "facts": len(world.facts), "native": len(native)}


def build_stages(
    config: SynthesisConfig, world: World, store: ImageStore, scratch: Path, judge: Path | None = None
) -> tuple[Stage[Draft], ...]:
    """The stages between question and example, in the paper's order. Encodes the passages (kept in `scratch`).

    Args:
        config: How strict they are.
        world: What they know.
        store: Pictures.
        scratch: Keeps vectors of passages.
        judge: Folder of the model that scores pictures; None leaves that stage out.
    """
    encoder = MiniLM()
    passages = [world.passages[id_] for id_ in sorted(world.passages)]
    texts = [passage.text for passage in passages]
    vectors = EmbeddingStore(scratch / ".embeddings").encode(
        "minilm", texts, lambda rows: encoder.encode([texts[r] for r in rows])
    )
    consistency = ConsistencyFilter(
        passages,
        vectors,
        world.facts,
        encoder.encode,
        top_k=config.consistency_top_k,
        judged_per_fact=config.judged_per_fact,
    )
    rewriter = EntityRewriter(world.places, world.facts, config.references, config.seed)
    attacher = PictureAttacher(world, config.seed)
    picture_filter = PictureFilter(store, world.places.values(), config)
    pictures = ("flag", "other_flag", "illustration")
    stages = (
        Stage("consistency", _WRITTEN, (), consistency.run),
        Stage("entity", _WRITTEN, ("fused",), rewriter.run),
        Stage("picture", ("fact_id", "wording"), pictures, attacher.run),
        Stage("picture-filter", ("fused", *pictures), (), picture_filter.run),
        *_scores(config, world, store, judge),
    )
    check_columns(stages, _WRITTEN)
    return stages


def _scores(config: SynthesisConfig, world: World, store: ImageStore, judge: Path | None) -> list[Stage[Draft]]:
    """The picture-text score, if there is a model to score by."""
    if judge is None:
        return []
    scorer = load_scorer(judge)
    score = FlagScore(world, store, scorer, config.min_picture_score)
    return [Stage("picture-score", ("fact_id", "flag", "other_flag"), (), score.run)]


def run_shards(
    config: SynthesisConfig, world: World, writer: QuestionWriter, stages: Sequence[Stage[Draft]], journal: Journal
) -> list[ShardResult]:
    """All shards of facts in order; those in the journal are not done again."""
    facts = [world.facts[id_] for id_ in sorted(world.facts)]
    shards = [facts[i : i + config.shard_facts] for i in range(0, len(facts), config.shard_facts)]
    results = []
    with Progress("write and filter questions", len(shards), "shards") as progress:
        for number, shard in enumerate(shards):
            work = partial(run_shard, shard, world, writer, stages)
            results.append(journal.get_or_run(f"{number:05d}", work, ShardResult))
            progress.advance()
    return results


def run_shard(
    facts: Sequence[Fact], world: World, writer: QuestionWriter, stages: Sequence[Stage[Draft]]
) -> ShardResult:
    """One shard through the writer and all stages. What passes the first stage can already be asked by name."""
    written = list(write_questions(facts, world.passages, world.places, writer))
    drafts = [one for one in written if isinstance(one, Draft)]
    rejects = [one for one in written if isinstance(one, Reject)]
    tallies = [tally("write", len(facts), len(drafts), rejects)]
    named: list[Draft] = []
    seconds: dict[str, float] = {}
    for number, stage in enumerate(stages):
        started = time.monotonic()
        drafts, refused, counted = run_stage(stage, drafts)
        rejects += refused
        tallies.append(counted)
        seconds[stage.name] = round(time.monotonic() - started, 4)
        if number == 0:
            named = drafts
    return ShardResult(named, drafts, rejects, tallies, seconds)


def collect(
    config: SynthesisConfig,
    world: World,
    shards: Sequence[ShardResult],
    native: Sequence[Example],
    benchmark: frozenset[Said],
) -> tuple[list[Example], list[Reject], list[Tally]]:
    """Examples of all shards and those that the corpus brings along, each once, capped by source."""
    named = [draft for shard in shards for draft in shard.named]
    pictured = [draft for shard in shards for draft in shard.pictured]
    made = [*assemble(named, NAMED_RECIPES, world), *assemble(pictured, PICTURED_RECIPES, world)]
    merged = [*made, *(example for example in native if example.split == "train")]
    unique, doubles = deduplicate(merged)
    clean, spoilt = decontaminate(unique, benchmark)
    kept, surplus = balance(clean, config.caps, config.seed)
    tallies = merge_tallies(one for shard in shards for one in shard.tallies)
    tallies += [
        Tally("assemble", len(named), len(made)),
        Tally("merge", len(made) + len(native), len(merged)),
        tally("deduplicate", len(merged), len(unique), doubles),
        tally("decontaminate", len(unique), len(clean), spoilt),
        tally("balance", len(clean), len(kept), surplus),
    ]
    return kept, [*(one for shard in shards for one in shard.rejects), *doubles, *spoilt, *surplus], tallies


def skipped(config: SynthesisConfig, judge: Path | None) -> dict[str, str]:
    """Steps of the paper that this run left out, and why."""
    if judge is not None:
        return {}
    none = config.picture_filter == "none"
    return {"picture-score": "picture_filter is none" if none else "no champion is registered yet to judge by"}
