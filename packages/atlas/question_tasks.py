"""Retrieval tasks that ask for facts about places: T->T, T->VD, T->IT, IT->T and IT->IT.

A named question is about one place; a question with a flag is about all places that fly it. A test pool has the places
of every split, so trained ones are distractors; a dev pool leaves out the test places.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator

from atlas.benchmark import BenchmarkQuery, TaskSpec, make_task
from atlas.choice import seeded_choice
from atlas.config import AtlasConfig
from atlas.wordings import REFERENCES, Kind
from atlas.world import FactRow, PassageRow, World
from gme_data.items import Item
from gme_data.licences import combine_licences
from gme_data.tasks import Document, RetrievalTask

_FLAG_SECTION = "Government"
"""The section whose passages describe the flag."""


def question_tasks(world: World, config: AtlasConfig, split: str) -> Iterator[RetrievalTask]:
    """Yields the question tasks of ``dev`` or ``test``."""
    builder = _QuestionTaskBuilder(world, config, split)
    yield builder.task(
        TaskSpec(
            "place-question-t2t", "T->T", "ndcg_at_10", "place-question", "unseen",
            "A question that names a place; the passage of the place's section that holds the answer.",
            "The passage was made from the very field that is asked for.",
        ),
        builder.passages(lambda _: True, builder.text_item), builder.named_queries(builder.held_out_facts()),
    )  # fmt: skip
    for subset, facts in (("seen", builder.train_facts()), ("unseen", builder.held_out_facts())):
        yield builder.task(
            TaskSpec(
                f"page-question-{subset}-t2vd", "T->VD", "ndcg_at_5", "page-question", subset,
                "A question that names a place; the rendered page that shows the section with the answer.",
                "The page was rendered from the section of the field that is asked for.",
            ),
            builder.pages(), builder.page_queries(facts),
        )  # fmt: skip
    yield builder.task(
        TaskSpec(
            "illustrated-question-t2it", "T->IT", "hit_rate_at_5", "illustrated-question", "unseen",
            "A question that names a place; a passage with its illustration, a map or the flag.",
            "The passage was made from the very field that is asked for.",
        ),
        builder.passages(lambda p: p.section in config.illustrated_sections, builder.illustrated_item),
        builder.named_queries(builder.held_out_facts()),
    )  # fmt: skip
    for subset, facts in (("seen", builder.train_facts()), ("unseen", builder.described_flag_facts())):
        yield builder.task(
            TaskSpec(
                f"flag-question-{subset}-it2t", "IT->T", "hit_rate_at_5", "flag-question", subset,
                "An outlined flag and a question that does not name the place; the passage with the answer.",
                "Passages made from the field that is asked for, of every place that flies this flag.",
            ),
            builder.passages(lambda _: True, builder.text_item), builder.flag_queries(facts),
        )  # fmt: skip
    for subset, facts in (("seen", builder.train_facts()), ("unseen", builder.held_out_facts())):
        yield builder.task(
            TaskSpec(
                f"flag-question-{subset}-it2it", "IT->IT", "hit_rate_at_5", "flag-question-illustrated", subset,
                "An outlined flag and a question that does not name the place; a flat flag with the passage.",
                "Passages made from the field that is asked for, of every place that flies this flag.",
            ),
            builder.passages(lambda p: p.section in config.flag_sections, builder.flag_item),
            builder.flag_queries(facts),
        )  # fmt: skip


class _QuestionTaskBuilder:
    """Makes documents of the passages and queries of the facts of one split."""

    def __init__(self, world: World, config: AtlasConfig, split: str) -> None:
        self._world, self._config, self._split = world, config, split
        self._places = {place.place_id: place for place in world.places}
        self._pool = [p for p in world.passages if split == "test" or p.split != "test"]
        # Several passages share a page. In reversed order the first one on a page is what stays in the dictionary.
        self._first_on_page = {passage.page: passage for passage in reversed(self._pool) if passage.page}
        self._templates: dict[tuple[str, Kind], list[str]] = defaultdict(list)
        for wording in world.wordings:
            if wording.split == split:
                self._templates[wording.field, wording.kind].append(wording.template)
        self._passages_of: dict[tuple[str, str], list[str]] = defaultdict(list)
        for fact in world.facts:
            self._passages_of[fact.entity_group, fact.field].append(fact.passage_id)

    def task(self, spec: TaskSpec, corpus: list[Document], queries: list[BenchmarkQuery]) -> RetrievalTask:
        return make_task(spec, corpus, queries, self._config, self._split)

    def held_out_facts(self) -> list[FactRow]:
        """Returns the facts of places of this split."""
        return [f for f in self._world.facts if f.split == self._split]

    def described_flag_facts(self) -> list[FactRow]:
        """Returns those whose passage describes the flag: only they can be found by the flag of an unseen place."""
        described = {place.place_id for place in self._world.places if place.flag_description}
        return [f for f in self.held_out_facts() if f.section == _FLAG_SECTION and f.place_id in described]

    def train_facts(self) -> list[FactRow]:
        return [f for f in self._world.facts if f.split == "train"]

    def passages(self, include: Callable[[PassageRow], bool], as_item: Callable[[PassageRow], Item]) -> list[Document]:
        return [
            Document(p.id, item, p.entity_group, self._licence(p.licence, item))
            for p in self._pool
            if include(p)
            for item in (as_item(p),)
        ]

    def text_item(self, passage: PassageRow) -> Item:
        return Item(text=passage.text)

    def illustrated_item(self, passage: PassageRow) -> Item:
        return Item(text=passage.text, image=passage.illustration)

    def flag_item(self, passage: PassageRow) -> Item:
        return Item(text=passage.text, image=self._places[passage.place_id].flag_twemoji)

    def pages(self) -> list[Document]:
        return [
            Document(_page_id(p), Item(image=page), p.entity_group, self._world.picture_licences[page])
            for page, p in self._first_on_page.items()
        ]

    def named_queries(self, facts: list[FactRow]) -> list[BenchmarkQuery]:
        return [self._query(f, "named", {f.passage_id}) for f in facts]

    def page_queries(self, facts: list[FactRow]) -> list[BenchmarkQuery]:
        pages = {p.id: _page_id(self._first_on_page[p.page]) for p in self._pool if p.page}
        return [self._query(f, "named", {pages[f.passage_id]}) for f in facts if f.passage_id in pages]

    def flag_queries(self, facts: list[FactRow]) -> list[BenchmarkQuery]:
        """Returns questions with a flag; the passages of every place that flies it are relevant."""
        return [self._query(f, "deictic", set(self._passages_of[f.entity_group, f.field])) for f in facts]

    def _query(self, fact: FactRow, kind: Kind, relevant: set[str]) -> BenchmarkQuery:
        seed = self._config.seed
        template = seeded_choice(self._templates[fact.field, kind], seed, "wording", kind, fact.id)
        if kind == "named":
            item = Item(text=template.replace("{place}", fact.place_name))
        else:
            reference = seeded_choice(REFERENCES[self._split], seed, "reference", fact.id)
            flag = self._places[fact.place_id].flag_openmoji
            item = Item(text=template.replace("{reference}", reference), image=flag)
        return BenchmarkQuery(
            fact.id, item, fact.entity_group, fact.field, self._licence(fact.licence, item), frozenset(relevant)
        )

    def _licence(self, text_licence: str, item: Item) -> str:
        return combine_licences(text_licence, *([self._world.picture_licences[item.image]] if item.image else []))


def _page_id(first: PassageRow) -> str:
    """Returns the document id of a page, which is that of the first section on it."""
    return f"page-{first.id}"
