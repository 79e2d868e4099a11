"""Where objects go: smooth paths of place, scale and angle, that meet, and leave the frame and return."""

import math
from dataclasses import dataclass

import numpy as np

from hedgerow.data.synthetic.draws import Draws
from hedgerow.data.synthetic.settings import GROWTH, Scenes
from hedgerow.sequence import Array

_LEG = (0.2, 0.45)  # of the frame's width, between two turns
_BEND = math.radians(60)  # the most a path turns at once
_STEPS = 12  # places computed on a leg
_SWING = math.radians(35)
_PERIOD = (2.0, 5.0)  # seconds, of growing and of swinging
_UNEVEN = 0.3  # objects are so much faster or slower than the knob says
_TRIES = 8
_CLOSE = 0.5  # of the radius: how far from each other objects are that meet
_OUTSIDE = 0.35  # seconds from leaving the frame to turning round


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """An object at each frame: `centre` in pixels [T, 2] (x, y), `scale` [T], `angle` [T] in radians."""

    centre: Array
    scale: Array
    angle: Array


@dataclass(frozen=True, slots=True)
class Anchor:
    """A place an object passes: where (pixels), at which frame, and in which direction (radians)."""

    x: float
    y: float
    frame: int
    heading: float


def wander(scenes: Scenes, anchor: Anchor, *, radius: float, draws: Draws) -> Motion:
    """Draw a path through an anchor, from it forwards and backwards, that keeps to the frame.

    Args:
        scenes: the knobs; `speed` is that of the path, up to 30 % more or less.
        anchor: may lie outside the frame; then the path comes from within and goes back.
        radius: half the object's longer side in pixels; its centre stays as far from the edge.
        draws: source of all choices.
    """
    speed = scenes.speed * scenes.size[0] / scenes.rate * draws.uniform(1 - _UNEVEN, 1 + _UNEVEN)
    after = _trail(scenes, anchor, anchor.heading, speed * (scenes.frames - 1 - anchor.frame), radius, draws)
    before = _trail(scenes, anchor, anchor.heading + math.pi, speed * anchor.frame, radius, draws)
    places, passed = _smooth(before[::-1] + after[1:], len(before) - 1)
    travelled = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(places, axis=0).T))])
    wanted = travelled[passed] + speed * (np.arange(scenes.frames) - anchor.frame)
    centre = np.stack([np.interp(wanted, travelled, places[:, axis]) for axis in (0, 1)], 1)
    return Motion(centre, 1 - GROWTH * (0.5 + 0.5 * _wave(scenes, draws)), _SWING * _wave(scenes, draws))


def outside(scenes: Scenes, *, frame: int, radius: float, draws: Draws) -> Anchor:
    """Draw an anchor beyond an edge, so far that the object is out of the frame for a while."""
    width, height = scenes.size
    beyond = _beyond(scenes, radius)
    along = draws.uniform(0.25, 0.75)
    return draws.pick(
        [
            Anchor(-beyond, along * height, frame, 0.0),
            Anchor(width + beyond, along * height, frame, math.pi),
            Anchor(along * width, -beyond, frame, math.pi / 2),
            Anchor(along * width, height + beyond, frame, -math.pi / 2),
        ]
    )


def can_leave(scenes: Scenes, *, frame: int, radius: float) -> bool:
    """Say whether an object that is outside at a frame has the time to be in the frame before and after."""
    times = [count / scenes.rate for count in (frame, scenes.frames - 1 - frame) if count]
    return min(times) * scenes.speed * scenes.size[0] >= _beyond(scenes, radius) + radius / 2


def inside(scenes: Scenes, *, radius: float, draws: Draws) -> Anchor:
    """Draw an anchor anywhere in the frame."""
    width, height = scenes.size
    x = draws.uniform(min(radius, width / 2), max(width - radius, width / 2))
    y = draws.uniform(min(radius, height / 2), max(height - radius, height / 2))
    return Anchor(x, y, draws.between(0, scenes.frames - 1), draws.uniform(-math.pi, math.pi))


