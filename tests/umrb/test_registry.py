"""The tables of the suites, against what the paper and mteb say of the same datasets."""

from __future__ import annotations

from collections import Counter

import mteb
import pytest

from gme_data.errors import FoundryError
from gme_data.items import TASK_TYPES
from umrb.metrics import parse_metric
from umrb.registry import SUITES, choose, load_suite, published
from umrb.scoring.aggregate import summarise, weighted_total

PER_TYPE = dict(zip(TASK_TYPES, (16, 1, 4, 10, 4, 2, 5, 2, 3), strict=True))


def test_umrb_has_the_papers_47_datasets_of_nine_types() -> None:
    datasets = load_suite("umrb")
    assert Counter(dataset.task_type for dataset in datasets) == PER_TYPE
    assert len({dataset.id for dataset in datasets}) == 47
    # The sums that the tasks' own statistics have, from which the paper rounds to 40 million.
    assert sum(dataset.queries or 0 for dataset in datasets) == pytest.approx(271_393, rel=0.002)
    assert sum(dataset.candidates or 0 for dataset in datasets) == pytest.approx(39_810_038, rel=0.002)


def test_every_task_is_one_of_mteb_with_the_split_and_prompt_of_the_registry() -> None:
    for dataset in load_suite("umrb"):
        for name in dataset.tasks:
            metadata = mteb.get_task(name).metadata
            assert dataset.split in metadata.eval_splits
            assert metadata.category == dataset.task_type.replace("VD", "I").replace("->", "2").lower()
            if len(dataset.tasks) == 1:
                assert metadata.prompt["query"] == dataset.instruction


def test_metrics_are_those_of_the_paper() -> None:
    at_ten = {"Fashion200kT2IRetrieval", "Fashion200kI2TRetrieval", "FashionIQIT2IRetrieval", "OKVQAIT2TRetrieval"}
    for dataset in load_suite("umrb"):
        if dataset.task_type == "T->VD":
            expected = "ndcg_at_5"
        elif dataset.task_type == "T->T" and dataset.id != "WebQAT2TRetrieval":
            expected = "ndcg_at_10"
        else:
            expected = f"hit_rate_at_{10 if dataset.id in at_ten else 5}"
        assert dataset.metric == expected, dataset.id
        parse_metric(dataset.metric)


@pytest.mark.parametrize("row", published(), ids=lambda row: row.model)
def test_published_type_means_give_the_published_average(row) -> None:
    total = weighted_total(row.types, load_suite("umrb"))
    # The averages of the baselines were changed between two printings of the page; those of GME were not.
    assert total == pytest.approx(row.average, abs=0.02 if row.model.startswith("GME") else 0.7)


def test_cqadupstack_is_the_mean_of_twelve_and_counts_once() -> None:
    datasets = choose("umrb", ["CQADupStack", "ArguAna"])
    parts = datasets[1].tasks
    assert len(parts) == 12
    scores = {"ArguAna": 60.0, **{part: float(number) for number, part in enumerate(parts)}}
    summary = summarise(datasets, scores)
    assert summary.datasets == {"ArguAna": 60.0, "CQADupstackRetrieval": 5.5}
    assert (summary.total, summary.complete) == (32.75, True)
    del scores[parts[3]]
    lacking = summarise(datasets, scores)
    assert lacking.datasets == {"ArguAna": 60.0}
    assert (lacking.total, lacking.complete) == (60.0, False)
    assert (lacking.types["T->T"].scored, lacking.types["T->T"].of) == (1, 2)


def test_partial_is_a_selection_of_all_nine_types() -> None:
    partial = load_suite("umrb-partial")
    assert len(partial) == round(0.39 * 47)
    assert {dataset.task_type for dataset in partial} == set(TASK_TYPES)
    assert {dataset.id for dataset in partial} < {dataset.id for dataset in load_suite("umrb")}
    million = sum(dataset.candidates or 0 for dataset in partial) / 1e6
    assert million < 2


def test_the_other_suites() -> None:
    groups = Counter(dataset.task_type for dataset in load_suite("mmeb"))
    assert groups == {"classification": 10, "vqa": 10, "retrieval": 12, "grounding": 4}
    page = {dataset.id: dataset for dataset in load_suite("retrieval-page")}
    assert page["Flickr30K-CN-I2T"].published == {"GME": 91.8}
    assert {dataset.metric for dataset in page.values()} == {"hit_rate_at_1"}
    assert [len(load_suite(name)) for name in SUITES] == [47, 18, 9, 36]


@pytest.mark.parametrize(
    ("suite", "name", "message"),
    [
        ("umrb", "SciFacts", "Did you mean 'SciFact'"),
        ("umrb-partail", "SciFact", "Did you mean 'umrb-partial'"),
        ("mmeb", "RefCOO", "Did you mean 'RefCOCO'"),
    ],
)
def test_typos_get_a_suggestion(suite: str, name: str, message: str) -> None:
    with pytest.raises(FoundryError, match=message):
        choose(suite, [name])
