"""The page that `gme search` writes: the query and its hits, with their pictures in the file."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from pathlib import Path

from gme_cli.hit import Hit
from gme_data.images import Images, open_image

_STYLE = """
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
ol { list-style: none; padding: 0; display: grid; gap: 1rem; }
ol { grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
li, .query { border: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
li, .query { border-radius: .6rem; padding: .8rem; }
img { max-width: 100%; max-height: 9rem; display: block; margin: 0 auto .5rem; background: #fff; border-radius: .3rem; }
.score { opacity: .65; font-variant-numeric: tabular-nums; }
"""


def write_page(path: Path, text: str | None, picture: bytes | None, hits: Sequence[Hit], images: Images) -> None:
    """Writes one self-contained HTML file."""
    cards = "".join(
        f"<li>{_image(images.read(hit.document.item.image)) if hit.document.item.image else ''}"
        f"<span class=score>{hit.rank} · {hit.score:.3f}</span><br>{html.escape(hit.caption)}</li>"
        for hit in hits
    )
    query = (_image(picture) if picture else "") + html.escape(text or "")
    # Pictures are embedded as data: URIs, so that the page can be sent to somebody as one file.
    page = (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<title>gme search</title><style>{_STYLE}</style>"
        f"<h1>Search</h1><div class=query>{query}</div><ol>{cards}</ol></html>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _image(data: bytes) -> str:
    with open_image(data) as image:
        kind = str(image.format).lower()
    return f"<img alt='' src='data:image/{kind};base64,{base64.b64encode(data).decode()}'>"
