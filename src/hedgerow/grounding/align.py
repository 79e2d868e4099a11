"""Times of points and tracks, moved to the frames that a model sees.

Every time in a target is the printed time of a sampled frame. What stands on no sampled frame is left out and
counted; nothing is placed where the annotation may say that it was not visible.
"""

import dataclasses
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Generic, NamedTuple

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding.points import G, check_place, printed_time

_SLACK = 1e-6  # seconds; sampled times are sums of floats
_ROUNDING = 0.005  # seconds; annotated times are often written in hundredths
_SAME = 0.05  # seconds; a text tells tenths, so nearer times are one moment
_GAP = 1.5  # annotation steps between two keyframes, beyond which one in between is missing
_NAMED = 6  # sampled times that a message names


@dataclasses.dataclass(frozen=True, slots=True)
class Frames:
    """The sampled frames of a clip, as its annotations are placed on them.

    Attributes:
        times: in seconds from the start of the clip, rising; at least one.
        step: seconds that frames are meant to lie apart, whatever the spacing of `times`.
        annotation_fps: how often a second the clip was annotated; None: unknown.
    """

    times: Sequence[float]
    step: float
    annotation_fps: float | None = None

    def nearest(self, time: float) -> float:
        """Return the frame nearest to a time; of two the earlier."""
        after = bisect_left(self.times, time)
        earlier, later = self.times[max(after - 1, 0)], self.times[min(after, len(self.times) - 1)]
        return later if later - time < time - earlier - _SLACK or after == 0 else earlier

    def reaches(self, time: float) -> bool:
        """Whether a frame is within half a step of a time: so far may a point move to it."""
        return abs(self.nearest(time) - time) <= self.step / 2 + _SLACK

    def __str__(self) -> str:
        shown = [printed_time(time) for time in self.times]
        if len(shown) > _NAMED:
            shown[_NAMED - 1 : -1] = ["..."]
        several = "frames" if len(self.times) > 1 else "frame"
        return f"{len(self.times)} {several} at {', '.join(shown)} s, a step of {self.step:g} s"


@dataclasses.dataclass(frozen=True, slots=True)
class Aligned(Generic[G]):
    """A part with the times of frames; how many of its `points` had a time, how many of these are `lost`."""

    part: G
    points: int
    lost: int

    @property
    def gone(self) -> bool:
        """Whether no point is left: to say that there are none would be wrong."""
        return self.lost > 0 and not self.part.points


def align(part: G, frames: Frames | None = None, *, images: int = 0) -> Aligned[G]:
    """Return the part with the printed times (one decimal) of sampled frames, and of no others.

    A point moves to the nearest frame within half a step; beyond that it is lost. Of a track, an object
    stands on a frame

    - as it is, where one of its keyframes has the time of the frame, to hundredths or as it is printed;
    - otherwise between the keyframe before and the one after, if there is no absence between the two: x, y
      and box in proportion to time (the box if both have one);
    - otherwise as the keyframe before or after it, whose nearest frame it is, within half a step and with no
      absence in between.

    An absence is a time at which the clip was annotated and the object has no point. With `annotation_fps`
    there is one where keyframes lie more than 1.5 annotation steps apart, and a whole step before the first
    and after the last of them. Without it, each time of any point of the part is such a time, the median
    spacing of these times is taken for the annotation step, and there is also an absence where keyframes lie
    farther apart than frames are meant to: sparse keyframes may mean either, and a frame on which an object
    was perhaps not visible is not made up.

    A point of a track is lost if nothing is made from it and no frame is within half a step of it, or if its
    object stands on no frame at all.

    Args:
        part: points or tracks, times in seconds from the start of the clip.
        frames: of the clip; None without a video.
        images: how many images are shown.

    Raises:
        DataError: the image or video a point stands on is not shown or not named.
    """
    timed = sum(point.time is not None for point in part.points)
    if timed and frames is None:
        raise DataError(
            f"{part.type} '{part.label}' have times, but no video is shown; add it or leave out the times"
        )
    if isinstance(part, Tracks) and frames is not None:
        points, lost = _align_tracks(part, frames)
        return Aligned(dataclasses.replace(part, points=points), timed, lost)
    found = [_align_point(part, point, frames, images) for point in part.points]
    points = tuple(point for point in found if point is not None)
    return Aligned(dataclasses.replace(part, points=points), timed, len(found) - len(points))


