"""The one HTML builder: texts, tables, charts, pictures, trees and rows become one self-contained page."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image as Pixels

COLOURS = ("#2f6db5", "#c2571a", "#2e8b57", "#9b3fa5", "#a8861d", "#c0395b", "#4c7f86", "#7a6a58")
_WIDTH, _HEIGHT, _MARGIN, _PAD = 560, 240, 46, 14  # units of a chart; the last is free beside the points
_LETTER = 6.6  # units of a digit of an axis at most
_MARKED = 24  # points of a line that is drawn with marks and dashes, at most
_DASHES = ("", "8 4", "2 4", "10 3 2 3")


@dataclass(frozen=True, slots=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A table; numbers are set to the right."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    kind: str = field(default="table", init=False)


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over a shared x axis; `series` maps a name to its (x, y) points, `bars` to (x, low, high).

    Lines of few points have a mark at each, and dashes that let an equal line be seen below.
    """

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
    bars: Mapping[str, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    kind: str = field(default="chart", init=False)

    def svg(self) -> Markup:
        """Return the chart as inline SVG."""
        return _svg(self)


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with a caption, for `Pictures` and `Tree`; `source` is a data URI from `data_uri`."""

    source: str
    caption: str


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    kind: str = field(default="pictures", init=False)


@dataclass(frozen=True, slots=True)
class Token:
    """One token as shown: `shade` from 0 to 1 tells its weight, below 0 a negative one; None without loss."""

    text: str
    shade: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Branch:
    """One node of a shown tree."""

    title: str
    depth: int
    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as the model sees it: frames with annotations, then every node's tokens.

    `scale` are tokens that explain the shades.
    """

    title: str
    pictures: Sequence[Picture]
    branches: Sequence[Branch]
    scale: Sequence[Token] = ()
    kind: str = field(default="tree", init=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a packed row: `share` of the row's budget, `tone` one of vision, text, answer, empty."""

    share: float
    tone: str
    note: str


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed row, drawn as its trees side by side."""

    title: str
    trees: Sequence[tuple[str, Sequence[Piece]]]
    kind: str = field(default="packed", init=False)


@dataclass(frozen=True, slots=True)
class Section:
    """A headed part of a page."""

    title: str
    blocks: Sequence[Any]


def write_page(path: str | Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> Path:
    """Write a page and return its path; the file is replaced whole."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["show"] = show
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    page = environment.get_template("page.html").render(title=title, subtitle=subtitle, sections=sections)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    temporary.write_text(page, encoding="utf-8")
    temporary.replace(path)
    return path


def data_uri(picture: Pixels.Image, *, quality: int = 80) -> str:
    """Return a picture as a JPEG data URI."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def show(value: object) -> str:
    """Format a cell: floats with three digits that count, whole numbers with separators, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where values stand in a drawing: x from `left` to `right`, y from the first to the last of `ticks`."""

    left: float
    right: float
    ticks: Sequence[float]

    @property
    def margin(self) -> float:
        return max(_MARGIN, 8 + _LETTER * max(len(show(tick)) for tick in self.ticks))

    def across(self, x: float) -> float:
        first, last = self.margin + _PAD, _WIDTH - 8 - _PAD
        if self.left == self.right:
            return (first + last) / 2
        return first + (x - self.left) / (self.right - self.left) * (last - first)

    def down(self, y: float) -> float:
        low, high = self.ticks[0], self.ticks[-1]
        return _HEIGHT - 30 - (y - low) / (high - low) * (_HEIGHT - 44)

    def drawn(self) -> list[Markup]:
        """Lines at the ticks with their values, and the ends of the x axis."""
        level = Markup(
            '<line x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}" class="grid"/>'
            '<text x="{}" y="{:.1f}" text-anchor="end">{}</text>'
        )
        lines = [
            level.format(self.margin, _WIDTH - 8, y, y, self.margin - 5, y + 4, show(tick))
            for tick, y in ((tick, self.down(tick)) for tick in self.ticks)
        ]
        end = Markup('<text x="{:.1f}" y="{}" text-anchor="middle">{}</text>')
        for x in dict.fromkeys((self.left, self.right)):
            lines.append(end.format(self.across(x), _HEIGHT - 16, show(float(x))))
        return lines


def _svg(chart: Chart) -> Markup:
    lines = {
        name: [point for point in _thin(line) if math.isfinite(point[1])]
        for name, line in chart.series.items()
    }
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("<p>Nothing to draw yet.</p>")
    ends = [end for bars in chart.bars.values() for _, *both in bars for end in both]
    heights = [y for _, y in points] + ends
    places = [x for x, _ in points]
    axes = _Axes(min(places), max(places), _ticks(min(0.0, *heights), max(heights)))
    drawn = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, chart.title),
        *axes.drawn(),
    ]
    shift = 3.0  # equal intervals of two lines stand side by side
    for number, (name, line) in enumerate(lines.items()):
        beside = shift * (number - (len(chart.bars) - 1) / 2)
        drawn += [*_bars(chart.bars.get(name, ()), axes, number, beside), *_line(name, line, axes, number)]
    drawn.append(
        Markup('<text x="{}" y="10">{}</text><text x="{}" y="{}" text-anchor="end">{}</text></svg>').format(
            axes.margin, chart.y, _WIDTH - 8, _HEIGHT - 2, chart.x
        )
    )
    return Markup("").join([*drawn, _legend(lines)])


def _line(name: str, line: Sequence[tuple[float, float]], axes: _Axes, number: int) -> list[Markup]:
    """A line, and rings at its points that are larger than those of the lines before."""
    colour, few = _colour(number), len(line) <= _MARKED
    places = [(axes.across(x), axes.down(y)) for x, y in line]
    drawn = [
        Markup(
            '<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6" stroke-dasharray="{}">'
            "<title>{}</title></polyline>"
        ).format(" ".join(f"{x:.1f},{y:.1f}" for x, y in places), colour, _dashes(number, few=few), name)
    ]
    ring = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="{:.1f}" fill="{}" stroke="{}" stroke-width="1.3"/>')
    inside = "none" if number else colour
    return drawn + [ring.format(x, y, 2.4 + 1.8 * number, inside, colour) for x, y in places if few]


def _bars(
    bars: Sequence[tuple[float, float, float]], axes: _Axes, number: int, beside: float
) -> list[Markup]:
    """Intervals as lines from low to high."""
    bar = Markup(
        '<line x1="{0:.1f}" x2="{0:.1f}" y1="{1:.1f}" y2="{2:.1f}" stroke="{3}" stroke-width="1.6"/>'
    )
    return [
        bar.format(axes.across(x) + beside, axes.down(low), axes.down(high), _colour(number))
        for x, low, high in bars
    ]


def _legend(lines: Mapping[str, Sequence[tuple[float, float]]]) -> Markup:
    entry = Markup('<span><i class="key" style="background:{}"></i>{}</span>')
    named = []
    for number, (name, line) in enumerate(lines.items()):
        colour, dashes = _colour(number), _dashes(number, few=len(line) <= _MARKED)
        look = colour
        if dashes:
            on, off = dashes.split()[:2]
            look = f"repeating-linear-gradient(90deg,{colour} 0 {on}px,transparent 0 {int(on) + int(off)}px)"
        named.append(entry.format(look, name))
    return Markup('<div class="legend">{}</div>').format(Markup("").join(named))


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _dashes(number: int, *, few: bool) -> str:
    return _DASHES[number % len(_DASHES)] if few else ""


def _ticks(low: float, high: float) -> list[float]:
    """Four to eight round values, equally far apart, the first not above and the last not below."""
    apart = (high - low) or 1.0
    scale = 10.0 ** math.floor(math.log10(apart / 4))
    step = scale * max(size for size in (1, 2, 2.5, 5) if size * scale <= apart / 4)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + apart) / step - 1e-9)
    return [number * step for number in range(first, last + 1)]


def _thin(line: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """Average neighbours so that a long run stays a small drawing."""
    size = max(-(-len(line) // most), 1)
    groups = [line[start : start + size] for start in range(0, len(line), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
