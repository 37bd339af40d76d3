"""Readers and filters one by one: names, icon sets, captions, WordNet lines, colours, fingerprints."""

from __future__ import annotations

import doctest
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from support.starter_packages import icon_set, pack, wordnet

from gme_data.errors import FoundryError
from research.starter import held_out as held_out_module
from research.starter import names
from research.starter.config import StarterDataConfig
from research.starter.examples import _QUESTIONS, gloss_examples
from research.starter.fingerprints import Fingerprints, near_duplicates
from research.starter.held_out import flag_code, normalize_symbol
from research.starter.iconify import read_icons
from research.starter.names import keys, loose_keys, readable
from research.starter.rendering import draw_svg, tint
from research.starter.stamps import read_stamps
from research.starter.wordnet import read_synsets, synonyms


@pytest.mark.parametrize("module", [names, held_out_module])
def test_examples_of_docstrings(module) -> None:
    outcome = doctest.testmod(module)
    assert outcome.attempted and not outcome.failed


def test_names() -> None:
    assert readable("Cow_face-outline-24") == "cow face"
    assert readable("outline") == "outline"
    assert names.words("Élan of the Foxes, bold") == ("elan", "fox")
    assert names.words("light bold") == ("light", "bold")  # nothing else is left
    assert keys("basket-ball") == {frozenset(["basket", "ball"]), frozenset(["basketball"])}
    assert frozenset(["dog"]) in loose_keys("dog face") and frozenset(["dog"]) not in keys("dog face")
    assert loose_keys("face") == keys("face")


@pytest.mark.parametrize(
    ("symbol", "expected"),
    [
        ("1f9ce-1f3fb-200d-2640-fe0f", "1f9ce"),
        ("1f468-1f3fd-200d-1f692", "1f9d1-200d-1f692"),
        ("2640", "2640"),
        ("1f42e", "1f42e"),
    ],
)
def test_an_emoji_without_tone_and_gender(symbol: str, expected: str) -> None:
    assert normalize_symbol(symbol) == expected


def test_regions() -> None:
    assert flag_code("1f1e9-1f1f0") == "dk"
    assert flag_code("1f42e") == flag_code("") == flag_code("1f1e9-1f42e") == ""


def test_an_icon_set(tmp_path: Path) -> None:
    package = icon_set(
        tmp_path, "set", "emoji",
        {"a": {"body": "<g/>", "width": 24, "left": -2}, "b": {"body": "<g/>", "hidden": True},
         "c": '<g fill="currentColor"/>'},
        {"1F42E-FE0F": "a"}, {"other": {"parent": "a"}, "turned": {"parent": "a", "hFlip": True}},
    )  # fmt: skip
    first, second = read_icons(package, tmp_path)
    assert (first.name, first.style, first.symbol, first.aliases) == ("a", "set", "1f42e", ("other",))
    assert 'viewBox="-2 0 24 16"' in first.svg and not first.tintable
    assert (second.name, second.symbol, second.tintable) == ("c", "", True)


def test_captions(tmp_path: Path) -> None:
    root = "usr/share/tuxpaint/stamps"
    package = pack(
        tmp_path, "stamps", "stamps",
        {
            f"{root}/a.svg": "<svg/>", f"{root}/a.txt": "A door.\nde.utf8=Eine Tür.\nit.utf8=Una porta.\n",
            f"{root}/b.png": b"x", f"{root}/b.txt": "de.utf8=Nur Deutsch.\n", f"{root}/c.png": b"x",
            f"{root}/a_mirror.svg": "<svg/>", f"{root}/a_mirror.txt": "A mirrored door.\n",
        },
    )  # fmt: skip
    (stamp,) = read_stamps(package, tmp_path, ("de",))
    assert (stamp.name, stamp.vector, stamp.captions) == ("a", True, {"en": "A door.", "de": "Eine Tür."})
    assert read_stamps(package, tmp_path, ("it",))[0].captions == {"en": "A door.", "it": "Una porta."}


def test_wordnet_lines(tmp_path: Path) -> None:
    synsets = {synset.id: synset for synset in read_synsets(wordnet(tmp_path), tmp_path)}
    moon, other = synsets["n09358358"], synsets["n09358550"]
    assert (moon.words, moon.category) == (("Moon", "moon"), "object")
    assert moon.gloss == "the natural satellite of the Earth"
    assert moon.examples[1] == "men first stepped on the moon in 1969" and len(moon.examples) == 2
    assert moon.first_for == {"Moon", "moon"} and not other.first_for
    galore = synsets["a00014358"]
    assert (galore.words, galore.category, galore.first_for) == (("abounding", "galore"), "quality", frozenset())
    assert synonyms(synsets.values())["moo-cow"] == {"cow", "moo-cow"}


def test_glosses_ask_for_the_first_sense(tmp_path: Path, held_out) -> None:
    drops: Counter[str] = Counter()
    synsets = read_synsets(wordnet(tmp_path), tmp_path)
    examples = list(gloss_examples(synsets, "MIT", held_out, StarterDataConfig(), drops))
    questions = {example.query.text: example for example in examples if example.source == "starter-gloss"}
    assert questions and all(
        any(template.format(word) in questions for template in _QUESTIONS) for word in ("Moon", "moon")
    )
    (passage,) = {example.positive.text for example in questions.values()}
    assert passage == "Moon. Object. The natural satellite of the Earth. Also called moon."
    assert {example.entity_group for example in questions.values()} == {"meaning:n09358358"}


def test_tints_are_chosen_by_the_names() -> None:
    svg = '<path fill="currentColor"/>'
    assert tint(svg, 1, "set", "a") == tint(svg, 1, "set", "a")
    assert len({tint(svg, 1, "set", str(number)) for number in range(50)}) > 20
    assert all("currentColor" not in tint(svg, 1, str(number))[0] for number in range(9))


def test_a_broken_drawing_is_an_error() -> None:
    with pytest.raises(FoundryError, match="cannot be rasterised"):
        draw_svg("<svg", 16)


def _picture(shape: str, ink: str, ground: str = "white", at: int = 0) -> Image.Image:
    picture = Image.new("RGB", (72, 72), ground)
    draw = ImageDraw.Draw(picture)
    if shape == "wedge":
        draw.polygon([(10 + at, 60), (60 + at, 60), (10 + at, 10)], fill=ink)
    else:
        draw.ellipse([(12 + at, 12), (60 + at, 60)], outline=ink, width=6)
    return picture


def test_near_duplicates_are_found_in_other_colours_and_positions() -> None:
    references = Fingerprints([_picture("wedge", "red")])
    pictures = Fingerprints(
        [
            _picture("wedge", "navy"),
            _picture("wedge", "yellow", "black"),
            _picture("wedge", "red", at=4),
            _picture("ring", "red"),
            Image.new("RGB", (72, 72), "red"),
        ]
    )
    alike = near_duplicates(pictures, references, colour_distance=8.0, shape_correlation=0.94)
    assert alike.tolist() == [True, True, True, False, False]
    assert not near_duplicates(pictures, Fingerprints([]), colour_distance=8.0, shape_correlation=0.94).any()
    assert near_duplicates(Fingerprints([]), references, colour_distance=8.0, shape_correlation=0.94).shape == (0,)
