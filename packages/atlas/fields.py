"""The fields of the Factbook that Atlas uses: the section of each, and its path in the source's JSON."""

from __future__ import annotations

from dataclasses import dataclass

SECTIONS = ("Geography", "Nature", "People", "Economy", "Government", "Symbols")
"""Sections of a place, in the order of its passages."""
PAGES = (("Geography", "Nature"), ("People", "Economy"), ("Government", "Symbols"))
"""The sections on each rendered page of a place."""


@dataclass(frozen=True, slots=True)
class FactbookField:
    """A field of the Factbook.

    Attributes:
        name: Name in the tables, lower case with spaces; passages use it as the label.
        section: Section whose passage states the value.
        path: Keys in the source's JSON.
        length: Most characters of a value; longer ones are cut at a comma or a word.
    """

    name: str
    section: str
    path: tuple[str, ...]
    length: int = 60

    @property
    def paths(self) -> tuple[tuple[str, ...], ...]:
        """Paths to try in order: the path, then its parent, since the source nests some fields for some places only."""
        return (self.path, self.path[:-1])


FIELDS = (
    FactbookField("location", "Geography", ("Geography", "Location"), 85),
    FactbookField("total area", "Geography", ("Geography", "Area", "total")),
    FactbookField("highest point", "Geography", ("Geography", "Elevation", "highest point"), 40),
    FactbookField("coastline", "Geography", ("Geography", "Coastline"), 30),
    FactbookField("climate", "Nature", ("Geography", "Climate"), 70),
    FactbookField("terrain", "Nature", ("Geography", "Terrain"), 70),
    FactbookField("natural resources", "Nature", ("Geography", "Natural resources")),
    FactbookField("natural hazards", "Nature", ("Geography", "Natural hazards"), 50),
    FactbookField("population", "People", ("People and Society", "Population", "total"), 30),
    FactbookField("languages", "People", ("People and Society", "Languages", "Languages")),
    FactbookField("religions", "People", ("People and Society", "Religions")),
    FactbookField(
        "life expectancy", "People", ("People and Society", "Life expectancy at birth", "total population"), 30
    ),
    FactbookField("industries", "Economy", ("Economy", "Industries")),
    FactbookField("agricultural products", "Economy", ("Economy", "Agricultural products")),
    FactbookField("export partners", "Economy", ("Economy", "Exports - partners")),
    FactbookField("currency", "Economy", ("Economy", "Exchange rates", "Currency"), 40),
    FactbookField("capital", "Government", ("Government", "Capital", "name"), 40),
    FactbookField("government type", "Government", ("Government", "Government type"), 70),
    FactbookField("legislature", "Government", ("Government", "Legislative branch", "legislature name"), 45),
    FactbookField("national symbol", "Symbols", ("Government", "National symbol(s)"), 50),
    FactbookField("national colors", "Symbols", ("Government", "National color(s)"), 40),
    FactbookField("national anthem", "Symbols", ("Government", "National anthem(s)", "title"), 55),
    FactbookField("national holiday", "Symbols", ("Government", "National holiday"), 55),
)
FLAG_PATH = ("Government", "Flag")
"""Path of the description of the flag. No question asks for it, but the Government passage ends with its start."""
FLAG_START = 110
"""Most characters of the flag's description in the Government passage."""
