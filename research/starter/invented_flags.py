"""Flags of no place as candidates, beside those of the packages."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial

from PIL import Image

from atlas.procedural_flags import LICENCE, Flag, draw_flat, draw_outlined, generate_flag
from research.starter.config import StarterConfig
from research.starter.drawings import Drawing

INVENTED = "invented"
"""Batch key of these flags."""
FLAT, OUTLINED = "invented-flat", "invented-outlined"
"""Their two styles."""


def invented_flags(config: StarterConfig) -> Iterator[Drawing]:
    """At most `config.invented_flags` flags, each in both styles; of two that are described alike the first."""
    described: set[str] = set()
    for number in range(config.invented_flags):
        flag = generate_flag(config.seed, number)
        if flag.description in described:
            continue
        described.add(flag.description)
        entity = f"vexillum-{number}"
        for style, draw in ((FLAT, draw_flat), (OUTLINED, draw_outlined)):
            make = partial(_png, draw, flag, config.seed + number)
            names = (("en", flag.description),)
            yield Drawing("flag", f"{style}/{entity}", style, entity, f"flag:{entity}", INVENTED, names, LICENCE, make)


def _png(draw: Callable[[Flag, int], Image.Image], flag: Flag, seed: int) -> bytes:
    data = io.BytesIO()
    draw(flag, seed).save(data, "PNG")
    return data.getvalue()
