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

from hedgerow.report.figure import Figure
from hedgerow.report.shades import Shades

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
class Tile:
    """A part of a picture with a name, in fractions of its width and height."""

    name: str
    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture with a caption, for `Pictures` and `Tree`; `source` is a data URI from `small_uri`.

    `size` is (width, height) in pixels, where it is known. Over it lie lines of a `grid` of (rows, columns),
    and borders of `tiles`.
    """

    source: str
    caption: str
    size: tuple[int, int] = (0, 0)
    grid: tuple[int, int] = (0, 0)
    tiles: Sequence[Tile] = ()


@dataclass(frozen=True, slots=True)
class Pictures:
    """Pictures side by side."""

    pictures: Sequence[Picture]
    kind: str = field(default="pictures", init=False)


@dataclass(frozen=True, slots=True)
class Token:
    """Tokens of one weight that follow each other; `weight` is None where there is no loss.

    `parts` are their text, each with whether it is that of special tokens.
    """

    parts: Sequence[tuple[str, bool]]
    weight: float | None
    count: int = 1

    @property
    def text(self) -> str:
        """All of their text."""
        return "".join(text for text, _ in self.parts)


@dataclass(frozen=True, slots=True)
class Branch:
    """One node of a shown tree; `label` is short, `title` says all."""

    title: str
    depth: int
    tokens: Sequence[Token]
    label: str = ""


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a tree: a `kind` to look for, and what it comes to."""

    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Tree:
    """A tree as the model sees it: frames with annotations, then every node's tokens.

    Branches are depth first, and the root has depth 0. `facts` stand beside the title, `tasks` are those of
    its answers with how many there are, `notes` say more of its problems. `pictures` were chosen from `of`.
    """

    title: str
    pictures: Sequence[Picture]
    branches: Sequence[Branch]
    shades: Shades
    facts: str = ""
    tasks: Mapping[str, int] = field(default_factory=dict)
    problems: Sequence[Problem] = ()
    notes: Sequence[str] = ()
    of: int = 0
    kind: str = field(default="tree", init=False)


@dataclass(frozen=True, slots=True)
class Missing:
    """An example that is not there, and why, for `Trees`."""

    where: str
    reason: str


@dataclass(frozen=True, slots=True)
class Trees:
    """Many trees, 50 a page, to be filtered by task, problem and words; weights are shaded alike on all.

    `missing` come after the trees. The number of a tree in the page's addresses is its place, from 0.
    """

    trees: Sequence[Tree]
    missing: Sequence[Missing]
    shades: Shades
    kind: str = field(default="trees", init=False)


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a packed row: `share` of the row's budget, `tone` one of vision, text, answer, empty."""

    share: float
    tone: str
    note: str


@dataclass(frozen=True, slots=True)
class Placed:
    """A tree in a packed row; `link` is the address of the tree on the page, if it is shown."""

    name: str
    pieces: Sequence[Piece]
    link: str = ""


@dataclass(frozen=True, slots=True)
class Fill:
    """How much of one budget a row holds."""

    name: str
    used: int
    most: int

    @property
    def share(self) -> float:
        """The part that is used, 0 to 1."""
        return self.used / self.most if self.most else 0.0


@dataclass(frozen=True, slots=True)
class Packed:
    """A packed row, drawn as its trees side by side, with what it holds and who sees whom on it."""

    title: str
    trees: Sequence[Placed]
    fills: Sequence[Fill] = ()
    mask: Figure | None = None
    kind: str = field(default="packed", init=False)


@dataclass(frozen=True, slots=True)
class Section:
    """A headed part of a page."""

    title: str
    blocks: Sequence[Any]


def write_page(path: str | Path, title: str, sections: Sequence[Section], *, subtitle: str = "") -> Path:
    """Write a page and return its path; the file is replaced whole."""
    loader = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["show"] = show
    environment.filters["exact"] = exact_uri
    environment.filters["plain"] = plain
    environment.tests["number"] = lambda value: isinstance(value, int | float)
    paged = any(getattr(block, "kind", "") == "trees" for section in sections for block in section.blocks)
    template = environment.get_template("page.html")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".part")
    try:
        with temporary.open("w", encoding="utf-8") as file:  # piece by piece: a page of many trees is long
            file.writelines(template.generate(title=title, subtitle=subtitle, sections=sections, paged=paged))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def small_uri(picture: Pixels.Image) -> str:
    """Return a picture as the data URI of a WebP file, which takes half of what JPEG does at small sizes."""
    return _uri(picture.convert("RGB"), "webp", quality=75)


def exact_uri(picture: Pixels.Image) -> str:
    """Return a drawing of few colours as the data URI of a PNG file, which loses nothing."""
    colours = picture.getcolors(256)
    small = picture if colours is None else picture.quantize(len(colours), dither=Pixels.Dither.NONE)
    return _uri(small, "png", optimize=True)


def _uri(picture: Pixels.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return f"data:image/{kind};base64," + base64.b64encode(buffer.getvalue()).decode()


def plain(text: str) -> Markup:
    """Write text between tags, where quotes and > mean nothing: tokens are full of both."""
    return Markup(text.replace("&", "&amp;").replace("<", "&lt;"))


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
