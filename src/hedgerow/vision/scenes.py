"""Where the scenes of a video begin: hard cuts, and fades through a plain picture.

A cut is a change that stands out against the changes around it, so that pans, shaking and a busy scene are
none. A flash is none either: after it the picture is as it was before.
"""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hedgerow.sequence import Array
from hedgerow.vision.container import PyAVSource
from hedgerow.vision.source import VideoSource

_PYAV = PyAVSource()
_SIZE = (36, 64)  # of the pictures that are compared
_LEAST = 5.0  # mean change of a channel, of 255, below which nothing is a cut
_STANDS_OUT = 2.7  # times the median change around it
_AROUND = 8  # frames on each side
_FLASH = 6  # frames; after as many a flash is over
_BACK = 0.5  # of a change is left where it was no flash
_PLAIN = 4.0  # standard deviation of a picture that shows nothing
_SHORTEST = 0.4  # seconds of a scene


@dataclass(frozen=True, slots=True)
class _Film:
    """Of each frame: `time` in seconds, `change` from the one before, what is `left` of it later, `plain`."""

    time: Array
    change: Array
    left: Array
    plain: Array


def find_cuts(path: str, *, source: VideoSource = _PYAV) -> tuple[float, ...]:
    """Return the times in seconds from the first frame at which the second and each further scene begins.

    Every frame is decoded once, in one thread, and compared at a small size. Frames that are damaged are left
    out.

    Args:
        path: of the video.
        source: what reads it.

    Raises:
        MediaError: the file is missing, is no video, or has no frame that can be decoded.
    """
    film = _watch(path, source)
    fades = _fades(film)
    cuts = [cut for cut in _hard_cuts(film) if not any(cut in fade for fade in fades)]
    found: list[float] = []
    for frame in sorted(cuts + [fade[len(fade) // 2] for fade in fades]):
        time = float(film.time[frame])
        if time - (found[-1] if found else 0.0) >= _SHORTEST:
            found.append(time)
    return tuple(found)


def _watch(path: str, source: VideoSource) -> _Film:
    time, change, plain = [], [0.0], []
    left: list[float] = []
    last: deque[Array] = deque(maxlen=_FLASH + 2)  # from before a change to behind a flash
    for moment, picture in source.every(path, _SIZE):
        now = picture.astype(np.int16)
        time.append(moment)
        plain.append(now.std(axis=(0, 1)).max() < _PLAIN)
        if last:
            change.append(_difference(last[-1], now))
        last.append(now)
        if len(last) == _FLASH + 2:
            left.append(_difference(last[0], now))
    # At the end what follows is short: the last picture is behind the flash.
    while len(last) > 1:
        before = last.popleft()
        if len(left) < len(time) - 1:
            left.append(_difference(before, last[-1]))
    return _Film(np.array(time), np.array(change), np.array([0.0, *left]), np.array(plain))


def _difference(before: Array, after: Array) -> float:
    return float(np.abs(after - before).mean())


def _hard_cuts(film: _Film) -> list[int]:
    """First frames behind a change that stands out and lasts."""
    found = []
    for frame in np.flatnonzero(film.change >= _LEAST).tolist():
        around = np.concatenate(
            [film.change[max(frame - _AROUND, 1) : frame], film.change[frame + 1 : frame + 1 + _AROUND]]
        )
        usual = float(np.median(around)) if len(around) else 0.0
        stands_out = film.change[frame] >= max(_STANDS_OUT * usual + _LEAST / 2, around.max(initial=0.0))
        lasts = film.left[frame] >= _BACK * film.change[frame]
        if stands_out and lasts:
            found.append(frame)
    return found


def _fades(film: _Film) -> list[range]:
    """Plain stretches with something on both sides, the frame behind included; no flashes."""
    edges = np.flatnonzero(np.diff(film.plain.astype(np.int8))).tolist()  # last frames before a change
    return [
        range(start + 1, end + 2)
        for start, end in pairwise(edges)
        if film.plain[start + 1] and (end - start > _FLASH or film.change[start + 1] < _LEAST)
    ]
