"""Strips markup from texts that are markup documents; a text that only mentions tags stays as it is.

A word in angle brackets proves nothing: ``List<String>``, ``if a <b and c> d`` and ``<john@x.org>`` are text.
`_is_page` lists what proves a page. Only what a reader of the page does not see is lost: after a tag, a script or a
comment that has no end, the text goes on. It takes one pass over any text, so time is linear.
"""

from __future__ import annotations

import html
import re
import unicodedata
from bisect import bisect_left
from collections import defaultdict
from html.entities import name2codepoint
from typing import Literal

_NAMES = {
    "void": "area base br col embed hr img input link meta param source track wbr",
    "invisible": "head noscript script style template",
    "inline": "a abbr acronym b basefont bdi bdo big cite code data del dfn em font i ins kbd mark nobr output q s "
    "samp small span strike strong sub sup time tt u var wbr",
    "end left out": "body colgroup dd dt head html li optgroup option p rp rt tbody td tfoot th thead tr",
    "others": "address applet article aside audio blockquote button canvas caption center datalist details dialog dir "
    "div dl fieldset figcaption figure footer form frame frameset h1 h2 h3 h4 h5 h6 header hgroup iframe label legend "
    "listing main map marquee math menu meter nav noframes object ol picture plaintext pre progress ruby search "
    "section select slot summary svg table textarea title ul video xmp",
}
_SVG_AND_MATHML = frozenset(
    [
        *(
            "circle",
            "clippath",
            "defs",
            "ellipse",
            "g",
            "lineargradient",
            "mask",
            "path",
            "polygon",
            "polyline",
            "rect",
        ),
        *("mfrac", "mi", "mn", "mo", "mrow", "msqrt", "mstyle", "msub", "msubsup", "msup", "mtext", "semantics"),
    ]
)
"""Elements inside of svg and math, which prove no page."""
_HTML_ELEMENTS = frozenset(name for names in _NAMES.values() for name in names.split())
_VOID, _INVISIBLE, _END_LEFT_OUT = (frozenset(_NAMES[kind].split()) for kind in ("void", "invisible", "end left out"))
_INLINE = frozenset(_NAMES["inline"].split())
"""Elements that may stand inside of words; all others separate words."""
_BREAKS = frozenset(["br", "hr", "wbr"])

_NAME = r"[a-zA-Z][\w.-]*+(?::[a-zA-Z][\w.-]*+)?"
_BOOLEAN_ATTRIBUTES = (
    "allowfullscreen|async|autofocus|autoplay|checked|compact|controls|defer|disabled|hidden|ismap|itemscope|loop|muted|"
    "multiple|nohref|nomodule|noresize|noshade|novalidate|nowrap|open|playsinline|readonly|required|reversed|selected"
)
_QUOTED_VALUE = r"""(?:"(?:[^"<>]|(?<=[\s=-])>)*+"|'(?:[^'<>]|(?<=[\s=-])>)*+')"""
"""A quoted value may hold ``a > b`` and ``=>``; another ``>`` ends the tag, whose quote was left open."""
_ATTRIBUTE = rf"""\s++(?:[^\s"'<>/=]++\s*+=\s*+(?:{_QUOTED_VALUE}|[^\s"'<>]++)|(?i:{_BOOLEAN_ATTRIBUTES})(?=[\s/>]))"""
_TOKEN = re.compile(
    rf"""<!--|-->|<!\[CDATA\[|\]\]>|<![a-zA-Z][^<>]{{0,300}}+>|<\?[a-zA-Z][^<>]{{0,300}}+>"""
    rf"""|<(?P<end>/?)(?P<name>{_NAME})(?P<attributes>(?:{_ATTRIBUTE})*+)\s*+/?>"""
    rf"""|<(?P<broken>{_NAME})(?:{_ATTRIBUTE})*+\s++[^\s"'<>/=]++\s*+=\s*+["'][^\s"'<>]*+>"""
)
"""No token contains another, and each ends before the next ``<``, so that matching is linear in the text."""
_PAGE_ATTRIBUTE = re.compile(
    r"\b(?:align|alt|bgcolor|border|class|colspan|height|href|id|lang|rel|rowspan|src|style|target|valign|width)\s*=",
    re.IGNORECASE,
)
_FIRST_ELEMENT = re.compile(rf"\s*+(?:<[?!][a-zA-Z][^<>]*+>\s*+)*+<({_NAME})[\s>]")
_UNCLOSED = re.compile(rf"</?(?:{'|'.join(sorted(name for name in _HTML_ELEMENTS if len(name) > 1))})\b", re.IGNORECASE)
"""Tags that a browser would read on to the next ``>``. One letter is not enough: ``a <b`` is text."""
_ENTITY = re.compile(r"&(?:#(?:[0-9]{1,7}|[xX][0-9a-fA-F]{1,6})|[a-zA-Z][a-zA-Z0-9]{1,31});")
_PROSE_ENTITIES = frozenset(["apos", "trade", *(name for name, code in name2codepoint.items() if code < 0x2100)])
"""Entities that are unescaped in plain text, too: letters, spaces, punctuation. ``&sum;`` and ``&int;`` may be C."""

