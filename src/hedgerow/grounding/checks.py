"""Replies that have gone wrong in a way that models do: found, and named with their evidence.

Most look like decoding caught in a loop (arXiv 2601.10611, appendices C and H: a long row of points on one
frame, the same point for every frame, repeated text). A finding is a reason to look, not a proof: thresholds
are such that honest annotations stay below them, save the few that `docs/grounding.md` names.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from hedgerow.content import Point, Points, Tracks
from hedgerow.grounding.codec import Parsed, parse
from hedgerow.grounding.points import head

Kind = Literal["row", "same_point", "repeated_text", "jumping_ids", "impossible_speed"]

ROW = 24  # points at even steps; the widest rows that games and shelves show stay below
EVEN = 2.0  # thousandths (or pixels) that two steps may differ: both ends are rounded, and people aim worse
POINTED = 8  # times at which one place is pointed at; points name each instance once, so even 2 are odd
STILL = 24  # frames, 12 s at 2 a second, in which nothing that is tracked moves by a thousandth
WORDS, TIMES = 8, 5  # so many words on end, so often the same: refrains are shorter, or rarer
FAST = 2.0  # sides of the picture a second: half a second from side to side
STEPS = 4  # steps of an object as fast as that; two objects that swap ids make one or two
_TICK = 0.1  # seconds that a text tells apart

_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Finding:
    """A sign of a degenerate reply: what, from which character of it on, and how often."""

    kind: Kind
    at: int
    count: int
    message: str

    def __str__(self) -> str:
        return f"character {self.at}: {self.message}"


def degenerate(
    reply: str, *, parsed: Parsed | None = None, frames: int | None = None, fps: float | None = None
) -> tuple[Finding, ...]:
    """Return the signs that a reply is degenerate, in the order of kinds; none of an honest one.

    Takes time linear in the length of the reply.

    Args:
        reply: what a model wrote.
        parsed: the reply as it was read; None: read here, with the defaults of `parse`.
        frames: how many frames the model saw: what stands still counts only if it does so in all of them.
        fps: frames a second that the model saw; times are then taken as those of frames, for printed
            tenths of a second are too coarse above 5.
    """
    parsed = parse(reply) if parsed is None else parsed
    found: list[Finding] = []
    for part, places in zip(parsed.parts, parsed.places, strict=True):
        found += _row(part, places)
        found += _same_point(part, places, max(STILL, frames or 0))
        found += _jumping_ids(part, places)
        found += _impossible_speed(part, places, fps)
    return (*found, *_repeated_text(reply, parsed.spans))


def _xy(part: Points | Tracks, point: Point) -> tuple[float, float]:
    """Return a place in thousandths, or in pixels of a part in pixels."""
    scale = 1.0 if part.frame == "pixels" else 1000.0
    return point.x * scale, point.y * scale


def _row(part: Points | Tracks, places: Sequence[int]) -> Iterator[Finding]:
    """Find the longest row of points at even steps on one frame."""
    best, start = (0, 0), 0
    step: tuple[float, float] | None = None
    for number, (before, point) in enumerate(pairwise(part.points), 1):
        if (before.time, before.image) != (point.time, point.image):
            start, step = number, None
            continue
        (x0, y0), (x1, y1) = _xy(part, before), _xy(part, point)
        now = (x1 - x0, y1 - y0)
        if step is not None and max(abs(now[0] - step[0]), abs(now[1] - step[1])) > EVEN + 1e-6:
            start = number - 1
        step = now
        best = max(best, (number - start + 1, -start))
    length, first = best[0], -best[1]
    if length >= ROW:
        where = f"{'image' if part.points[first].time is None else 'time'} {head(part.points[first])}"
        yield Finding("row", places[first], length, f"{length} points in a row on one frame ({where})")


def _same_point(part: Points | Tracks, places: Sequence[int], still: int) -> Iterator[Finding]:
    """Find a place that is pointed at again and again, or tracks in which nothing ever moves."""
    seen: dict[tuple[int | None, tuple[float, float]], list[int]] = {}
    times: set[float] = set()
    for number, point in enumerate(part.points):
        if point.time is not None:
            name = point.id if isinstance(part, Tracks) else None
            seen.setdefault((name, _xy(part, point)), []).append(number)
            times.add(point.time)
    if not seen:
        return
    (_, (x, y)), numbers = max(seen.items(), key=lambda item: len(item[1]))
    if isinstance(part, Points):
        frozen = len({part.points[number].time for number in numbers}) >= POINTED
    else:
        frozen = len(numbers) >= still and len(seen) == len({point.id for point in part.points})
    if frozen:
        message = f"the same point ({x:g}, {y:g}) {len(numbers)} times, of {len(times)} frames"
        yield Finding("same_point", places[numbers[0]], len(numbers), message)


def _jumping_ids(part: Points | Tracks, places: Sequence[int]) -> Iterator[Finding]:
    """Find ids that do not count on: points 1, 2, 3, and tracks whenever an object appears first."""
    jumps: list[int] = []
    last = 0
    for number, point in enumerate(part.points):
        if point.id is None or (isinstance(part, Tracks) and point.id <= last):
            continue
        if point.id != last + 1:
            jumps.append(number)
        last = point.id
    if jumps:
        first = part.points[jumps[0]]
        before = max((p.id or 0 for p in part.points[: jumps[0]]), default=0)
        message = f"id {first.id} where {before + 1} comes next; jumps in all: {len(jumps)}"
        yield Finding("jumping_ids", places[jumps[0]], len(jumps), message)


def _impossible_speed(part: Points | Tracks, places: Sequence[int], fps: float | None) -> Iterator[Finding]:
    """Find the object with the most steps that are too fast."""
    if isinstance(part, Points) or part.frame == "pixels":
        return
    paths: dict[int, list[int]] = {}
    for number, point in enumerate(part.points):
        paths.setdefault(point.id or 0, []).append(number)
    worst: tuple[int, int, int] = (0, 0, 0)
    for name, numbers in paths.items():
        steps = list(pairwise(numbers))
        fast = [b for a, b in steps if _speed(part.points[a], part.points[b], fps) > FAST]
        if len(fast) >= STEPS and 2 * len(fast) > len(steps):
            worst = max(worst, (len(fast), name, fast[0]))
    count, name, first = worst
    if count:
        message = f"object {name} is faster than {FAST:g} sides of the picture a second in {count} steps"
        yield Finding("impossible_speed", places[first], count, message)


def _speed(before: Point, point: Point, fps: float | None) -> float:
    """Return sides of the picture a second."""
    seconds = abs((point.time or 0.0) - (before.time or 0.0))
    seconds = max(_TICK, seconds) if fps is None else max(1, round(seconds * fps)) / fps
    return float(((point.x - before.x) ** 2 + (point.y - before.y) ** 2) ** 0.5 / seconds)


def _repeated_text(reply: str, spans: Sequence[tuple[int, int]]) -> Iterator[Finding]:
    """Find the words in a row that stand there most often, outside points and tracks."""
    seen: dict[tuple[str, ...], list[int]] = {}
    edges = [0, *(edge for span in spans for edge in span), len(reply)]
    for start, end in zip(edges[::2], edges[1::2], strict=True):
        words = list(_WORD.finditer(reply, start, end))
        for number in range(len(words) - WORDS + 1):
            key = tuple(word[0] for word in words[number : number + WORDS])
            seen.setdefault(key, []).append(words[number].start())
    if seen:
        words_, places = max(seen.items(), key=lambda item: len(item[1]))
        if len(places) >= TIMES:
            text = " ".join(words_)[:60]
            yield Finding("repeated_text", places[0], len(places), f"'{text}' {len(places)} times")