def beside(scenes: Scenes, motion: Motion, *, radius: float, draws: Draws) -> Anchor:
    """Draw an anchor at which an object meets another one and goes the same way for a while."""
    frame = draws.between(0, scenes.frames - 1)
    x, y = motion.centre[frame]
    ahead = motion.centre[min(frame + 1, scenes.frames - 1)]
    behind = motion.centre[max(frame - 1, 0)]
    heading = math.atan2(ahead[1] - behind[1], ahead[0] - behind[0])
    apart, turn = radius * draws.uniform(0.0, _CLOSE), draws.uniform(-math.pi, math.pi)
    return Anchor(float(x) + apart * math.cos(turn), float(y) + apart * math.sin(turn), frame, heading)


def _trail(
    scenes: Scenes, anchor: Anchor, heading: float, length: float, radius: float, draws: Draws
) -> list[tuple[float, float]]:
    """Turning points from an anchor on, over a length at least."""
    width, height = scenes.size
    trail = [(anchor.x, anchor.y)]
    is_out = not (0 <= anchor.x <= width and 0 <= anchor.y <= height)
    gone = 0.0
    while gone < length or len(trail) < 2:
        x, y = trail[-1]
        leg = draws.uniform(*_LEG) * width
        if len(trail) == 1 and is_out:
            heading = math.atan2(height / 2 - y, width / 2 - x) + draws.uniform(-_BEND, _BEND) / 2
            leg = max(leg, _to_frame(scenes, anchor) + 2 * radius)
        else:
            bend = _BEND if len(trail) > 1 else 0.0
            heading = _turned(scenes, x, y, heading, leg, radius, bend, draws)
        trail.append((x + leg * math.cos(heading), y + leg * math.sin(heading)))
        gone += leg
    return trail


def _beyond(scenes: Scenes, radius: float) -> float:
    return radius * (1 + GROWTH) + _OUTSIDE * scenes.speed * scenes.size[0]


def _to_frame(scenes: Scenes, anchor: Anchor) -> float:
    across = max(-anchor.x, anchor.x - scenes.size[0], 0.0)
    return max(across, -anchor.y, anchor.y - scenes.size[1])


def _turned(
    scenes: Scenes, x: float, y: float, heading: float, leg: float, radius: float, bend: float, draws: Draws
) -> float:
    """A heading close to the old one whose leg ends in the frame; towards the middle if there is none."""
    width, height = scenes.size
    for attempt in range(_TRIES):
        turned = heading + draws.uniform(-1.0, 1.0) * (bend + attempt * _BEND / 2)
        right, down = x + leg * math.cos(turned), y + leg * math.sin(turned)
        if radius <= right <= width - radius and radius <= down <= height - radius:
            return turned
    return math.atan2(height / 2 - y, width / 2 - x)


def _smooth(corners: list[tuple[float, float]], anchor: int) -> tuple[Array, int]:
    """Places on a Catmull-Rom spline through the corners, and which of them is the corner `anchor`."""
    points = np.array([corners[0], *corners, corners[-1]])
    t = np.arange(_STEPS)[:, None] / _STEPS
    legs = []
    for a, b, c, d in zip(points, points[1:], points[2:], points[3:], strict=False):
        legs.append(
            b + t * (c - a) / 2 + t**2 * (a - 2.5 * b + 2 * c - d / 2) + t**3 * (1.5 * (b - c) + (d - a) / 2)
        )
    return np.concatenate([*legs, points[-1:]]), anchor * _STEPS


def _wave(scenes: Scenes, draws: Draws) -> Array:
    period, start = draws.uniform(*_PERIOD), draws.uniform(0.0, 2 * math.pi)
    return np.sin(start + 2 * math.pi * np.arange(scenes.frames) / scenes.rate / period)
