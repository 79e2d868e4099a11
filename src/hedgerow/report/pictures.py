"""Images and frames as the model receives them: put together from crops, points drawn on them, and small."""

import math
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Listing
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pixels

from hedgerow.content import Point
from hedgerow.grounding.draw import draw
from hedgerow.grounding.points import printed_time
from hedgerow.report.canvas import Canvas, canvases, whole_views
from hedgerow.report.page import Picture, Tile, small_uri
from hedgerow.sequence import Array, Sequence, VisionInput
from hedgerow.vision.processor import MediaLayout

_LEAST, _MOST = 96, 640  # pixels of the longer side of a picture
_ENLARGED = 240  # pixels of the longer side of one that is smaller
_HATCH = (176, 176, 176), (120, 120, 120)  # of padding: pale and dark stripes
_STRIPE = 4  # pixels


@dataclass(frozen=True, slots=True)
class Shot:
    """A view of an image or a frame of a video, `media` of a tree, and what it is called.

    `time` is that of a frame, `first` the number of the media's first crop; `small` is the first view of an
    image, which shows it whole.
    """

    media: int
    canvas: Canvas
    caption: str
    time: float | None
    first: int
    small: bool = False

    def on(self, points: Listing[Listing[Point]]) -> list[Point]:
        """Return those of the points of each media that stand on it."""
        own = points[self.media] if points else []
        if self.time is None:
            return list(own)
        printed = printed_time(self.time)
        return [point for point in own if point.time is not None and printed_time(point.time) == printed]


