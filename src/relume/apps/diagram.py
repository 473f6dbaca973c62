"""A network's anatomy as a picture: SVG of one width, its modules opened side by side, heaviest first.

The same network gives the same bytes. Drawn on a light ground of its own, so that it reads on any page.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from relume.insight.anatomy import SIDE, Anatomy, Loop, Module, Part
from relume.train.reporting.charts import COLOURS
from relume.train.reporting.markup import Markup, element, joined

WIDTH = 960
"""Of every picture."""

_MARGIN, _BETWEEN = 14, 18
_HEAD, _FOOT = 62, 30
_TITLE = 66  # of a panel, with the dot of its input
_BOX, _ROW, _OPERATION, _GAP = 38, 24, 20, 14  # heights
_LANE = 9  # between lines that lead past boxes
_RIGHT = 12  # room at a panel's right, for frames
_MOST_PANELS, _MOST_COLUMNS = 5, 4
_LEAST_SHARE = 0.05
_WIDEST = 300
_LONG = 18
"""Steps from which on each gets one line instead of two, and their panel more width."""
_WIDER = 1.5
_BETWEEN_ALL = {"matmul", "softmax", "normalize", "attention"}
"""Operations between pixels or between channels, whose shape is no picture's."""

_INK, _SOFT, _EDGE, _LINE, _GROUND = "#1c1f23", "#69717d", "#d8dbe0", "#8b93a0", "#ffffff"

_STYLE = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,Arial,sans-serif;fill:" + _INK + "}"
    ".soft{fill:" + _SOFT + "}.bold{font-weight:600}"
)


_LEGEND = "\u2003".join(
    (
        "C · H×W: shape, where it changes",
        "%: share of the panel's parameters",
        "↓2: stride",
        "×6: six in a row",
        "coloured edge: opened in that colour's panel",
    )
)


def diagram(anatomy: Anatomy, *, title: str) -> str:
    """Draw a network.

    Args:
        anatomy: of the network.
        title: what stands above.

    Returns:
        An SVG document.
    """
    panels = _panels(anatomy)
    columns = _columns(panels)
    shares = [_WIDER if any(panel.is_long for panel in column) else 1.0 for column in columns]
    unit = min(_WIDEST, (WIDTH - 2 * _MARGIN - (len(columns) - 1) * _BETWEEN) / sum(shares))
    widths = [int(unit * share) for share in shares]
    left = (WIDTH - sum(widths) - (len(columns) - 1) * _BETWEEN) // 2
    whole = _HEAD + max(_stacked(column) for column in columns) + _FOOT
    network = anatomy.modules[anatomy.root]
    drawn = [
        element("rect", width=WIDTH, height=whole, rx=10, fill="#f6f7f9"),
        _text(left, 30, title, size=17, bold=True),
        _text(left, 49, f"{network.parameters:,} parameters", size=12, soft=True),
        element(
            "text", _LEGEND, x=WIDTH // 2, y=whole - 11, font_size="10.5", class_="soft", text_anchor="middle"
        ),
    ]
    colours = {panel.key: COLOURS[place] for place, panel in enumerate(panels)}
    for column, width in zip(columns, widths, strict=True):
        top = _HEAD
        for panel in column:
            drawn += panel.drawn(left, top, width, colours)
            top += panel.height + _BETWEEN
        left += width + _BETWEEN
    svg = element(
        "svg", element("style", Markup(_STYLE)), joined(drawn), xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {whole}", width=WIDTH, height=whole, role="img",
    )  # fmt: skip
    return svg + "\n"


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """One module, opened.

    Attributes:
        key: of the module in the anatomy.
        module: it.
        shown: the keys of the panels that show a step's module, by the module's own.
    """

    key: str
    module: Module
    shown: Mapping[str, str]

    @property
    def is_long(self) -> bool:
        return len(self.module.parts) >= _LONG

    @property
    def height(self) -> int:
        return _TITLE + sum(self.height_of(part) + _GAP for part in self.module.parts) + 10

    def height_of(self, part: Part) -> int:
        if not part.role:
            return _OPERATION
        return _ROW if self.is_long else _BOX

    def drawn(self, left: int, top: int, width: int, colours: Mapping[str, str]) -> Iterator[Markup]:
        """Draw it, within the place given."""
        colour = colours[self.key]
        module = self.module
        yield element(
            "rect", x=left, y=top, width=width, height=self.height, rx=8, fill=_GROUND, stroke=_EDGE
        )
        yield element("rect", x=left, y=top, width=width, height=4, rx=2, fill=colour)
        yield _text(left + 12, top + 23, module.kind, size=13, bold=True, room=width - 24)
        if colour != COLOURS[0]:
            yield _text(left + 12, top + 38, f"{module.parameters:,} parameters", size=10, soft=True)
        lanes = _lanes(module.parts)
        gutter = 14 + _LANE * (max(lanes.values(), default=-1) + 1)
        box = _Place(left + gutter, width - gutter - _RIGHT)
        tops, ends = [], [top + _TITLE - _GAP]
        for part in module.parts:
            tops.append(ends[-1] + _GAP)
            ends.append(tops[-1] + self.height_of(part))
        if module.shape:
            yield element("circle", cx=box.middle, cy=ends[0] - 2, r=3, fill=_LINE)
            yield _text(box.middle + 8, ends[0] + 1, shape_in_words(module.shape), size=10, soft=True)
        for loop in module.loops:
            yield from _frame(loop, left, width, tops, ends)
        yield from _arrows(module.parts, lanes, box, tops, ends)
        before = shape_in_words(module.shape)
        for part, at in zip(module.parts, tops, strict=True):
            accent = colours.get(self.shown.get(part.opens or "", ""))
            now = ("" if part.kind in _BETWEEN_ALL else shape_in_words(part.shape)) or before
            shape, before = now if now != before else "", now
            if not part.role:
                yield from _operation(part, box, at, shape)
            else:
                share = part.parameters / module.parameters if part.parameters else None
                yield from _step(part, box, at, self.height_of(part), shape, share, accent=accent, bar=colour)


