"""The search page as one document with style and script inline, and a policy that lets nothing else run or load.

Knows three files and HTTP headers; the page itself uses the API like any other client.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

_FOLDER = Path(__file__).parent / "assets"


def read() -> tuple[str, dict[str, str]]:
    """Return the page, and the headers that it is sent with."""
    style, script = (_text(name) for name in ("page.css", "page.js"))
    html = _text("page.html").replace("{{style}}", style).replace("{{script}}", script)
    # Everything is inline and named by its hash: an injected script or style has another one and does not run.
    policy = {
        "default-src": "'none'",
        "script-src": _hash(script),
        "style-src": _hash(style),
        "img-src": "blob: data:",
        "connect-src": "'self'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    headers = {
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
    return html, headers


def _hash(inline: str) -> str:
    digest = hashlib.sha256(inline.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")
