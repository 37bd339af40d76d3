"""What travels through the steps: a passage, or one fact of it, on its way to a question with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Route = Literal["search", "generation"]


@dataclass(frozen=True, slots=True)
class EntityImage:
    """An image that stands for the entity of a question.

    Attributes:
        image: Image id.
        route: Whether the image was searched for or generated.
        origin: Where the image is from: an address, a style, or the model and seed that generated it.
        score: Picture-text score; None if no picture scorer saw it.
    """

    image: str
    route: Route
    origin: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage and what was made of it. Each step fills the columns that it declares; empty means not yet filled.

    Attributes:
        id: Id of the passage.
        text: The passage.
        title: Name of what the passage is about, if known.
        aliases: Further names.
        kind: What the entity is, as a word: "plant", "bridge"; empty if not known.
        entity_group: Identity of the entity; splits go by it.
        section: Section of the subject's description that the passage is, if the corpus has sections.
        facts: What the passage states, field -> value, if known; of a draft the one fact that is asked about.
        fact_ids: Field -> id of the fact, where the corpus gives its facts ids.
        fact: The fact that a draft asks about; empty where the writer chooses.
        wording: Which of several questions about the fact this is, from 0.
        picture: Image id of the picture beside the passage.
        portraits: Style -> image id of pictures that the corpus itself declares to show the entity.
        portrait_caption: What the portraits show, in words, where that is more than the name.
        page: Image id of the page that shows the passage.
        licence: SPDX expression.
        source: Where the passage is from.
        marks: What cleaning and captions noticed and let pass, e.g. ``personal:e-mail``.
        domain: One of the 15 classes.
        question: The question, which names its subject.
        answer: The answer, in words of the passage.
        entity: What the question is about.
        fused: The question with the name replaced by a reference to a picture.
        caption: What a generated picture of the entity is to show.
        entity_images: Images that stand for the entity in queries.
    """

    id: str
    text: str
    title: str = ""
    aliases: tuple[str, ...] = ()
    kind: str = ""
    entity_group: str = ""
    section: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    fact_ids: Mapping[str, str] = field(default_factory=dict)
    fact: str = ""
    wording: int = 0
    picture: str = ""
    portraits: Mapping[str, str] = field(default_factory=dict)
    portrait_caption: str = ""
    page: str = ""
    licence: str = ""
    source: str = ""
    marks: tuple[str, ...] = ()
    domain: str = ""
    question: str = ""
    answer: str = ""
    entity: str = ""
    fused: str = ""
    caption: str = ""
    entity_images: tuple[EntityImage, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """These are all known names of the entity, the longest first."""
        names = {self.title, self.entity, *self.aliases} - {""}
        # Longest first, so that "North Korea" is replaced before "Korea"; the name breaks ties of a set's order.
        return tuple(sorted(names, key=lambda name: (-len(name), name)))

    @property
    def subject(self) -> str:
        """This names the candidate in rejects and seeds: fact and wording, or the passage where the writer chooses."""
        return f"{self.fact}/{self.wording}" if self.fact else self.id

    @property
    def hints(self) -> dict[str, Any]:
        """These facts besides the text are what a rule-based writer needs."""
        fields = {name: getattr(self, name) for name in ("title", "kind", "domain", "fact", "wording")}
        return {**fields, "aliases": list(self.aliases), "facts": dict(self.facts)}
