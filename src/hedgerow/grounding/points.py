"""Units, places and canonical order of points.

A point stands on an image (`image`, counted from 1; a single image needs none) or at a `time` of a video.
What the model reads and writes is coarser than what people annotate: thousandths of width and height,
tenths of a second.
"""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from numbers import Real
from typing import TypeVar, cast

from hedgerow.content import Box, Frame, Point, Points, Tracks
from hedgerow.errors import DataError

Size = tuple[int, int]
G = TypeVar("G", bound=Points | Tracks)

# The most that x and y may be; of pixels, it is the size of the image.
UNITS: dict[Frame, float] = {"fraction": 1.0, "percent": 100.0, "thousandths": 1000.0}


def to_fractions(part: G, *, size: Size | Sequence[Size] | None = None) -> G:
    """Return the part with x, y and boxes as fractions of width and height.

    Args:
        part: points or tracks in the unit their `frame` names.
        size: (width, height) in pixels of the upright image or video; for several images one size each, in
            order. Only pixels need it.

    Raises:
        DataError: a point lies outside its frame, a box has its corners swapped, or a size is unknown.
    """
    points = tuple(_to_fraction(part, number, size) for number in range(len(part.points)))
    return dataclasses.replace(part, points=points, frame="fraction")


def canonical(part: Points) -> Points:
    """Return points as their text tells them: rounded, then sorted by (time or image, x, y), ids 1 to N.

    Sorting comes after rounding, so the text alone fixes the order (as in the public code of arXiv
    2601.10611). Each instance stands once, hence given ids change in nothing but their numbers.

    Args:
        part: points in fractions.

    Raises:
        DataError: a point lies outside the frame, stands at a time and on an image, or an id stands twice.
    """
    part = to_fractions(part)
    for name, count in Counter(point.id for point in part.points).items():
        if name is not None and count > 1:
            raise DataError(
                f"points '{part.label}': id {name} stands {count} times; points hold each instance once, "
                "keep one of them or give tracks"
            )
    ordered = sorted((rounded(part, point) for point in part.points), key=reading_order)
    points = tuple(dataclasses.replace(point, id=number) for number, point in enumerate(ordered, 1))
    return dataclasses.replace(part, points=points)


def rounded(part: Points | Tracks, point: Point) -> Point:
    """Return the point at the precision of its text: thousandths, tenths of a second; image 1 by default.

    Raises:
        DataError: the point stands at a time and on an image.
    """
    check_place(part, point)
    time = None if point.time is None else float(printed_time(point.time))
    image = (point.image or 1) if time is None else None
    x, y = thousandths(point.x) / 1000, thousandths(point.y) / 1000
    return dataclasses.replace(point, x=x, y=y, time=time, image=image)


def reading_order(point: Point) -> tuple[float, float, float, float]:
    """Return by what points are sorted in a text: image, time, x, y."""
    return (point.image or 0, point.time or 0.0, point.x, point.y)


def check_place(part: Points | Tracks, point: Point) -> None:
    """Refuse a point that stands at a time and on an image.

    Raises:
        DataError: it does; the message names the part.
    """
    if point.time is not None and point.image is not None:
        where = f"{part.type} '{part.label}'"
        raise DataError(
            f"{where}: a point stands at {point.time} s and on image {point.image}; keep one of them"
        )


def thousandths(fraction: float) -> int:
    """Return a fraction as whole thousandths."""
    return round(1000 * fraction)


def printed_time(time: float) -> str:
    """Return seconds as every text prints them: one decimal."""
    return f"{time:.1f}"


def head(point: Point) -> str:
    """Return where a point stands as its text says it: `3.5` is a time, `2` an image."""
    return str(point.image or 1) if point.time is None else printed_time(point.time)


def size_at(point: Point, size: Size | Sequence[Size]) -> Size:
    """Return the (width, height) of what a point stands on, from one size or the sizes of several images.

    Raises:
        DataError: the point names an image without a size, or none where there are several.
    """
    single = len(size) > 0 and isinstance(size[0], Real)
    sizes = [cast(Size, size)] if single else cast(Sequence[Size], size)
    if point.time is None and point.image is None and len(sizes) > 1:
        raise DataError(
            f"a point names no image, but there are {len(sizes)}; give it image=1 to {len(sizes)}"
        )
    number = point.image or 1
    if number > len(sizes):
        raise DataError(
            f"a point stands on image {number}, but {len(sizes)} are shown; correct it or add the image"
        )
    return sizes[number - 1]


def _to_fraction(part: Points | Tracks, number: int, size: Size | Sequence[Size] | None) -> Point:
    point = part.points[number]
    where = f"{part.type} '{part.label}': point {number + 1} of {len(part.points)}"
    if part.frame != "pixels":
        width = height = UNITS[part.frame]
    elif not size:
        raise DataError(
            f"{where} is in pixels of an unknown size; pass size=(width, height) or give fractions"
        )
    else:
        width, height = size_at(point, size)
    if not (0 <= point.x <= width and 0 <= point.y <= height):
        raise DataError(
            f"{where} (x={point.x:g}, y={point.y:g}) lies outside its frame '{part.frame}' "
            f'(x 0 to {width:g}, y 0 to {height:g}); correct it, or name its unit with "frame"'
        )
    box = None if point.box is None else _box_to_fraction(where, point.box, width, height)
    return dataclasses.replace(point, x=point.x / width, y=point.y / height, box=box)


def _box_to_fraction(where: str, box: Box, width: float, height: float) -> Box:
    x0, y0, x1, y1 = box
    if x0 > x1 or y0 > y1:
        raise DataError(f"{where} has the box {box}; give its corners as (left, top, right, bottom)")
    return (x0 / width, y0 / height, x1 / width, y1 / height)
