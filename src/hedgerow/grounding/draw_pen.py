"""Marks on a picture: rings, crosses, boxes, fading paths and names, in sizes that follow the picture's.

Everything is drawn on a finer layer of its own and laid over the picture at the end: slanted lines are
smooth, and what fades lets the picture through.
"""

import functools
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

from PIL import Image, ImageColor, ImageDraw, ImageFont

from hedgerow.content import Box

Kind = Literal["true", "predicted"]

_BLACK, _WHITE = "#000000", "#ffffff"
# What surrounds a colour, outermost first. Light colours would not be seen on white with a white halo alone.
_HALOS: dict[Kind, tuple[str, ...]] = {"true": (_BLACK,), "predicted": (_BLACK, _WHITE)}
_FINEST, _FINE = 3, 1500  # pixels of the layer for one of the picture; about how many along its short side
_LEVELS = 24  # steps in which a path fades
_FAINT = 0.1  # opacity of its end
_LIGHT = 140  # of 255: on a lighter colour letters are black


class Stop(NamedTuple):
    """A place on a path in fractions; `age` is 0 at its head and 1 where it has faded."""

    x: float
    y: float
    age: float


class Pen:
    """Draws on a copy of a picture, at places in fractions of its width and height.

    What is true is marked by rings with a dark halo, what was predicted by crosses with a light one: the
    colour or its halo stands out against any background.
    """

    def __init__(self, picture: Image.Image) -> None:
        self._picture = picture.convert("RGB")
        short = min(picture.size)
        self._fine = min(_FINEST, max(1, _FINE // short))
        self._layer = Image.new("RGBA", (picture.width * self._fine, picture.height * self._fine))
        self._draw = ImageDraw.Draw(self._layer)
        self._radius = self._fine * max(4.0, 0.02 * short)
        self._stroke = self._fine * max(2, round(0.006 * short))
        self._halo = self._fine * max(1, round(0.003 * short))
        self._font = font(self._fine * max(10, round(0.035 * short)))
        self._taken: list[Box] = []

    def mark(self, x: float, y: float, colour: str, kind: Kind) -> None:
        """Draw a ring round a place, or a cross on it."""
        self._taken.append(self._around(x, y, self._radius + self._halo))
        for ink, wider in self._inks(colour, kind):
            left, top, right, bottom = corners = self._around(x, y, self._radius + wider)
            width = self._stroke + 2 * wider
            if kind == "true":
                self._draw.ellipse(corners, outline=ink, width=width)
            else:
                self._draw.line((left, top, right, bottom), fill=ink, width=width)
                self._draw.line((left, bottom, right, top), fill=ink, width=width)

    def box(self, box: Box, colour: str, kind: Kind) -> None:
        """Draw the outline of a box (left, top, right, bottom)."""
        left, top, right, bottom = self._frame(box)
        for ink, wider in self._inks(colour, kind):
            corners = (left - wider, top - wider, right + wider, bottom + wider)
            self._draw.rectangle(corners, outline=ink, width=self._stroke + 2 * wider)

    def path(self, stops: Sequence[Stop], colour: str, kind: Kind) -> None:
        """Draw the lines from stop to stop, and a dot at each; what is older than 1 is left out."""
        for ink, wider in self._inks(colour, kind):
            for one, other in _pieces(stops):
                fill = (*ImageColor.getrgb(ink), _opacity((one.age + other.age) / 2))
                ends = (*self._place(one.x, one.y), *self._place(other.x, other.y))
                self._draw.line(ends, fill=fill, width=self._stroke + 2 * wider)
            for stop in stops:
                if stop.age <= 1:
                    corners = self._around(stop.x, stop.y, 0.8 * self._stroke + wider)
                    self._draw.ellipse(corners, fill=(*ImageColor.getrgb(ink), _opacity(stop.age)))

    def name(self, x: float, y: float, text: str, colour: str, *, box: Box | None = None) -> None:
        """Write a name beside a mark or its box: in the picture, and off other marks if there is room."""
        left, top, right, bottom = self._draw.textbbox((0, 0), text, font=self._font)
        edge = self._fine * 2
        size = (self._whole(right - left) + 2 * edge, self._whole(bottom - top) + 2 * edge)
        mark = self._around(x, y, self._radius + self._halo)
        chip = min(self._beside(mark if box is None else self._frame(box), size), key=self._crowd)
        self._taken.append(chip)
        ink = _BLACK if _brightness(colour) > _LIGHT else _WHITE
        self._draw.rectangle(chip, fill=colour, outline=ink, width=self._fine)
        self._draw.text((chip[0] + edge - left, chip[1] + edge - top), text, fill=ink, font=self._font)

    def finished(self) -> Image.Image:
        """Return the picture with everything that was drawn, RGB."""
        layer = self._layer.resize(self._picture.size, Image.Resampling.BOX)
        self._picture.paste(layer, mask=layer)
        return self._picture

    def _inks(self, colour: str, kind: Kind) -> list[tuple[str, int]]:
        """Colours to draw one over the other, and by how much each is wider than the last."""
        inks = (*_HALOS[kind], colour)
        return [(ink, self._halo * (len(inks) - 1 - place)) for place, ink in enumerate(inks)]

    def _place(self, x: float, y: float) -> tuple[float, float]:
        return x * self._layer.width, y * self._layer.height

    def _around(self, x: float, y: float, reach: float) -> Box:
        x, y = self._place(x, y)
        return (x - reach, y - reach, x + reach, y + reach)

    def _frame(self, box: Box) -> Box:
        return (*self._place(*box[:2]), *self._place(*box[2:]))

    def _whole(self, length: float) -> int:
        """Round to whole pixels of the picture, so that edges are sharp."""
        return self._fine * round(length / self._fine)

    def _beside(self, taken: Box, size: tuple[int, int]) -> Iterator[Box]:
        """Places for a name of a size at the corners of what is taken, moved into the picture."""
        left, top, right, bottom = taken
        width, height = size
        corners = (
            (left, top - height), (left, bottom), (right, top), (left - width, top),
            (right, top - height), (right, bottom), (left - width, top - height), (left - width, bottom),
        )  # fmt: skip
        for x, y in corners:
            across = min(max(self._whole(x), 0), self._layer.width - width)
            down = min(max(self._whole(y), 0), self._layer.height - height)
            yield (across, down, across + width - 1, down + height - 1)

    def _crowd(self, chip: Box) -> float:
        """How many pixels of the layer a name shares with marks and other names."""
        return sum(_shared(chip, other) for other in self._taken)


@functools.cache
def font(letters: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Return the font that comes with Pillow, `letters` pixels high."""
    return ImageFont.load_default(letters)


def _pieces(stops: Sequence[Stop]) -> Iterator[tuple[Stop, Stop]]:
    """Parts of a path short enough to have one opacity each, none older than 1."""
    for one, other in pairwise(stops):
        count = max(1, round(_LEVELS * abs(other.age - one.age)))
        cuts = [_between(one, other, number / count) for number in range(count + 1)]
        yield from ((a, b) for a, b in pairwise(cuts) if a.age + b.age <= 2)


def _between(one: Stop, other: Stop, share: float) -> Stop:
    x, y, age = (a + share * (b - a) for a, b in zip(one, other, strict=True))
    return Stop(x, y, age)


def _opacity(age: float) -> int:
    return round(255 * (1 - (1 - _FAINT) * age))


def _brightness(colour: str) -> float:
    red, green, blue = ImageColor.getrgb(colour)[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue


def _shared(one: Box, other: Box) -> float:
    across = min(one[2], other[2]) - max(one[0], other[0])
    down = min(one[3], other[3]) - max(one[1], other[1])
    return max(across, 0.0) * max(down, 0.0)