@dataclass(frozen=True)
class _Place:
    left: int
    width: int

    @property
    def middle(self) -> int:
        return self.left + self.width // 2


def _panels(anatomy: Anatomy) -> list[_Panel]:
    """Choose what is opened: the network, then again and again the heaviest kind of module not yet open."""
    chosen = {anatomy.root: 1.0}  # with the share of all parameters that modules of that kind hold
    while len(chosen) < _MOST_PANELS:
        seen = {anatomy.modules[key].kind for key in chosen}
        closed: dict[str, float] = {}
        for key, held in chosen.items():
            module = anatomy.modules[key]
            for part in module.parts:
                if part.opens and anatomy.modules[part.opens].kind not in seen:
                    share = held * part.parameters / module.parameters
                    closed[part.opens] = closed.get(part.opens, 0.0) + share
        heaviest = max(closed, key=lambda key: closed[key], default=None)
        if heaviest is None or closed[heaviest] < _LEAST_SHARE:
            break
        chosen[heaviest] = closed[heaviest]
    kinds = {anatomy.modules[key].kind: key for key in chosen}
    shown = {key: kinds[module.kind] for key, module in anatomy.modules.items() if module.kind in kinds}
    return [_Panel(key=key, module=anatomy.modules[key], shown=shown) for key in chosen]


def _columns(panels: Sequence[_Panel]) -> list[list[_Panel]]:
    """Put panels below one another so that the picture is as short as few columns allow."""
    limit = max(panel.height for panel in panels)
    while True:
        columns: list[list[_Panel]] = [[]]
        for panel in panels:
            if columns[-1] and _stacked([*columns[-1], panel]) > limit:
                columns.append([])
            columns[-1].append(panel)
        if len(columns) <= _MOST_COLUMNS:
            return columns
        limit += 20


def _stacked(column: Sequence[_Panel]) -> int:
    """Return how high a column is."""
    return sum(panel.height for panel in column) + _BETWEEN * (len(column) - 1)


def _lanes(parts: Sequence[Part]) -> dict[tuple[int, int], int]:
    """Give each line that leads past steps a lane of its own as long as it runs: (from, to) → lane."""
    skips = sorted(
        ((source, at) for at, part in enumerate(parts) for source in part.sources if source != at - 1),
        key=lambda skip: (skip[1] - skip[0], skip),
    )
    lanes: dict[tuple[int, int], int] = {}
    for skip in skips:
        taken = {
            lane
            for other, lane in lanes.items()
            if other[0] < skip[1] and skip[0] < other[1] and other[0] != skip[0]
        }
        lanes[skip] = next(lane for lane in range(len(skips) + 1) if lane not in taken)
    return lanes


