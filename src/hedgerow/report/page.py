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
_WIDTH, _HEIGHT, _MARGIN = 560, 240, 46


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
    """Lines over a shared x axis; `series` maps a name to its (x, y) points."""

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    x: str
    y: str
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
    """One token as shown: `shade` from 0 to 1 is its weight beside the tree's greatest, None without loss."""

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
    """A tree as the model sees it: frames with annotations, then every node's tokens."""

    title: str
    pictures: Sequence[Picture]
    branches: Sequence[Branch]
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


def _svg(chart: Chart) -> Markup:
    points = [point for line in chart.series.values() for point in line if math.isfinite(point[1])]
    if not points:
        return Markup("<p>Nothing to draw yet.</p>")
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    low, high = min(0.0, *(y for _, y in points)), max(y for _, y in points)
    wide, tall = (right - left) or 1.0, (high - low) or 1.0

    def at(x: float, y: float) -> str:
        across = _MARGIN + (x - left) / wide * (_WIDTH - _MARGIN - 8)
        return f"{across:.1f},{_HEIGHT - 30 - (y - low) / tall * (_HEIGHT - 44):.1f}"

    drawn = [
        Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}">').format(_WIDTH, _HEIGHT, chart.title),
        *_axes(low, high, left, right, at),
    ]
    for number, (name, line) in enumerate(chart.series.items()):
        path = " ".join(at(x, y) for x, y in _thin(line) if math.isfinite(y))
        colour = COLOURS[number % len(COLOURS)]
        drawn.append(
            Markup(
                '<polyline points="{}" fill="none" stroke="{}" stroke-width="1.6"><title>{}</title>'
                "</polyline>"
            ).format(path, colour, name)
        )
    drawn.append(
        Markup('<text x="{}" y="{}" text-anchor="end">{}</text></svg>').format(
            _WIDTH - 8, _HEIGHT - 2, chart.x
        )
    )
    legend = [
        Markup('<span><i style="background:{}"></i>{}</span>').format(COLOURS[n % len(COLOURS)], name)
        for n, name in enumerate(chart.series)
    ]
    return Markup("").join([*drawn, Markup('<div class="legend">'), *legend, Markup("</div>")])


def _axes(low: float, high: float, left: float, right: float, at: Any) -> list[Markup]:
    lines = []
    for part in range(5):
        level = low + (high - low) * part / 4
        (_, y), (end, _) = at(left, level).split(","), at(right, level).split(",")
        lines.append(
            Markup(
                '<line x1="{}" x2="{}" y1="{}" y2="{}" class="grid"/>'
                '<text x="{}" y="{}" text-anchor="end">{}</text>'
            ).format(_MARGIN, end, y, y, _MARGIN - 5, float(y) + 4, show(float(level)))
        )
    for x in (left, right):
        place = at(x, low).split(",")[0]
        anchor = "start" if x == left else "end"
        lines.append(
            Markup('<text x="{}" y="{}" text-anchor="{}">{}</text>').format(
                place, _HEIGHT - 16, anchor, show(float(x))
            )
        )
    return lines


def _thin(line: Sequence[tuple[float, float]], most: int = 240) -> list[tuple[float, float]]:
    """Average neighbours so that a long run stays a small drawing."""
    size = max(-(-len(line) // most), 1)
    groups = [line[start : start + size] for start in range(0, len(line), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]
