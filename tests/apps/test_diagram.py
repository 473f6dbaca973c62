"""Drawings of networks: those in docs, all of them, and the words in them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from relume.apps.diagram import WIDTH, shape_in_words, share_in_words
from relume.core.catalogue import ROOT, figure_of, systems

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = [name for name, system in systems().items() if system.variants]


def drawing(name: str) -> ElementTree.Element:
    return ElementTree.fromstring((ROOT / figure_of(name)).read_text(encoding="utf-8"))


def boxes(picture: ElementTree.Element) -> Iterator[tuple[float, float, float, float]]:
    """Yield left, top, right and bottom of the steps, without the sheets behind those that repeat."""
    for rect in picture.iter(f"{SVG}rect"):
        if rect.get("rx") == "5" and rect.get("fill") != "#ffffff":
            left, top, width, height = (float(rect.get(side) or 0) for side in ("x", "y", "width", "height"))
            yield left, top, left + width, top + height


@pytest.mark.parametrize("name", DRAWN)
def test_a_drawing_is_small_of_one_width_and_tidy(name):
    path = Path(ROOT / figure_of(name))
    assert path.stat().st_size < 40_000
    picture = drawing(name)
    height = float(picture.get("height") or 0)
    assert picture.get("viewBox") == f"0 0 {WIDTH} {height:.0f}"
    found = list(boxes(picture))
    assert found
    for place, one in enumerate(found):
        assert 0 < one[0] < one[2] < WIDTH
        assert 0 < one[1] < one[3] < height
        for other in found[:place]:
            apart = one[2] < other[0] or other[2] < one[0] or one[3] < other[1] or other[3] < one[1]
            assert apart, f"{one} and {other} overlap"


@pytest.mark.parametrize("name", DRAWN)
def test_words_stay_apart_and_inside(name):
    """By an estimate of how wide they are, as fonts differ."""
    lines: dict[float, list[tuple[float, float, str]]] = {}
    for text in drawing(name).iter(f"{SVG}text"):
        words = text.text or ""
        size = float(text.get("font-size") or 0)
        assert size >= 6.5, f"{words} is too small to read"
        wide = len(words) * size * 0.48
        x = float(text.get("x") or 0)
        left = {None: x, "middle": x - wide / 2, "end": x - wide}[text.get("text-anchor")]
        assert left > 0, words
        assert left + wide < WIDTH, words
        lines.setdefault(float(text.get("y") or 0), []).append((left, left + wide, words))
    for line in lines.values():
        line.sort()
        for (_, end, words), (start, _, following) in pairwise(line):
            assert end < start, f"{words!r} runs into {following!r}"


def test_shapes_in_words():
    assert shape_in_words((1, 48, 64, 64)) == "48 · H×W"
    assert shape_in_words((1, 3, 256, 256)) == "3 · 4H×4W"
    assert shape_in_words((1, 96, 32, 32)) == "96 · H/2×W/2"
    assert shape_in_words((1, 64, 64, 180)) == "180 · H×W"  # channels last
    assert shape_in_words((1, 4096, 180)) == "180 · H×W"  # pixels in a row
    assert shape_in_words((1, 16, 1, 1)) == "16 · 1×1"
    for other in ((1, 180, 180), (1, 256, 256), (16, 256, 180), (2, 3, 64, 64), (1, 4, 48, 48), ()):
        assert shape_in_words(other) == ""


def test_shares_in_words():
    assert [share_in_words(share) for share in (0.984, 0.0312, 0.0002)] == ["98 %", "3.1 %", "<0.1 %"]
