"""What travels through the steps: a passage, or one fact of it, on its way to a question with pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Route = Literal["search", "generation"]


@dataclass(frozen=True, slots=True)
class Sight:
    """A picture that stands for the entity.

    Attributes:
        image: Image id.
        route: How it was found.
        origin: Where it is from: an address, or the model and seed that drew it.
        score: Picture-text score; None if nobody judged it.
    """

    image: str
    route: Route
    origin: str = ""
    score: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A passage and what was made of it; each step fills the columns it declares, empty means not yet.

    Attributes:
        id: Of the passage.
        text: The passage.
        title: Name of what it is about, if known.
        aliases: Further names.
        kind: What it is, as a word: "plant", "bridge"; empty if not known.
        entity_group: What the passage is about, for splits.
        section: Which part of what is known of its subject the passage is, if the corpus has such parts.
        facts: What the passage states, field -> value, if known; of a draft the one that is asked about.
        fact_ids: Field -> what the corpus calls the fact, where it gives them names.
        fact: The fact that a draft asks about; empty where the writer chooses.
        wording: Which of several questions about the fact this is, from 0.
        picture: Image id of the picture beside the passage.
        portraits: Style -> image id of pictures that the corpus itself says show the entity.
        portrait_caption: What they show, in words, where that is more than the name.
        page: Image id of the page that shows the passage.
        licence: SPDX expression.
        source: Where the passage is from.
        marks: What was noticed and let pass, e.g. ``personal:e-mail``.
        domain: One of the 15 classes.
        question: Names its subject.
        answer: In words of the passage.
        entity: What the question is about.
        fused: The question with the name replaced by a reference to a picture.
        caption: What a picture of the entity is to show, for one that draws it.
        sights: Pictures that stand for the entity in queries.
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
    sights: tuple[Sight, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Every known name of the entity, longest first."""
        names = {self.title, self.entity, *self.aliases} - {""}
        return tuple(sorted(names, key=lambda name: (-len(name), name)))

    @property
    def subject(self) -> str:
        """What a reject names and a drawing is seeded by: fact and wording, or the passage where the writer chooses."""
        return f"{self.fact}/{self.wording}" if self.fact else self.id

    @property
    def hints(self) -> dict[str, Any]:
        """What is known besides the text, for a writer by rules."""
        known = {name: getattr(self, name) for name in ("title", "kind", "domain", "fact", "wording")}
        return {**known, "aliases": list(self.aliases), "facts": dict(self.facts)}
