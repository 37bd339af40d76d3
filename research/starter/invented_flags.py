"""Procedural flags as candidates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from atlas.procedural_flags import LICENCE, Flag, draw_flat, draw_outlined, generate_flag
from gme_data.images import encode_png
from research.starter.candidates import Candidate
from research.starter.config import StarterDataConfig

INVENTED = "invented"
"""Batch key of these flags."""
FLAT, OUTLINED = "invented-flat", "invented-outlined"
"""Style of the flat and of the outlined drawing."""


def invented_flags(config: StarterDataConfig) -> Iterator[Candidate]:
    """Yields at most `config.invented_flags` flags, each in both styles; of flags with one description the first."""
    descriptions: set[str] = set()
    for number in range(config.invented_flags):
        flag = generate_flag(config.seed, number)
        if flag.description in descriptions:
            continue
        descriptions.add(flag.description)
        entity = f"vexillum-{number}"
        for style, draw in ((FLAT, draw_flat), (OUTLINED, draw_outlined)):
            group = f"flag:{entity}"
            make = partial(_png, draw, flag, config.seed + number)
            names = (("en", flag.description),)
            yield Candidate("flag", f"{style}/{entity}", style, entity, group, INVENTED, names, LICENCE, make)


def _png(draw: Callable[[Flag, int], Image.Image], flag: Flag, seed: int) -> bytes:
    return encode_png(draw(flag, seed))
