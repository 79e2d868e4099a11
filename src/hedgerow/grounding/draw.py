"""Points on pictures: what is true as a ring (and its box), what was predicted as a cross; a colour an id.

A contact sheet puts many pictures on one.
"""

import functools
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from hedgerow.content import Point

_COLOURS = (
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4",
    "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#ffe119",
)  # fmt: skip
_TRUE_HALO, _PREDICTED_HALO = "#000000", "#ffffff"

_GAP, _LINE, _LETTERS = 8, 16, 12  # pixels: between pictures, of a line of text, of its letters

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


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int, width: int
) -> Image.Image:
    """Return pictures side by side, row after row, each with its caption below it.

    Args:
        pictures: of any sizes, one at least; each is scaled to `width`, and stands at the top of its place.
        captions: one for each picture; lines that are too long are broken between words.
        columns: pictures in a row.
        width: pixels of a picture.

    Raises:
        ValueError: there is no picture, or not one caption for each.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures, {len(captions)} captions: give one caption for each")
    scaled = [picture.convert("RGB").resize((width, _height(picture, width))) for picture in pictures]
    texts = [_broken(caption, width) for caption in captions]
    tall = max(picture.height for picture in scaled)
    row = tall + _LINE * max(len(lines) for lines in texts) + 2 * _GAP
    across = min(columns, len(pictures))
    size = (across * (width + _GAP) + _GAP, -(-len(pictures) // across) * row + _GAP)
    sheet = Image.new("RGB", size, "#ffffff")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(scaled, texts, strict=True)):
        left, top = _GAP + number % across * (width + _GAP), _GAP + number // across * row
        sheet.paste(picture, (left, top))
        pen.multiline_text((left, top + tall + _GAP // 2), "\n".join(lines), fill="#000000", font=_font())
    return sheet


def colour_of(point: Point) -> str:
    """Return the colour of a point as `#rrggbb`, the same for the same id."""
    return _COLOURS[((point.id or 1) - 1) % len(_COLOURS)]


def _height(picture: Image.Image, width: int) -> int:
    return max(1, round(picture.height * width / picture.width))


@functools.cache
def _font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    return ImageFont.load_default(_LETTERS)


def _broken(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and _font().getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def _strokes(point: Point, radius: float, halo: str) -> tuple[tuple[str, int], tuple[str, int]]:
    # A stroke below the coloured one keeps the mark visible on any background.
    thin = max(2, round(radius / 4))
    return (halo, thin + 2), (colour_of(point), thin)


def _scaled(box: _Corners, width: int, height: int) -> _Corners:
    return (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
