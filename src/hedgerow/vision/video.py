"""Videos: the frame that is shown at each moment, at the size a model sees it."""

import math
from collections.abc import Sequence

import numpy as np

from hedgerow.content import Video
from hedgerow.errors import MediaError
from hedgerow.sequence import Array
from hedgerow.vision.container import PyAVSource
from hedgerow.vision.image import Resize, resized
from hedgerow.vision.source import SLACK, Damaged, VideoSource

_PYAV = PyAVSource()


def decode_frames(
    video: Video,
    times: Sequence[float],
    *,
    size: tuple[int, int],
    resize: Resize = "bilinear",
    damaged: Damaged = "refuse",
    source: VideoSource = _PYAV,
) -> Array:
    """Decode the frames that are shown at given times.

    The frame shown at a time is the last one that starts no later than it (within half a tick of the file's
    clock). Frames are upright (display rotation applied). A frame asked for twice is converted once.

    Args:
        video: the file, or a clip of it.
        times: seconds from the start of the clip, in any order.
        size: (height, width) of the result; the aspect ratio is not kept.
        resize: see `hedgerow.vision.image.resized`.
        damaged: what becomes of frames that are missing or damaged, see `VideoSource.shown`.
        source: what reads the file.

    Returns:
        uint8 [F, height, width, 3], one for each time.

    Raises:
        MediaError: a time lies outside the clip, the file is missing or no video, or a frame that is needed
            is missing or damaged.
    """
    span = math.inf if video.end is None else video.end - (video.start or 0.0)
    odd = [time for time in times if not 0 <= time <= span + SLACK]
    if odd:
        raise MediaError(f"{video.path}: {odd[0]:g} s is no time of the clip; give 0 to {span:g} s")
    found = np.empty((len(times), *size, 3), np.uint8)
    order = np.argsort(times, kind="stable")
    moments = [(video.start or 0.0) + times[place] for place in order]
    held = None
    for place, frame in zip(order, source.shown(video.path, moments, damaged=damaged), strict=True):
        if frame is not held:
            held, pixels = frame, resized(frame, size, resize=resize)
        found[place] = pixels
    return found
