"""Points and tracks of answers, drawn on the images and frames that the model saw."""

import dataclasses
import math
from collections.abc import Iterable
from collections.abc import Sequence as Listing
from itertools import pairwise
from pathlib import Path

import numpy as np
import PIL.Image

from hedgerow.ask.asking import Asked, View
from hedgerow.content import Image, Media, Point, Points, Tracks, Video
from hedgerow.errors import RecipeError
from hedgerow.grounding.draw import contact_sheet, draw_frames
from hedgerow.grounding.points import printed_time
from hedgerow.vision.drawn import write_animation
from hedgerow.vision.image import load_image
from hedgerow.vision.source import Damaged
from hedgerow.vision.video import decode_frames

Part = Points | Tracks

_ANIMATED = (".gif", ".mp4")
_MOST = 400_000_000  # bytes of the frames of a video, which are in memory twice
_FASTEST = 50  # pictures a second of an animation
_COLUMNS, _WIDTH = 4, 480  # of a sheet of several pictures: how many side by side, and pixels of each


def check_drawable(path: Path, media: Listing[Media]) -> None:
    """Refuse a file that cannot be drawn, before anything is asked.

    Raises:
        RecipeError: the name has another ending than .png, .gif or .mp4, the folder does not exist, or there
            is nothing to draw on.
    """
    kind = path.suffix.lower()
    if kind not in (".png", *_ANIMATED):
        raise RecipeError(f"{path}: drawn as PNG, GIF or MP4; give a name that ends in .png, .gif or .mp4")
    if not path.parent.is_dir():
        raise RecipeError(f"{path}: there is no folder {path.parent}; make it, or give another name")
    if not media:
        raise RecipeError(f"{path}: nothing is shown that could be drawn on; name an image or a video")
    if kind in _ANIMATED and not any(isinstance(item, Video) for item in media):
        raise RecipeError(f"{path}: an animation is drawn on a video; give a name that ends in .png")


def draw(asked: Asked, path: str | Path, *, damaged: Damaged = "refuse") -> int:
    """Draw the points and tracks of all answers, crosses in the colours of their ids, on what was shown.

    As PNG one image is drawn in its own size; several images, or the sampled frames of a video, stand side by
    side. An animation has the sampled frames of the last video, as large as the file's if all of them take
    400 MB at most, and plays as fast as the video.

    Args:
        asked: answers.
        path: a new file or one to replace: `NAME.png`, `NAME.gif` or `NAME.mp4`.
        damaged: what becomes of frames that are missing or damaged, as it was when they were encoded.

    Returns:
        how many points stand on nothing that was shown, and are left out.

    Raises:
        RecipeError: see `check_drawable`.
        MediaError: a file cannot be read any more.
    """
    path = Path(path)
    check_drawable(path, [view.media for view in asked.views])
    parts = [part for said in asked.said for part in said.parsed.parts]
    images = [view for view in asked.views if isinstance(view.media, Image)]
    videos = [view for view in asked.views if isinstance(view.media, Video)][-1:]  # which times are of
    if path.suffix.lower() in _ANIMATED:
        times = videos[0].layout.times
        write_animation(path, _frames(videos[0], parts, damaged), rate=_rate(times))
    else:
        pictures = [_image(view, number, parts) for number, view in enumerate(images, 1)]
        captions = [f"image {number}" for number in range(1, len(images) + 1)]
        for view in videos:
            pictures += _frames(view, parts, damaged)
            captions += [f"{printed_time(time)} s" for time in view.layout.times]
        _sheet(pictures, captions).save(path)
    seen = {printed_time(time) for view in videos for time in view.layout.times}
    return sum(not _stands(point, seen, len(images)) for part in parts for point in part.points)


def _image(view: View, number: int, parts: Iterable[Part]) -> PIL.Image.Image:
    """Draw what stands on an image, which is a frame at 0 s to what draws."""
    assert isinstance(view.media, Image)
    own = [
        dataclasses.replace(
            part,
            points=tuple(
                dataclasses.replace(point, image=None, time=0.0)
                for point in part.points
                if point.time is None and (point.image or 1) == number
            ),
        )
        for part in parts
    ]
    return draw_frames([np.asarray(load_image(view.media))], [0.0], predicted=own, trail=0.0)[0]


def _frames(view: View, parts: Listing[Part], damaged: Damaged) -> list[PIL.Image.Image]:
    assert isinstance(view.media, Video)
    times, (width, height) = view.layout.times, view.layout.size
    scale = min(1.0, math.sqrt(_MOST / (len(times) * width * height * 3)))
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    frames = decode_frames(view.media, times, size=size, resize="area", damaged=damaged)
    return draw_frames(frames, times, predicted=parts)


def _rate(times: Listing[float]) -> int:
    """Pictures a second at which frames play about as fast as their video."""
    gaps = [after - before for before, after in pairwise(times)]
    return 1 if not gaps else min(max(round(1 / float(np.median(gaps))), 1), _FASTEST)


def _sheet(pictures: list[PIL.Image.Image], captions: list[str]) -> PIL.Image.Image:
    if len(pictures) == 1:
        return pictures[0]
    return contact_sheet(pictures, captions, columns=_COLUMNS, width=_WIDTH)


def _stands(point: Point, times: set[str], images: int) -> bool:
    return (point.image or 1) <= images if point.time is None else printed_time(point.time) in times
