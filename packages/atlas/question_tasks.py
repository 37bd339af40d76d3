"""Retrieval tasks that ask for facts about places: T->T, T->VD, T->IT, IT->T and IT->IT.

Named questions have one place to be about; a question with a flag has all places that fly it. Pools hold the places of
every split, trained ones as distractors; a dev pool leaves the test places out.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from atlas.benchmark import Asked, TaskPlan, make_task
from atlas.choice import pick
from atlas.config import AtlasConfig
from atlas.licences import combine
from atlas.wordings import REFERENCES, Kind
from atlas.world import FactRow, PassageRow, World
from gme_data.items import Item
from gme_data.tasks import Document, RetrievalTask

_FLAG_SECTION = "Government"  # its passages describe the flag


def question_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """The question tasks of ``dev`` or ``test``."""
    book = _Book(world, config, split)
    yield book.task(
        TaskPlan(
            "place-question-t2t", "T->T", "ndcg_at_10", "place-question", "unseen",
            "A question that names a place; the passage of the place's section that holds the answer.",
            "The passage was made from the very field that is asked for.",
        ),
        book.passages(lambda _: True, book.as_text), book.named(book.own_facts()),
    )  # fmt: skip
    for subset, facts in (("seen", book.trained_facts()), ("unseen", book.own_facts())):
        yield book.task(
            TaskPlan(
                f"page-question-{subset}-t2vd", "T->VD", "ndcg_at_5", "page-question", subset,
                "A question that names a place; the rendered page that shows the section with the answer.",
                "The page was rendered from the section of the field that is asked for.",
            ),
            book.pages(), book.named_pages(facts),
        )  # fmt: skip
    yield book.task(
        TaskPlan(
            "illustrated-question-t2it", "T->IT", "hit_rate_at_5", "illustrated-question", "unseen",
            "A question that names a place; a passage with its illustration, a map or the flag.",
            "The passage was made from the very field that is asked for.",
        ),
        book.passages(lambda p: p.section in config.illustrated_sections, book.as_illustrated),
        book.named(book.own_facts()),
    )  # fmt: skip
    for subset, facts in (("seen", book.trained_facts()), ("unseen", book.flag_facts())):
        yield book.task(
            TaskPlan(
                f"flag-question-{subset}-it2t", "IT->T", "hit_rate_at_5", "flag-question", subset,
                "An outlined flag and a question that does not name the place; the passage with the answer.",
                "Passages made from the field that is asked for, of every place that flies this flag.",
            ),
            book.passages(lambda _: True, book.as_text), book.deictic(facts),
        )  # fmt: skip
    for subset, facts in (("seen", book.trained_facts()), ("unseen", book.own_facts())):
        yield book.task(
            TaskPlan(
                f"flag-question-{subset}-it2it", "IT->IT", "hit_rate_at_5", "flag-question-illustrated", subset,
                "An outlined flag and a question that does not name the place; a flat flag with the passage.",
                "Passages made from the field that is asked for, of every place that flies this flag.",
            ),
            book.passages(lambda p: p.section in config.flag_sections, book.as_flagged), book.deictic(facts),
        )  # fmt: skip


class _Book:
    """The places of one benchmark split as documents and as things to ask for."""

    def __init__(self, world: World, config: AtlasConfig, split: str) -> None:
        self._world, self._config, self._split = world, config, split
        self._places = {place.place_id: place for place in world.places}
        self._visible = [p for p in world.passages if split == "test" or p.split != "test"]
        self._passage = {p.id: p for p in self._visible}
        self._templates: dict[tuple[str, Kind], list[str]] = defaultdict(list)
        for wording in world.wordings:
            if wording.split == split:
                self._templates[wording.field, wording.kind].append(wording.template)
        self._siblings: dict[tuple[str, str], list[str]] = defaultdict(list)
        for fact in world.facts:
            self._siblings[fact.entity_group, fact.field].append(fact.passage_id)

    def task(self, plan: TaskPlan, corpus: list[Document], asked: list[Asked]) -> RetrievalTask:
        return make_task(plan, corpus, asked, self._config, self._split)

    def own_facts(self) -> list[FactRow]:
        """Facts of places of this split."""
        return [f for f in self._world.facts if f.split == self._split]

    def flag_facts(self) -> list[FactRow]:
        """Of those, the ones whose passage describes the flag: an unknown flag can lead there, and nowhere else."""
        described = {place.place_id for place in self._world.places if place.flag_description}
        return [f for f in self.own_facts() if f.section == _FLAG_SECTION and f.place_id in described]

    def trained_facts(self) -> list[FactRow]:
        return [f for f in self._world.facts if f.split == "train"]

    def passages(self, chosen: Callable[[PassageRow], bool], as_item: Callable[[PassageRow], Item]) -> list[Document]:
        return [
            Document(p.id, item, p.entity_group, self._licence(p.licence, item))
            for p in self._visible
            if chosen(p)
            for item in (as_item(p),)
        ]

    def as_text(self, passage: PassageRow) -> Item:
        return Item(text=passage.text)

    def as_illustrated(self, passage: PassageRow) -> Item:
        return Item(text=passage.text, image=passage.illustration)

    def as_flagged(self, passage: PassageRow) -> Item:
        return Item(text=passage.text, image=self._places[passage.place_id].flag_twemoji)

    def pages(self) -> list[Document]:
        first = {passage.page: passage for passage in reversed(self._visible) if passage.page}
        return [
            Document(_page_id(p), Item(image=page), p.entity_group, self._world.picture_licences[page])
            for page, p in first.items()
        ]

    def named(self, facts: list[FactRow]) -> list[Asked]:
        return [self._ask(f, "named", {f.passage_id}) for f in facts]

    def named_pages(self, facts: list[FactRow]) -> list[Asked]:
        first = {passage.page: passage for passage in reversed(self._visible) if passage.page}
        pages = {p.id: _page_id(first[p.page]) for p in self._visible if p.page}
        return [self._ask(f, "named", {pages[f.passage_id]}) for f in facts if f.passage_id in pages]

    def deictic(self, facts: list[FactRow]) -> list[Asked]:
        """Questions that point at the flag; every place that flies it answers."""
        return [self._ask(f, "deictic", set(self._siblings[f.entity_group, f.field])) for f in facts]

    def _ask(self, fact: FactRow, kind: Kind, relevant: set[str]) -> Asked:
        seed = self._config.seed
        template = pick(self._templates[fact.field, kind], seed, "wording", kind, fact.id)
        if kind == "named":
            item = Item(text=template.replace("{place}", fact.place_name))
        else:
            reference = pick(REFERENCES[self._split], seed, "reference", fact.id)
            flag = self._places[fact.place_id].flag_openmoji
            item = Item(text=template.replace("{reference}", reference), image=flag)
        return Asked(
            fact.id, item, fact.entity_group, fact.field, self._licence(fact.licence, item), frozenset(relevant)
        )

    def _licence(self, text_licence: str, item: Item) -> str:
        return combine(text_licence, *([self._world.picture_licences[item.image]] if item.image else []))


def _page_id(first: PassageRow) -> str:
    """Pages are called after the first section on them."""
    return f"page-{first.id}"
