"""The tables of Atlas, as one package writes them and others read them: columns and their types."""

from __future__ import annotations

import pyarrow as pa

_TEXTS = pa.list_(pa.string())
_NAMES = pa.list_(pa.struct([pa.field("lang", pa.string()), pa.field("name", pa.string())]))


def _schema(required: str, optional: str = "", **others: pa.DataType) -> pa.Schema:
    fields = [pa.field(name, pa.string(), nullable=False) for name in required.split()]
    fields += [pa.field(name, pa.string()) for name in optional.split()]
    return pa.schema(fields + [pa.field(name, kind, nullable=False) for name, kind in others.items()])


SCHEMAS = {
    "places": _schema(
        "place_id name region entity_group split flag_twemoji flag_openmoji licence",
        "map locator flag_description",
        aliases=_TEXTS,
    ),
    "passages": _schema("id place_id place_name section text entity_group split licence", "page illustration"),
    "facts": _schema("id place_id place_name section field value passage_id entity_group split licence"),
    "wordings": _schema("field split kind template"),
    "pictographs": _schema(
        "id base_id family name variant gender twemoji openmoji entity_group split licence",
        aliases=_TEXTS,
        names=_NAMES,
    ),
    "imagined": _schema("place_id name entity_group split flag_flat flag_outlined flag_description licence"),
}
"""The schema of each table as it is written."""


def columns_of(table: str, names: str) -> pa.Schema:
    """Returns some columns of a table for reading; they may be null, for the reader to check.

    Args:
        table: As `SCHEMAS` has it.
        names: The columns, with spaces between.
    """
    # Nullable, since a missing value is for validation to report with its row, not for the reader to fail at.
    return pa.schema([SCHEMAS[table].field(name).with_nullable(nullable=True) for name in names.split()])