_MENTION_MARKS = "\"'/\\*#&@%"
"""Punctuation before a tag that is only mentioned, which therefore proves nothing."""

Kind = Literal["page", "xml", "text"]


def without_markup(text: str) -> tuple[str, bool]:
    """Returns the text that a reader sees, entities unescaped, and whether that differs from `text`.

    Args:
        text: A page or a part of one, an XML document, or plain text, in which only entities are unescaped.
    """
    tokens = list(_TOKEN.finditer(text)) if "<" in text else []
    kind = _kind(text, tokens)
    visible = text if kind == "text" else _visible_text(text, tokens, kind)
    plain = _ENTITY.sub(lambda entity: _character(entity[0], kind), visible) if "&" in visible else visible
    return plain, plain != text


def mentions_markup(text: str) -> bool:
    """Says whether a text holds a tag of HTML, a comment or an entity, even if only mentioned or never closed.

    It is for short texts that should hold none, such as questions; prose may mention tags.
    """
    if "<" not in text and "&" not in text:
        return False
    tags = (token for token in _TOKEN.finditer(text) if token[0] not in ("-->", "]]>"))
    return (
        bool(_UNCLOSED.search(text))
        or any(_html_name(token) or not _is_tag(token) for token in tags)
        or without_markup(text)[1]
    )


def _kind(text: str, tokens: list[re.Match[str]]) -> Kind:
    """Returns the kind of a text. One element from the first character to the last is a document, whatever its name."""
    if not tokens:
        return "text"
    first = _FIRST_ELEMENT.match(text)
    if first and text.rstrip().endswith(f"</{first[1]}>"):
        return "page" if first[1].lower() in _HTML_ELEMENTS else "xml"
    return "page" if _is_page(text, tokens) else "text"


def _is_page(text: str, tokens: list[re.Match[str]]) -> bool:
    """Says whether a text is HTML: at least one tag stands where prose has none, and most of the tags are HTML's.

    Prose about tags sets them off by spaces, commas or quotes. So these prove a page: a doctype of HTML, an end tag
    right after a word (``ever.</p>``), ``<br>`` right beside one, a tag at the beginning of a line right before one
    (``<p>Once``), and a tag with an attribute of HTML that is in one of these places.
    """
    proven = False
    balance = 0
    for token in tokens:
        name = _html_name(token)
        if not _is_tag(token):
            proven |= token[0][:9].lower() == "<!doctype" and "html" in token[0].lower()
        elif name in _HTML_ELEMENTS:
            balance += 1
            proven = proven or _proves(text, token, name)
        else:
            balance -= not name
    return proven and balance > 0


def _proves(text: str, token: re.Match[str], name: str) -> bool:
    """Says whether a tag of HTML stands where prose has none; see `_is_page`."""
    before, after = text[token.start() - 1 : token.start()], text[token.end() : token.end() + 1]
    # A tag after the end of a sentence counts as after a word; one after a quote, slash or star may be only mentioned.
    after_word = _is_of_word(before) or (
        unicodedata.category(before or " ") in ("Po", "Pe") and before not in _MENTION_MARKS
    )
    before_word = _is_of_word(after)
    if token["end"]:
        return after_word
    begins_line = not before or before in "\n>"
    has_attribute = bool(_PAGE_ATTRIBUTE.search(token["attributes"] or token[0] * bool(token["broken"])))
    if name in _VOID:
        return (name in _BREAKS or has_attribute) and (after_word or before_word or (begins_line and has_attribute))
    return ((begins_line or has_attribute) and before_word) or (begins_line and has_attribute)


