"""Points on pictures: what is true as a ring (and its box), what was predicted as a cross; a colour an id."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from hedgerow.content import Point

_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4",
    "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#ffe119",
)  # fmt: skip
_TRUE_HALO, _PREDICTED_HALO = "#000000", "#ffffff"

_Corners = tuple[float, float, float, float]


def draw(picture: Image.Image, *, true: Sequence[Point] = (), predicted: Sequence[Point] = ()) -> Image.Image:
    """Return an RGB copy of the picture with points on it.

    Args:
        picture: one image or frame, upright.
        true: points of this frame in fractions: a ring each, and a rectangle if it has a box.
        predicted: points of this frame in fractions: a cross each.
    """
    picture = picture.convert("RGB")
    pen = ImageDraw.Draw(picture)
    width, height = picture.size
    radius = max(4.0, 0.02 * height)
    for point in true:
        x, y = point.x * width, point.y * height
        corners = (x - radius, y - radius, x + radius, y + radius)
        for colour, stroke in _strokes(point, radius, _TRUE_HALO):
            pen.ellipse(corners, outline=colour, width=stroke)
            if point.box is not None:
                pen.rectangle(_scaled(point.box, width, height), outline=colour, width=stroke)
    for point in predicted:
        x, y = point.x * width, point.y * height
        for colour, stroke in _strokes(point, radius, _PREDICTED_HALO):
            pen.line((x - radius, y - radius, x + radius, y + radius), fill=colour, width=stroke)
            pen.line((x - radius, y + radius, x + radius, y - radius), fill=colour, width=stroke)
    return picture


def colour_of(point: Point) -> str:
    """Return the colour of a point as `#rrggbb`, the same for the same id."""
    return _COLOURS[((point.id or 1) - 1) % len(_COLOURS)]


def _strokes(point: Point, radius: float, halo: str) -> tuple[tuple[str, int], tuple[str, int]]:
    # A stroke below the coloured one keeps the mark visible on any background.
    thin = max(2, round(radius / 4))
    return (halo, thin + 2), (colour_of(point), thin)


def _scaled(box: _Corners, width: int, height: int) -> _Corners:
    return (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
