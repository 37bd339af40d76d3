"""Which fields of the Factbook Atlas uses, in which section each stands, and where the source keeps it."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = ("Geography", "Nature", "People", "Economy", "Government", "Symbols")
PAGES = (("Geography", "Nature"), ("People", "Economy"), ("Government", "Symbols"))
"""Sections that share a rendered page."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        name: As in the tables, lower case with spaces; also its label in passages.
        section: Where its value stands.
        path: Keys in the source's JSON.
        length: A value is cut at a comma or word to at most so many characters.
    """

    name: str
    section: str
    path: tuple[str, ...]
    length: int = 60

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Where to look: the path, then its parent, since the source nests some fields for some places only."""
        return (self.path, self.path[:-1])


FIELDS = (
    Field("location", "Geography", ("Geography", "Location"), 85),
    Field("total area", "Geography", ("Geography", "Area", "total")),
    Field("highest point", "Geography", ("Geography", "Elevation", "highest point"), 40),
    Field("coastline", "Geography", ("Geography", "Coastline"), 30),
    Field("climate", "Nature", ("Geography", "Climate"), 70),
    Field("terrain", "Nature", ("Geography", "Terrain"), 70),
    Field("natural resources", "Nature", ("Geography", "Natural resources")),
    Field("natural hazards", "Nature", ("Geography", "Natural hazards"), 50),
    Field("population", "People", ("People and Society", "Population", "total"), 30),
    Field("languages", "People", ("People and Society", "Languages", "Languages")),
    Field("religions", "People", ("People and Society", "Religions")),
    Field("life expectancy", "People", ("People and Society", "Life expectancy at birth", "total population"), 30),
    Field("industries", "Economy", ("Economy", "Industries")),
    Field("agricultural products", "Economy", ("Economy", "Agricultural products")),
    Field("export partners", "Economy", ("Economy", "Exports - partners")),
    Field("currency", "Economy", ("Economy", "Exchange rates", "Currency"), 40),
    Field("capital", "Government", ("Government", "Capital", "name"), 40),
    Field("government type", "Government", ("Government", "Government type"), 70),
    Field("legislature", "Government", ("Government", "Legislative branch", "legislature name"), 45),
    Field("national symbol", "Symbols", ("Government", "National symbol(s)"), 50),
    Field("national colors", "Symbols", ("Government", "National color(s)"), 40),
    Field("national anthem", "Symbols", ("Government", "National anthem(s)", "title"), 55),
    Field("national holiday", "Symbols", ("Government", "National holiday"), 55),
)
FLAG_PATH = ("Government", "Flag")
"""Where the source describes the flag; not a question field, but the Government passage starts it."""
FLAG_START = 110
"""Characters of that description in the Government passage."""
