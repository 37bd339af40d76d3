"""Limits that a dataset must meet before a model is trained on it or evaluated with it."""

from __future__ import annotations

from pydantic import Field

from gme_data.settings import Frozen


class ValidationConfig(Frozen):
    """Limits for any data; the defaults accept a corpus of a few dozen passages."""

    min_examples: int = Field(default=10, ge=1)
    """Fewest training examples."""
    min_queries: int = Field(default=2, ge=1)
    """Fewest queries of a task."""
    min_pool: int = Field(default=2, ge=1)
    """Fewest documents of a task."""
    max_text_chars: int = Field(default=8_000, ge=1)
    """Longest text of an item."""
    min_picture_side: int = Field(default=16, ge=1)
    """Smallest width and height of a picture, in pixels."""
    max_picture_side: int = Field(default=8_192, ge=1)
    """Largest width and height of a picture, in pixels."""
    min_picture_std: float = Field(default=1.0, ge=0)
    """Least standard deviation of the grey values (0-255); below it a picture is blank."""
    max_reject_share: float = Field(default=0.9, ge=0, le=1)
    """Largest share that one filter of synthesis may reject; balancing and merging are not filters."""
    ngram: int = Field(default=13, ge=2)
    """Words in an n-gram of the contamination check (13 as in the GPT-3 report, appendix C)."""
    max_ngram_share: float = Field(default=0.8, ge=0, le=1)
    """Largest share of a benchmark query's n-grams that may stand in training queries."""
    failed_rows: int = Field(default=20, ge=1)
    """Failing rows saved for each failed expectation."""


class AtlasValidationConfig(ValidationConfig):
    """Limits for Atlas; the defaults are those of the tiny run."""

    min_places: int = Field(default=100, ge=1)
    """Fewest places in the corpus."""
    min_pictographs: int = Field(default=500, ge=1)
    """Fewest pictographs in the corpus."""
    min_examples: int = Field(default=5_000, ge=1)
    """Fewest training examples."""
    min_type_share: float = Field(default=0.003, ge=0, le=1)
    """Smallest share of a task type in the training set."""
    max_type_share: float = Field(default=0.6, ge=0, le=1)
    """Largest share of a task type in the training set."""
    min_queries: int = Field(default=10, ge=1)
    """Fewest queries of a task."""
    min_pool: int = Field(default=20, ge=1)
    """Fewest documents of a task."""
    max_text_chars: int = Field(default=2_000, ge=1)
    """Longest text of an item."""
    min_picture_side: int = Field(default=32, ge=1)
    """Smallest width and height of a picture, in pixels."""
    max_picture_side: int = Field(default=2_048, ge=1)
    """Largest width and height of a picture, in pixels."""
    max_reject_share: float = Field(default=0.25, ge=0, le=1)
    """Largest share that one filter of synthesis may reject; balancing and merging are not filters."""