def _arrows(
    parts: Sequence[Part],
    lanes: Mapping[tuple[int, int], int],
    box: _Place,
    tops: Sequence[int],
    ends: Sequence[int],
) -> Iterator[Markup]:
    """Draw who feeds whom.

    Args:
        parts: the steps.
        lanes: of the lines that lead past steps.
        box: where the steps are.
        tops: of the steps.
        ends: the bottom of the input, then those of the steps.
    """
    middle = box.middle
    for at, part in enumerate(parts):
        if at - 1 in part.sources:
            yield _line(f"M{middle} {ends[at]}V{tops[at] - 4}")
            yield _head(middle, tops[at], down=True)
    for (source, at), lane in lanes.items():
        x, start, end = box.left - 8 - _LANE * lane, ends[source + 1] + 4, (tops[at] + ends[at + 1]) // 2
        edge = box.left if parts[at].role else middle - _half(parts[at])
        yield _line(f"M{middle} {ends[source + 1]}V{start}H{x + 4}q-4 0 -4 4V{end - 4}q0 4 4 4H{edge - 4}")
        yield _head(edge, end, down=False)
    if len(parts) - 1 not in {source for part in parts for source in part.sources}:
        yield _line(f"M{middle} {ends[-1]}V{ends[-1] + 10}")
        yield _head(middle, ends[-1] + 14, down=True)


def _step(
    part: Part,
    box: _Place,
    top: int,
    height: int,
    shape: str,
    share: float | None,
    *,
    accent: str | None,
    bar: str,
) -> Iterator[Markup]:
    """Draw a module as a box.

    Args:
        part: the step.
        box: where it lies from left to right.
        top: where it begins.
        height: of the box; a low one has all its words in one line.
        shape: what is said of it, or nothing.
        share: of the panel's parameters; None where it has none of its own.
        accent: colour of the panel that opens it, if one does.
        bar: colour of the bar that shows the share.
    """
    left, right = box.left, box.left + box.width
    if part.repeats > 1:
        yield element("rect", x=left + 4, y=top + 4, width=box.width, height=height, rx=5, fill=_GROUND,
                      stroke=_EDGE)  # fmt: skip
    yield element(
        "rect", x=left, y=top, width=box.width, height=height, rx=5, fill="#f9fafb", stroke="#c3c9d2"
    )
    if accent:
        yield element("rect", x=left, y=top, width=5, height=height, rx=2, fill=accent)
    if share is not None:
        long = f"{max(1.0, (box.width - 16) * share):.1f}"
        yield element("rect", x=left + 8, y=top + height - 4, width=long, height=3, rx=1, fill=bar)
    percent = "" if share is None else share_in_words(share)
    name = part.role + (f"  ×{part.repeats}" if part.repeats > 1 else "")
    kind = "" if _same(part.kind, part.role) else part.kind
    yield _text(right - 8, top + 15, percent, size=10.5, end=True)
    if height == _ROW:
        kind_at, shape_at = left + 11 + _needed(name, 12, bold=True) + 8, right - 58
        yield _text(left + 11, top + 15, name, size=12, bold=True)
        room = shape_at - kind_at - _needed(shape, 10) - 6
        yield _text(kind_at, top + 15, kind, size=10, soft=True, room=room)
        yield _text(shape_at, top + 15, shape, size=10, soft=True, end=True)
        return
    room = box.width - 26 - _needed(percent, 10.5)
    yield _text(left + 11, top + 15, name, size=12, bold=True, room=room)
    room = box.width - 26 - _needed(shape, 10)
    yield _text(left + 11, top + 29, kind, size=10, soft=True, room=room)
    yield _text(right - 8, top + 29, shape, size=10, soft=True, end=True)