def _is_of_word(char: str) -> bool:
    return char != "" and unicodedata.category(char)[0] in "LMN"


def _is_tag(token: re.Match[str]) -> bool:
    return token["name"] is not None or token["broken"] is not None


def _html_name(token: re.Match[str]) -> str:
    """Returns the name of an element of HTML, or of a custom one (``my-menu``, ``o:p``); empty for all else."""
    written = token["name"] or token["broken"] or ""
    name: str = written.lower()
    if name in _SVG_AND_MATHML:
        return name
    one_case = written.islower() or written.isupper()  # ``Map<Object>`` is code
    return name if one_case and (name in _HTML_ELEMENTS or "-" in name or ":" in name) else ""


class _TokenIndex:
    """Finds the next token of a kind from a position, by binary search."""

    def __init__(self, tokens: list[re.Match[str]]) -> None:
        self._tokens: dict[str, list[re.Match[str]]] = defaultdict(list)
        self._starts: dict[str, list[int]] = defaultdict(list)
        for token in tokens:
            key = token[0] if not _is_tag(token) else f"</{_html_name(token)}" if token["end"] else _html_name(token)
            self._tokens[key].append(token)
            self._starts[key].append(token.start())

    def next(self, key: str, start: int) -> re.Match[str] | None:
        """Returns the first ``-->``, ``]]>``, ``</name`` or ``name`` from `start` on; None if there is none."""
        index = bisect_left(self._starts[key], start)
        return self._tokens[key][index] if index < len(self._tokens[key]) else None


def _visible_text(text: str, tokens: list[re.Match[str]], kind: Kind) -> str:
    """Returns a document without tags, comments and the contents of elements of `_INVISIBLE`."""
    index = _TokenIndex(tokens)
    parts: list[str] = []
    at = 0  # the text before it is in `parts`, or invisible
    for token in tokens:
        name = _html_name(token)
        if token.start() < at or token[0] in ("-->", "]]>"):
            continue
        if _is_tag(token) and kind == "page" and (not name or _is_code(text, token, name, index)):
            continue  # it stays, with the text around it
        parts += [text[at : token.start()], "" if name in _INLINE else " "]
        at = token.end()
        if token[0] == "<!--":
            end = index.next("-->", at)
            at = end.end() if end else at
        elif token[0] == "<![CDATA[":
            end = index.next("]]>", at)
            parts.append(text[at : end.start()] if end else "")
            at = end.end() if end else at
        elif kind == "page" and name in _INVISIBLE and not token["end"]:
            at = _end_of_invisible(text, name, at, index)
    return "".join([*parts, text[at:]])


def _end_of_invisible(text: str, name: str, start: int, index: _TokenIndex) -> int:
    """Returns where the text goes on; that is `start` if the element has no end, or if another begins before it."""
    end, next_start = index.next(f"</{name}", start), index.next(name, start)
    # A start tag in quotes is in the text of a script, which may write one.
    if end and next_start and next_start.start() < end.start() and text[next_start.start() - 1] not in "\"'":
        return start
    if end:
        return end.end()
    body = index.next("body", start) if name == "head" else None  # a head's end may be left out
    return body.start() if body else start


def _is_code(text: str, token: re.Match[str], name: str, index: _TokenIndex) -> bool:
    """Says whether a token without end tag is code that a page did not escape, ``vector<data>`` or ``<file-name>``."""
    if token["end"] or token["attributes"] or token["broken"] or name in _VOID | _END_LEFT_OUT:
        return False
    follows = token.start() > 0 and (_is_of_word(text[token.start() - 1]) or text[token.start() - 1] == "_")
    return (follows or name not in _HTML_ELEMENTS | _SVG_AND_MATHML) and index.next(f"</{name}", token.end()) is None


def _character(entity: str, kind: Kind) -> str:
    """Returns the character of an entity. It ends in a semicolon: ``AT&amp;T``, but not ``?a=1&copy=2``."""
    return html.unescape(entity) if kind != "text" or entity[1] == "#" or entity[1:-1] in _PROSE_ENTITIES else entity