def shots(vision: VisionInput, layouts: Listing[MediaLayout]) -> Iterator[Shot]:
    """Yield all views and frames, in the order of their slots.

    Of media that the processor of another library cuts into tiles, the tiles that show all of an image or a
    frame. A video whose frames are read in groups gives the first of each.

    Args:
        vision: of a sequence.
        layouts: of its media, in order.
    """
    if vision.images is not None and vision.crops.ndim == 4:
        yield from _whole(vision, layouts)
        return
    grids = canvases(vision)
    crop = images = 0
    for number, layout in enumerate(layouts):
        views = [next(grids) for _ in layout.grids]
        if layout.times:
            together = -(-len(layout.times) // len(views[0]))
            for canvas, time in zip(views[0], layout.times[::together], strict=True):
                yield Shot(number, canvas, f"{printed_time(time)} s", time, crop)
        else:
            images += 1
            for place, (canvas,) in enumerate(views):
                small = not place
                yield Shot(number, canvas, _caption(images, canvas, small=small), None, crop, small)
        crop += layout.crops


def _whole(vision: VisionInput, layouts: Listing[MediaLayout]) -> Iterator[Shot]:
    views = whole_views(vision)
    first = images = 0
    for number, layout in enumerate(layouts):
        images += not layout.times
        count = layout.crops // max(len(layout.times), 1)
        for time in layout.times or (None,):
            canvas = next(views)
            told = f"image {images}" if time is None else f"{printed_time(time)} s"
            parts = f", whole among {count} crops" if count > 1 else ""
            if canvas is not None:
                yield Shot(number, canvas, told + parts, time, first, small=time is None)
        first += layout.crops


def _caption(image: int, canvas: Canvas, *, small: bool) -> str:
    crops = len(canvas.regions())
    return f"image {image}" if small else f"image {image}, of {crops} crop{'' if crops == 1 else 's'}"


def evenly(found: Listing[Shot], most: int) -> list[Shot]:
    """Choose some shots, evenly spread; the first and the last are among them."""
    if len(found) <= most:
        return list(found)
    return [found[int(place)] for place in np.linspace(0, len(found) - 1, most).round()]


def taken(
    shot: Shot,
    vision: VisionInput,
    size: tuple[int, int],
    *,
    true: Listing[Point] = (),
    predicted: Listing[Point] = (),
    room: int,
) -> Picture:
    """Return a shot as a picture of a page.

    Args:
        shot: what to show.
        vision: of the sequence.
        size: (width, height) of the source; a crop is squeezed to a square, a picture has this shape again.
        true: points to draw as rings.
        predicted: points to draw as crosses.
        room: characters it may take, unless it is of the least size.
    """
    pixels = shot.canvas.pixels(vision)

    def make(side: int) -> Pixels.Image:
        return _framed(shot.canvas, pixels, size, side, true, predicted)

    longest = min(max(_ENLARGED, *pixels.shape[:2]), _MOST)
    picture, source = _fitted(make, longest, room)
    regions = shot.canvas.regions() if shot.canvas.crop > 1 else []  # a crop may be one patch
    tiles = [Tile(f"{r.crop - shot.first}", r.left, r.top, r.width, r.height) for r in regions]
    padded = shot.canvas.padded
    caption = (
        f"{shot.caption}, {padded} of {math.prod(shot.canvas.grid)} windows padded"
        if padded
        else shot.caption
    )
    return Picture(source, caption, picture.size, shot.canvas.grid, tiles if len(tiles) > 1 else ())


def _framed(
    canvas: Canvas,
    pixels: Array,
    size: tuple[int, int],
    side: int,
    true: Listing[Point],
    predicted: Listing[Point],
) -> Pixels.Image:
    """The picture of a canvas in the shape of its source, `side` pixels long, its padding hatched."""
    lines, columns = canvas.inside
    height, width = canvas.patches.shape
    pixel = pixels.shape[0] // height
    part = pixels[lines.start * pixel : lines.stop * pixel, columns.start * pixel : columns.stop * pixel]
    scale = side / max(size)
    shape = max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)
    larger = shape[0] > part.shape[1] or shape[1] > part.shape[0]
    way = Pixels.Resampling.NEAREST if larger else Pixels.Resampling.LANCZOS
    picture = draw(
        Pixels.fromarray(np.ascontiguousarray(part)).resize(shape, way), true=true, predicted=predicted
    )
    across, down = shape[0] / (columns.stop - columns.start), shape[1] / (lines.stop - lines.start)
    whole = round(across * width), round(down * height)
    if whole == shape:
        return picture
    x, y = np.meshgrid(np.arange(whole[0]), np.arange(whole[1]))
    stripes = np.array(_HATCH, np.uint8)[(x + y) // _STRIPE % 2]
    framed = Pixels.fromarray(stripes)
    framed.paste(picture, (round(columns.start * across), round(lines.start * down)))
    return framed


def _fitted(make: Callable[[int], Pixels.Image], longest: int, room: int) -> tuple[Pixels.Image, str]:
    """Make a picture so small that it fits, but no smaller than the least size; return it and its data."""
    side = max(min(longest, int(math.sqrt(10 * room))), _LEAST)
    while True:
        picture = make(side)
        source = small_uri(picture)
        if len(source) <= room or side == _LEAST:
            return picture, source
        side = max(int(side * min(0.9, 0.97 * math.sqrt(room / len(source)))), _LEAST)


def pictures(
    sequence: Sequence,
    layouts: Listing[MediaLayout],
    true: Listing[Listing[Point]],
    *,
    most: int,
    room: int,
) -> tuple[list[Picture], int]:
    """Return pictures of a sequence's media, and of how many they were chosen.

    Args:
        sequence: encoded with its pixels.
        layouts: of its media, in order.
        true: points of each of them.
        most: how many pictures at most.
        room: characters that they may take together; larger canvases get more of it.
    """
    if sequence.vision is None or not most:
        return [], 0
    every = list(shots(sequence.vision, layouts))
    chosen = evenly(every, most)
    amount = sum(shot.canvas.patches.size for shot in chosen)
    found = [
        taken(
            shot,
            sequence.vision,
            layouts[shot.media].size,
            true=shot.on(true),
            room=room * shot.canvas.patches.size // amount,
        )
        for shot in chosen
    ]
    return found, len(every)
