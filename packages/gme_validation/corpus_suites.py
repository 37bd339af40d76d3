"""Suites over the tables of an Atlas and over its splits."""

from __future__ import annotations

from collections.abc import Container

import pandas as pd

from gme_validation.config import AtlasValidationConfig
from gme_validation.suites import Expectation, TableSuite, covers, holds, lengths, one_of, unique
from gme_validation.tables import AtlasFrames

SPLITS = ("train", "dev", "test")


def corpus_suites(atlas: AtlasFrames, pictures: Container[str], config: AtlasValidationConfig) -> list[TableSuite]:
    """Returns the suites over places, passages, facts, wordings, pictographs, imagined places and entity groups.

    Args:
        atlas: The tables.
        pictures: Ids of the stored pictures.
        config: Floors and limits.
    """
    return [
        _places(atlas, pictures, config),
        _passages(atlas, pictures, config),
        _facts(atlas),
        _wordings(atlas),
        _pictographs(atlas, pictures, config),
        _imagined(atlas, pictures),
        _groups(atlas),
    ]


def _places(atlas: AtlasFrames, pictures: Container[str], config: AtlasValidationConfig) -> TableSuite:
    frame = atlas.places.drop(columns="aliases")
    images = ("flag_twemoji", "flag_openmoji", "map", "locator")
    frame["pictures_stored"] = _stored(frame, images, pictures)
    return TableSuite(
        "corpus.places",
        frame,
        (config.min_places, None),
        ("place_id", "name", "entity_group", "split", "flag_twemoji", "flag_openmoji", "licence"),
        (unique("place_id"), *_split_columns(), holds("pictures_stored", "flags and maps are in the picture store")),
    )


def _passages(atlas: AtlasFrames, pictures: Container[str], config: AtlasValidationConfig) -> TableSuite:
    split_of = dict(zip(atlas.places["place_id"], atlas.places["split"], strict=True))
    frame = atlas.passages.copy()
    frame["split_of_place"] = frame["place_id"].map(split_of) == frame["split"]
    frame["pictures_stored"] = _stored(frame, ("page",), pictures)
    return TableSuite(
        "corpus.passages",
        frame,
        (len(atlas.places), None),
        ("id", "place_id", "section", "text", "entity_group", "split", "licence"),
        (
            unique("id"),
            *_split_columns(),
            lengths("text", 10, config.max_text_chars, "a passage has text, and not too much"),
            holds("split_of_place", "a passage is in the split of its place"),
            holds("pictures_stored", "pages are in the picture store"),
        ),
    )


def _facts(atlas: AtlasFrames) -> TableSuite:
    texts = dict(zip(atlas.passages["id"], atlas.passages["text"], strict=True))
    splits = dict(zip(atlas.passages["id"], atlas.passages["split"], strict=True))
    frame = atlas.facts.copy()
    frame["passage_known"] = frame["passage_id"].isin(list(texts))
    frame["split_of_passage"] = frame["passage_id"].map(splits) == frame["split"]
    frame["answer_in_passage"] = [
        str(value).casefold() in str(texts.get(passage, "")).casefold()
        for value, passage in zip(frame["value"], frame["passage_id"], strict=True)
    ]
    return TableSuite(
        "corpus.facts",
        frame,
        (len(atlas.places), None),
        ("id", "place_id", "section", "field", "value", "passage_id", "entity_group", "split", "licence"),
        (
            unique("id"),
            *_split_columns(),
            lengths("value", 1, 200, "an answer is short and not empty"),
            holds("passage_known", "a fact names a passage that exists"),
            holds("split_of_passage", "a fact is in the split of its passage"),
            holds("answer_in_passage", "the answer stands in the passage"),
        ),
    )


def _wordings(atlas: AtlasFrames) -> TableSuite:
    frame = atlas.wordings.copy()
    frame["has_placeholder"] = frame["template"].str.contains(r"\{place\}|\{reference\}", regex=True)
    # Templates that differ in case or punctuation alone are the same wording.
    shape = frame["template"].str.casefold().str.replace(r"\W+", " ", regex=True).str.strip()
    frame["in_one_split"] = frame["split"].groupby([frame["field"], shape]).transform("nunique") == 1
    return TableSuite(
        "corpus.wordings",
        frame,
        (1, None),
        ("field", "split", "kind", "template"),
        (
            *_split_columns(),
            one_of("kind", ("named", "deictic"), "a wording names its place or points at it"),
            holds("has_placeholder", "a template has a placeholder for the place"),
            holds("in_one_split", "no wording is in two splits"),
        ),
    )


def _pictographs(atlas: AtlasFrames, pictures: Container[str], config: AtlasValidationConfig) -> TableSuite:
    frame = atlas.pictographs.drop(columns=["aliases", "names"], errors="ignore")
    frame["pictures_stored"] = _stored(frame, ("twemoji", "openmoji"), pictures)
    frame["base_known"] = frame["base_id"].isin(frame["id"])
    return TableSuite(
        "corpus.pictographs",
        frame,
        (config.min_pictographs, None),
        ("id", "base_id", "family", "name", "variant", "twemoji", "openmoji", "entity_group", "split", "licence"),
        (
            unique("id"),
            *_split_columns(),
            one_of("gender", ("none", "man", "woman", "person"), "genders of the source"),
            holds("base_known", "a variant names a base that exists"),
            holds("pictures_stored", "both styles are in the picture store"),
        ),
    )


def _imagined(atlas: AtlasFrames, pictures: Container[str]) -> TableSuite:
    real = {str(name).casefold() for name in atlas.places["name"]}
    frame = atlas.imagined.copy()
    frame["pictures_stored"] = _stored(frame, ("flag_flat", "flag_outlined"), pictures)
    frame["no_place"] = ~frame["name"].str.casefold().isin(list(real))
    return TableSuite(
        "corpus.imagined",
        frame,
        (0, None),
        ("place_id", "name", "entity_group", "split", "flag_flat", "flag_outlined", "flag_description", "licence"),
        (
            unique("place_id"),
            unique("name"),
            one_of("split", ("train",), "what does not exist is trained on alone"),
            holds("no_place", "an imagined place is not called like a real one"),
            holds("pictures_stored", "both flags are in the picture store"),
        ),
    )


def _groups(atlas: AtlasFrames) -> TableSuite:
    rows = pd.concat([frame[["entity_group", "split"]] for frame in atlas.grouped()], ignore_index=True)
    frame = rows.groupby("entity_group", as_index=False).agg(splits=("split", "nunique"), split=("split", "first"))
    frame["in_one_split"] = frame["splits"] == 1
    return TableSuite(
        "corpus.entity-groups",
        frame,
        (1, None),
        ("entity_group", "split"),
        (*_split_columns(), holds("in_one_split", "an entity group is in one split only")),
    )


def _split_columns() -> tuple[Expectation, ...]:
    return (
        one_of("split", SPLITS, "the three splits"),
        covers("split", SPLITS, "each split has rows"),
    )


def _stored(frame: pd.DataFrame, columns: tuple[str, ...], pictures: Container[str]) -> pd.Series[bool]:
    """Whether the pictures of each row are in the store; a row without a picture passes."""
    stored = [
        all(id_ in pictures for id_ in row if isinstance(id_, str))
        for row in frame[list(columns)].itertuples(index=False, name=None)
    ]
    return pd.Series(stored, index=frame.index, dtype=bool)
