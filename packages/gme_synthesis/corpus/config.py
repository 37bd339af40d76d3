"""The configuration of synthesis: one section per step. Over Atlas the fields are the same, with other defaults."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gme_data.settings import Frozen
from gme_synthesis.candidates import Route
from gme_synthesis.encoders import MINILM
from gme_synthesis.llm.endpoint import EndpointConfig
from gme_synthesis.llm.local import LocalConfig
from gme_synthesis.steps.cleaning import CleaningConfig
from gme_synthesis.steps.generation import GenerationConfig
from gme_synthesis.steps.web_search import WebSearchConfig


class WriterConfig(Frozen):
    """The writer of questions, rewrites and captions."""

    kind: Literal["rules", "local", "endpoint"] = "rules"
    """``rules`` needs passages with facts and a title; ``local`` is a model in this process; ``endpoint`` is one behind
    an OpenAI-compatible address."""
    endpoint: EndpointConfig | None = None
    """The endpoint, for the kind ``endpoint``."""
    local: LocalConfig = LocalConfig()
    """The model, for the kind ``local``."""
    attempts: int = Field(default=2, ge=1)
    """How often a request is sent whose answers are of no use; a local model gets one attempt, since a second one would
    give the same answer."""

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.kind == "endpoint" and self.endpoint is None:
            raise ValueError("the writer 'endpoint' needs a section `endpoint` with its `url`")
        return self


class ClassifierConfig(Frozen):
    """Classes of passages, for even sampling."""

    by: Literal["none", "encoder", "writer"] = "none"
    """Who classifies; ``none`` keeps the classes of the corpus and samples without regard to them."""
    min_confidence: float = Field(default=0.5, ge=0, le=1)
    """Passages whose class has a lower confidence are refused."""
    sample: int | None = Field(default=None, ge=1)
    """Passages that questions are written about, with even shares of the classes; None takes all."""


class SearchConfig(Frozen):
    """How pictures of an entity are searched for: among those of the corpus or on the web."""

    by: Literal["none", "portraits", "bank", "web"] = "bank"
    """``bank`` searches the captions of the pictures of the corpus, ``web`` asks a search service; ``portraits`` are
    the pictures that Atlas itself declares to show the place."""
    count: int = Field(default=5, ge=1)
    """Pictures for each entity."""
    min_similarity: float = Field(default=0.9, ge=-1, le=1)
    """Cosine of entity and caption below which a picture of the bank is none of the entity's."""
    web: WebSearchConfig | None = None
    """The service, for ``web``."""

    @model_validator(mode="after")
    def _has_its_section(self) -> Self:
        if self.by == "web" and self.web is None:
            raise ValueError("the search 'web' needs a section `web` with its `url`")
        return self


CHAMPION = "champion"


class PictureFilterConfig(Frozen):
    """The picture filter."""

    model: str = ""
    """The picture scorer: the folder of a CLIP model or of an embedder, or ``champion``, the registered model of an
    earlier run; empty skips the score, and the funnel says so.

    The first run has no champion, and its funnel says so. A rerun keeps the scorer that its run began with, so it finds
    everything done; `gme pipeline --new-run`, another corpus or another config takes the present champion.
    """
    min_score: float = Field(default=0.2, ge=-1, le=1)
    """Cosine of picture and text below which a picture is refused; the paper's 0.2 is for CLIP ViT-L/14, and an
    embedder has another scale."""
    routes: tuple[Route, ...] = ("search",)
    """The routes whose pictures are scored; the paper does not score generated ones."""
    device: str = "cpu"
    """The device of the scorer, as torch names it."""
    min_side: int = Field(default=32, ge=1)
    """Pictures with a shorter side are refused, in pixels."""
    min_std: float = Field(default=4.0, ge=0)
    """Pictures whose grey values (0-255) have a smaller standard deviation are refused as blank."""
    look_alike_distance: float = Field(default=0.0, ge=0)
    """No picture stands for an entity of which a portrait is nearer than this to one of another entity (mean absolute
    difference of 24x24 RGB, 0-255); 0 compares none."""


class ExecutorConfig(Frozen):
    """Where shards are worked on."""

    kind: Literal["local", "ray"] = "local"
    """``local`` is this process; ``ray`` are actors of a Ray cluster, or of this machine if there is none."""
    workers: int = Field(default=2, ge=1)
    """Actors of each group of steps, under Ray."""
    gpu_workers: int = Field(default=1, ge=1)
    """Actors that generate and score pictures, under Ray."""
    gpus_per_worker: float = Field(default=0, ge=0)
    """GPUs that each of those holds."""


