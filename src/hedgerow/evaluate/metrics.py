"""Scores of single replies: points, tracks, counts, choices, captions; and an interval for their mean."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from hedgerow.content import Box, Point, Points, Tracks
from hedgerow.errors import HedgerowError
from hedgerow.grounding.points import G, Size, head, size_at, to_fractions

try:
    from scipy.optimize import linear_sum_assignment
except ImportError:
    raise HedgerowError(
        "scores need scipy, which is not installed; run: pip install 'hedgerow[eval]'"
    ) from None

LEAST_SIDE = 0.04  # of the frame's height: a box smaller than this is grown to it


class Score(NamedTuple):
    """Precision, recall and F1 of one reply, or the mean of each over frames; 0 to 1."""

    precision: float
    recall: float
    f1: float


def pointing_scores(predicted: Points | None, true: Points, *, size: Size | Sequence[Size]) -> Score:
    """Score the points of one query.

    A point hits an instance at the same printed time, or on the same image, when it lies inside the
    instance's box, grown about its centre to at least 4 % of the frame's height in both directions;
    without a box, inside a square of that side. Instances and points are matched one to one, most hits
    first, then least distance (arXiv 2601.10611, section 4.2, with boxes for masks). With no instance the
    score is 1 if nothing is predicted, otherwise 0.

    Args:
        predicted: what was pointed at; None is nothing.
        true: every instance once, boxes where known.
        size: (width, height) in pixels of the upright image or video; for several images one size each.

    Raises:
        DataError: a point lies outside its frame, or stands on an image without a size.
    """
    return _score(_fractions(predicted, size), _fractions(true, size), size)


def track_scores(predicted: Tracks | None, true: Tracks, *, size: Size) -> Score:
    """Score tracks frame by frame, and average over the frames in which something is predicted or true.

    In a frame the rule is that of `pointing_scores`; who is who is not asked (that is what HOTA adds).

    Args:
        predicted: what was tracked; None is nothing.
        true: every visible object at every time, boxes where known.
        size: (width, height) in pixels of the upright video.

    Raises:
        DataError: a point lies outside its frame.
    """
    found, wanted = _fractions(predicted, size), _fractions(true, size)
    frames = sorted({head(point) for point in (*found, *wanted)})
    scores = [_score(_at(found, frame), _at(wanted, frame), size) for frame in frames]
    return _mean(scores) if scores else _all(1.0)


def matches(
    predicted: Sequence[Point], true: Sequence[Point], *, size: Size | Sequence[Size]
) -> tuple[tuple[int, int], ...]:
    """Return pairs (predicted, true) of indices: most hits one to one, then the least distance in pixels.

    Both in fractions. The rule of a hit is that of `pointing_scores`.
    """
    if not predicted or not true:
        return ()
    gain = np.zeros((len(predicted), len(true)))
    # A hit gains at least 1 - 1 / (most + 1), so no sum of distances outweighs one hit more.
    most = min(len(predicted), len(true))
    spans = [np.asarray(size_at(point, size), float) for point in true]
    longest = max(float(np.linalg.norm(span)) for span in spans)
    for column, (instance, span) in enumerate(zip(true, spans, strict=True)):
        for row, point in enumerate(predicted):
            if head(point) == head(instance) and _hits(point, instance, span[0], span[1]):
                apart = np.linalg.norm(span * (point.x - instance.x, point.y - instance.y))
                gain[row, column] = 1.0 - apart / longest / (most + 1)
    rows, columns = linear_sum_assignment(gain, maximize=True)
    return tuple((int(r), int(c)) for r, c in zip(rows, columns, strict=True) if gain[r, c] > 0)


def choice_of(text: str) -> str | None:
    """Return the option a reply chooses as a capital letter: B for "B. Boxing", "(b)" or "Answer: B"."""
    said = text.replace("*", "").strip()
    for pattern in _CHOICES:
        if found := pattern.search(said):
            return next(letter for letter in found.groups() if letter).upper()
    return None


def token_f1(predicted: str, true: str) -> Score:
    """Score the words two texts share as bags, lower-cased, without punctuation; two empty texts agree."""
    found, wanted = Counter(_words(predicted)), Counter(_words(true))
    if not found or not wanted:
        return _all(float(found == wanted))
    return _ratios((found & wanted).total(), found.total(), wanted.total())


def exact_match(predicted: str, true: str) -> bool:
    """Say whether two texts have the same words in the same order, lower-cased and without punctuation."""
    return _words(predicted) == _words(true)


def interval(
    values: Sequence[float], groups: Sequence[Hashable], *, seed: int = 0, resamples: int = 2000
) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval (low, high) of the mean of values.

    Whole groups are drawn with replacement, for values of one clip are not independent.

    Args:
        values: one a reply, at least one.
        groups: the group, such as the clip, of each value.
        seed: of the draws; the same seed gives the same interval.
        resamples: how many draws.
    """
    if not len(values) or len(values) != len(groups):
        raise ValueError(
            f"give one group for each of at least one value, got {len(values)} and {len(groups)}"
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    member = [numbers[group] for group in groups]
    sums, sizes = np.bincount(member, weights=values), np.bincount(member)
    draw = np.random.default_rng(seed).integers
    means = np.empty(resamples)
    for number in range(resamples):
        drawn = draw(len(numbers), size=len(numbers))
        means[number] = sums[drawn].sum() / sizes[drawn].sum()
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


def _fractions(part: G | None, size: Size | Sequence[Size]) -> tuple[Point, ...]:
    return () if part is None else to_fractions(part, size=size).points


def _at(points: Iterable[Point], frame: str) -> tuple[Point, ...]:
    return tuple(point for point in points if head(point) == frame)


def _score(predicted: Sequence[Point], true: Sequence[Point], size: Size | Sequence[Size]) -> Score:
    if not predicted or not true:
        return _all(float(len(predicted) == len(true)))
    return _ratios(len(matches(predicted, true, size=size)), len(predicted), len(true))


def _all(value: float) -> Score:
    return Score(value, value, value)


def _ratios(shared: int, predicted: int, true: int) -> Score:
    return Score(shared / predicted, shared / true, 2 * shared / (predicted + true))


def _mean(scores: Sequence[Score]) -> Score:
    precision, recall, f1 = (float(mean) for mean in np.mean(scores, axis=0))
    return Score(precision, recall, f1)


def _hits(point: Point, instance: Point, width: float, height: float) -> bool:
    box = instance.box or (instance.x, instance.y, instance.x, instance.y)
    left, top, right, bottom = _grown(box, width, height)
    return bool(left <= point.x * width <= right and top <= point.y * height <= bottom)


def _grown(box: Box, width: float, height: float) -> Box:
    """Return a box of fractions in pixels, grown about its centre to the least side."""
    left, top, right, bottom = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    wide = max(0.0, LEAST_SIDE * height - (right - left)) / 2
    tall = max(0.0, LEAST_SIDE * height - (bottom - top)) / 2
    return (left - wide, top - tall, right + wide, bottom + tall)


_LETTER = r"(?:\(([A-Za-z])\)|([A-Za-z])(?=[.,):]|\s*$|\s*\n))"
_CHOICES = (
    re.compile(rf"^{_LETTER}"),
    re.compile(rf"\b(?i:answer|option|choice)(?: is)?:? (?:(?i:option|choice) )?{_LETTER}"),
)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['\u2019-]\w+)*", text.lower())