def missed(part: Points | Tracks, found: Aligned[Points | Tracks], frames: Frames) -> str:
    """Say how many points of a part are lost, which frames there are, and what can be done."""
    return (
        f"{part.type} '{part.label}': {found.lost} of its {found.points} points stand on no sampled frame "
        f"({frames}; a point moves by {frames.step / 2:g} s at most); {_remedy(part, frames)}"
    )


def _remedy(part: Points | Tracks, frames: Frames) -> str:
    times = [point.time for point in part.points if point.time is not None]
    reach, first, last = frames.step / 2 + _SLACK, frames.times[0], frames.times[-1]
    if min(times) < first - reach or max(times) > last + reach:
        return (
            f"its times are {min(times):g} to {max(times):g} s and the frames end at {last:g} s: times count "
            "from the start of the clip; correct them, show more of the video, or leave the branch out"
        )
    if any(after - before > frames.step + _SLACK for before, after in pairwise(frames.times)):
        return "the clip has its most frames: raise max_frames, show a shorter clip, or leave the branch out"
    return "raise fps, or leave the branch out"


def _align_point(part: Points | Tracks, point: Point, frames: Frames | None, images: int) -> Point | None:
    check_place(part, point)
    if point.time is None or frames is None:
        return _check_image(part, point, images, has_video=frames is not None)
    return _at(point, frames.nearest(point.time)) if frames.reaches(point.time) else None


def _check_image(part: Points | Tracks, point: Point, images: int, *, has_video: bool) -> Point:
    where = f"{part.type} '{part.label}'"
    if point.image is None and (has_video or images > 1):
        raise DataError(f"{where}: a point has neither time nor image; say which frame or image it stands on")
    image = point.image or 1
    if image > images:
        raise DataError(
            f"{where}: a point stands on image {image}, but {images} are shown; correct it or add the image"
        )
    return dataclasses.replace(point, image=image)


def _align_tracks(part: Tracks, frames: Frames) -> tuple[tuple[Point, ...], int]:
    """Return the points on frames, by time and object, and how many are lost."""
    looked = _Looked.of([_time(point) for point in part.points], frames)
    objects: dict[int | None, list[Point]] = {}
    for point in sorted(part.points, key=_time):
        objects.setdefault(point.id, []).append(point)
    found: list[Point] = []
    lost = 0
    for own in objects.values():
        points, missing = _Track(own, [_time(point) for point in own], frames, looked).on_frames()
        found += points
        lost += missing
    return tuple(sorted(found, key=lambda point: (_time(point), point.id or 0))), lost


@dataclasses.dataclass(frozen=True, slots=True)
class _Looked:
    """When a clip was annotated, as far as that is known.

    `times` is empty where the rate is known; `step` is infinite for a single time of an unknown rate. No
    absence lies in a `gap` of that many seconds between two keyframes; nearer times than `same` are one.
    """

    times: tuple[float, ...]
    step: float
    gap: float
    same: float

    @classmethod
    def of(cls, times: Sequence[float], frames: Frames) -> "_Looked":
        if frames.annotation_fps is not None:
            step = 1 / frames.annotation_fps
            return cls((), step, _GAP * step, min(_SAME, step / 2))
        apart = [after - before for before, after in pairwise(sorted(times)) if after - before > _ROUNDING]
        step = median(apart) if apart else float("inf")
        return cls(tuple(sorted(times)), step, min(_GAP * step, frames.step), min(_SAME, step / 2))

    def absent_between(self, before: float, after: float) -> bool:
        """Whether an object is absent somewhere between two neighbouring keyframes."""
        first = bisect_right(self.times, before + self.same + _SLACK)
        inside = first < bisect_left(self.times, after - self.same - _SLACK)
        return inside or after - before > self.gap + _SLACK

    def absent_beside(self, keyframe: float, frame: float) -> bool:
        """Whether an object is absent between a keyframe and a frame, or on the frame."""
        if abs(keyframe - frame) >= self.step - self.same - _SLACK:
            return True
        if keyframe > frame:
            first = bisect_left(self.times, frame - self.same - _SLACK)
            return first < bisect_left(self.times, keyframe - self.same - _SLACK)
        first = bisect_right(self.times, keyframe + self.same + _SLACK)
        return first < bisect_right(self.times, frame + self.same + _SLACK)