class SynthesisConfig(Frozen):
    """How passages and pictures become examples and tasks."""

    RENAMED: ClassVar[Mapping[str, str]] = {
        "shard_facts": "shard (of passages, not of facts)",
        "min_picture_side": "picture_filter.min_side",
        "min_picture_std": "picture_filter.min_std",
        "min_picture_score": "picture_filter.min_score",
        "look_alike_distance": "picture_filter.look_alike_distance",
        "judged_per_fact": "encoded_per_fact",
        "judged_after": "reject_rate_min_passages",
    }

    seed: int = 0
    """Seed of every random choice; each is a digest of the seed and its subject, so order and number of shards change
    nothing."""
    shard: int = Field(default=256, ge=1)
    """Passages in one shard of work; a killed run loses at most the shards in progress, and no answer."""
    executor: ExecutorConfig = Field(default=ExecutorConfig(), exclude=True)
    """Where the work is done; it changes no byte of the output, so it is no part of the step's key."""
    cleaning: CleaningConfig = CleaningConfig()
    """What passages must be like."""
    classifier: ClassifierConfig = ClassifierConfig()
    """Even sampling over classes."""
    near_duplicates: float = Field(default=0.8, gt=0, le=1)
    """Similarity (MinHash of five-word shingles) to an earlier passage from which a passage is refused, before any
    request is sent."""
    writer: WriterConfig = WriterConfig()
    """The language model, or rules."""
    encoder: str = MINILM
    """Text encoder of the filters: ``minilm``, or the folder of a model."""
    encoder_device: str = "cpu"
    """The device of the encoder, as torch names it."""
    wordings_per_fact: int = Field(default=0, ge=0)
    """Questions about each fact of a passage, each in another wording; needs the writer ``rules``. 0 asks one question
    about each passage, about what the writer chooses."""
    encoded_per_fact: int = Field(default=1, ge=1)
    """Questions about each fact that the consistency filter encodes; the others take the verdict of the first.

    Wordings of one fact differ by template only, and encoding is most of the step's time on a CPU.
    """
    references: tuple[str, ...] = ()
    """References that rules put in place of a name; the first must read well before "'s". Empty is "this" and the
    kind."""
    consistency_top_k: int = Field(default=20, ge=1)
    """A question is kept if its passage is among so many nearest (the paper's 20)."""
    search: SearchConfig = SearchConfig()
    """Pictures by search."""
    generation: GenerationConfig | None = None
    """Pictures by generation; None generates none."""
    picture_filter: PictureFilterConfig = PictureFilterConfig()
    """Which pictures are kept."""
    pictures_per_question: int = Field(default=5, ge=1)
    """Examples with different pictures made of one question, at most."""
    render_pages: bool = True
    """Render a page for T->VD where the corpus has none and the passage is in Latin script."""
    caps: dict[str, int] = Field(default={})
    """Most examples of a source for each of its task types; sources that are not named have no cap."""
    benchmarks: tuple[Path, ...] = ()
    """Folders of evaluation tasks that no example may share words or pictures with."""
    ngram: int = Field(default=13, ge=4)
    """Words in a row that count as shared."""
    picture_distance: int = Field(default=4, ge=0, le=7)
    """Bits of 64 in which the difference hashes of two pictures differ at most to count as the same picture."""
    dev: float = Field(default=0.05, ge=0, lt=0.5)
    """Share of entity groups held out for choices."""
    test: float = Field(default=0.1, ge=0, lt=0.5)
    """Share of entity groups held out for the report."""
    max_reject_rate: float = Field(default=0.9, gt=0, le=1)
    """The run fails if cleaning, writer or filters refuse a larger share of the passages."""
    reject_rate_min_passages: int = Field(default=200, ge=1)
    """Passages after which the reject rate is checked; before, it is checked at the end of a pass only."""

    @model_validator(mode="before")
    @classmethod
    def _picture_filter_is_a_section(cls, raw: Any) -> Any:  # noqa: ANN401 - what a file says, before it is read
        if isinstance(raw, dict) and isinstance(raw.get("picture_filter"), str):
            raise ValueError("picture_filter is now a section; in it, model is 'champion', or '' for nobody")
        return raw

    @model_validator(mode="after")
    def _facts_are_asked_by_rules(self) -> Self:
        if self.wordings_per_fact and self.writer.kind != "rules":
            raise ValueError(
                f"wordings_per_fact needs writer.kind 'rules': a model ({self.writer.kind}) chooses what it asks"
            )
        return self
