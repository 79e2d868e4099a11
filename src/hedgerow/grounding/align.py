"""Times of points and tracks, moved to the frames that a model sees."""

import dataclasses
from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding.points import G, check_place, printed_time

_SLACK = 1e-6  # seconds; sampled times are sums of floats


def align(part: G, times: Sequence[float], *, images: int = 0) -> G:
    """Return the part with the printed times (one decimal) of sampled frames, and of no others.

    A point moves to the nearest sampled frame. Of a track, each object keeps for each sampled frame the
    annotation nearest to it; the others are left out, as the frames between the sampled ones are. Near is
    within half the largest spacing of neighbouring samples (0.5 s of a single frame).

    Args:
        part: points or tracks, times in seconds from the start of the clip.
        times: times of the sampled frames in seconds, in any order; empty without a video.
        images: how many images are shown.

    Raises:
        DataError: a point is near no frame, or the image or video it stands on is not shown or not named.
    """
    frames = sorted(set(times))
    if isinstance(part, Tracks):
        return dataclasses.replace(part, points=_align_tracks(part, frames))
    points = tuple(_align_point(part, point, frames, images) for point in part.points)
    return dataclasses.replace(part, points=points)


def _align_point(part: Points, point: Point, frames: Sequence[float], images: int) -> Point:
    check_place(part, point)
    if point.time is None:
        return _check_image(part, point, images, has_video=bool(frames))
    _check_video(part, frames)
    frame = _nearest(frames, point.time)
    if abs(frame - point.time) > _reach(frames):
        raise DataError(_far(part, frames, f"a point at {point.time:g} s"))
    return dataclasses.replace(point, time=float(printed_time(frame)))


def _align_tracks(part: Tracks, frames: Sequence[float]) -> tuple[Point, ...]:
    if not part.points:
        return ()
    _check_video(part, frames)
    reach = _reach(frames)
    best: dict[tuple[int | None, str], tuple[float, Point]] = {}
    for point in part.points:
        time = point.time or 0.0
        frame = _nearest(frames, time)
        distance, key = abs(frame - time), (point.id, printed_time(frame))
        if distance <= reach and (key not in best or distance < best[key][0]):
            best[key] = (distance, point)
    if not best:
        # Empty tracks would be written as "none", which nobody said.
        raise DataError(_far(part, frames, "all its points"))
    return tuple(dataclasses.replace(point, time=float(time)) for (_, time), (_, point) in best.items())


def _check_image(part: Points, point: Point, images: int, *, has_video: bool) -> Point:
    where = f"points '{part.label}'"
    if point.image is None and (has_video or images > 1):
        raise DataError(f"{where}: a point has neither time nor image; say which frame or image it stands on")
    image = point.image or 1
    if image > images:
        raise DataError(
            f"{where}: a point stands on image {image}, but {images} are shown; correct it or add the image"
        )
    return dataclasses.replace(point, image=image)


def _check_video(part: Points | Tracks, frames: Sequence[float]) -> None:
    if not frames:
        raise DataError(
            f"{part.type} '{part.label}' have times, but no video is shown; add it or leave out the times"
        )


def _nearest(frames: Sequence[float], time: float) -> float:
    after = bisect_left(frames, time)
    return min(frames[max(after - 1, 0) : after + 1], key=lambda frame: abs(frame - time))


def _reach(frames: Sequence[float]) -> float:
    spacing = max((after - before for before, after in pairwise(frames)), default=1.0)
    return spacing / 2 + _SLACK


def _far(part: Points | Tracks, frames: Sequence[float], what: str) -> str:
    return (
        f"{part.type} '{part.label}': {what} lie farther than {_reach(frames):.2f} s from the sampled frames "
        f"({frames[0]:g} to {frames[-1]:g} s); times count in seconds from the start of the clip"
    )