class _Placed(NamedTuple):
    """An object on a frame: the seconds to the nearest keyframe, and the keyframes it is made from."""

    distance: float
    point: Point
    sources: tuple[int, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class _Track:
    """One object: its keyframes in order of time, and their times."""

    points: Sequence[Point]
    times: Sequence[float]
    frames: Frames
    looked: _Looked

    def on_frames(self) -> tuple[list[Point], int]:
        """Return the object on its frames, once for each printed time, and how many keyframes are lost."""
        best: dict[str, _Placed] = {}
        for frame in self.frames.times:
            found, name = self._on(frame), printed_time(frame)
            if found is not None and (name not in best or found.distance < best[name].distance - _SLACK):
                best[name] = found
        used = {number for placed in best.values() for number in placed.sources}
        kept = [bool(best) and self.frames.reaches(time) for time in self.times]
        lost = sum(number not in used and not near for number, near in enumerate(kept))
        return [placed.point for placed in best.values()], lost

    def _on(self, frame: float) -> _Placed | None:
        after = bisect_left(self.times, frame)
        beside = [number for number in (after - 1, after) if 0 <= number < len(self.times)]
        beside.sort(key=lambda number: round(abs(self.times[number] - frame), 6))  # of two the earlier
        exact = next((number for number in beside if _is_at(self.times[number], frame)), None)
        if exact is not None:
            return self._as(exact, frame)
        if len(beside) == 2 and not self.looked.absent_between(self.times[after - 1], self.times[after]):
            return self._between(after, frame)
        return next((self._as(number, frame) for number in beside if self._moves(number, frame)), None)

    def _as(self, number: int, frame: float) -> _Placed:
        return _Placed(abs(self.times[number] - frame), _at(self.points[number], frame), (number,))

    def _moves(self, number: int, frame: float) -> bool:
        """Whether a keyframe moves to a frame."""
        time = self.times[number]
        own = self.frames.nearest(time) == frame and self.frames.reaches(time)
        return own and not self.looked.absent_beside(time, frame)

    def _between(self, after: int, frame: float) -> _Placed:
        """Place the object between the keyframe before a frame and the one `after` it."""
        one, other = self.points[after - 1], self.points[after]
        share = (frame - self.times[after - 1]) / (self.times[after] - self.times[after - 1])
        box = None
        if one.box is not None and other.box is not None:
            left, top, right, bottom = map(_mixed, one.box, other.box, (share,) * 4)
            box = (left, top, right, bottom)
        x, y = _mixed(one.x, other.x, share), _mixed(one.y, other.y, share)
        point = dataclasses.replace(_at(one, frame), x=x, y=y, box=box)
        distance = min(frame - self.times[after - 1], self.times[after] - frame)
        return _Placed(distance, point, (after - 1, after))


def _is_at(keyframe: float, frame: float) -> bool:
    """Whether a keyframe has the time of a frame, rounded or printed."""
    printed = float(printed_time(frame))
    return abs(keyframe - frame) <= _ROUNDING + _SLACK or abs(keyframe - printed) <= _SLACK


def _mixed(one: float, other: float, share: float) -> float:
    return one + share * (other - one)


def _at(point: Point, frame: float) -> Point:
    return dataclasses.replace(point, time=float(printed_time(frame)))


def _time(point: Point) -> float:
    assert point.time is not None  # Tracks refuse a point without one
    return point.time