def _operation(part: Part, box: _Place, top: int, shape: str) -> Iterator[Markup]:
    """Draw what is no box: a sign in a circle, or words in a pill."""
    centre, half = top + _OPERATION // 2, _half(part)
    yield element("rect", x=box.middle - half, y=top, width=2 * half, height=_OPERATION, rx=10, fill=_GROUND,
                  stroke=_LINE)  # fmt: skip
    size, below = ("14", 5) if len(part.kind) == 1 else ("10.5", 4)
    yield element("text", part.kind, x=box.middle, y=centre + below, font_size=size, text_anchor="middle")
    begin = box.middle + half + 6
    if begin + _needed(shape, 10) <= box.left + box.width + _RIGHT - 4:
        yield _text(begin, centre + 4, shape, size=10, soft=True)
    else:  # below, beside the arrow that leads on
        yield _text(box.middle + 7, top + _OPERATION + 10, shape, size=9.5, soft=True)


def _frame(loop: Loop, left: int, width: int, tops: Sequence[int], ends: Sequence[int]) -> Iterator[Markup]:
    """Draw what holds the steps that come again together."""
    top, bottom = tops[loop.first] - 7, ends[loop.last + 1] + 7
    yield element("rect", x=left + 4, y=top, width=width - 8, height=bottom - top, rx=6, fill="#f3f5f8",
                  stroke=_LINE, stroke_dasharray="4 3")  # fmt: skip
    yield element("rect", x=left + width - 38, y=bottom - 7, width=28, height=14, rx=7, fill=_GROUND,
                  stroke=_LINE)  # fmt: skip
    yield element("text", f"×{loop.repeats}", x=left + width - 24, y=bottom + 4, font_size="11",
                  text_anchor="middle", class_="bold")  # fmt: skip


def shape_in_words(shape: Sequence[int]) -> str:
    """Return channels and size, told by the picture's: "48 · 2H×2W"; empty where it is no picture of one."""
    if len(shape) == 4 and shape[0] == 1:
        channels, height, width = shape[1:]
        if shape[1] == shape[2] != shape[3]:  # channels last
            height, width, channels = shape[1:]
    elif len(shape) == 3 and shape[0] == 1:
        height = width = round(shape[1] ** 0.5)
        channels = shape[2]
        if height * width != shape[1] or height < SIDE:
            return ""  # rows of something else, such as channels against channels
    else:
        return ""
    if height == width == 1:
        return f"{channels} · 1×1"
    sides = [Fraction(side, SIDE) for side in (height, width)]
    if any((side.numerator != 1 and side.denominator != 1) or side.denominator > SIDE // 2 for side in sides):
        return ""
    return f"{channels} · {_side(sides[0], 'H')}×{_side(sides[1], 'W')}"


def share_in_words(share: float) -> str:
    """Return a share in percent, in few digits."""
    percent = 100 * share
    return f"{percent:.0f} %" if percent >= 9.95 else f"{percent:.1f} %" if percent >= 0.05 else "<0.1 %"


def _side(factor: Fraction, name: str) -> str:
    times = "" if factor.numerator == 1 else str(factor.numerator)
    return f"{times}{name}" + ("" if factor.denominator == 1 else f"/{factor.denominator}")


def _same(kind: str, role: str) -> bool:
    return kind.lower().replace(" ", "") == role.lower().replace(" ", "")


def _half(part: Part) -> int:
    """Return half the width of an operation's pill."""
    return 10 if len(part.kind) == 1 else round(_needed(part.kind, 10.5) / 2) + 10


def _line(path: str) -> Markup:
    return element("path", d=path, fill="none", stroke=_LINE, stroke_width="1.3")


def _head(x: int, y: int, *, down: bool) -> Markup:
    path = f"M{x - 4} {y - 6}h8l-4 6z" if down else f"M{x - 6} {y - 4}v8l6 -4z"
    return element("path", d=path, fill=_LINE)


def _needed(words: str, size: float, *, bold: bool = False) -> float:
    """Return how wide words are, or a little more, in the fonts that are usual."""
    return len(words) * size * (0.65 if bold else 0.57)


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    bold: bool = False,
    soft: bool = False,
    end: bool = False,
    room: float | None = None,
) -> Markup:
    """Write words, if any; where they need more than the room, they are smaller."""
    if not words:
        return Markup("")
    if room is not None:
        size = min(size, round(size * room / _needed(words, size, bold=bold), 1))
    names = " ".join(name for name, wanted in (("bold", bold), ("soft", soft)) if wanted)
    return element(
        "text", words, x=f"{x:g}", y=f"{y:g}", font_size=f"{size:g}", class_=names or None,
        text_anchor="end" if end else None,
    )  # fmt: skip
