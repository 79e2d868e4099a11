"""Canonical order of tracks: ids say who is who through time."""

import dataclasses

from hedgerow.content import Point, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding.points import rounded, to_fractions


def canonical(part: Tracks) -> Tracks:
    """Return tracks as their text tells them: rounded, by time, within a time by id.

    Ids are numbered 1 to K by first appearance, those of one time by x, y; who shares an id keeps sharing
    it. An object that is away is missing, and returns under its id.

    Args:
        part: tracks in fractions.

    Raises:
        DataError: a point lies outside the frame, or an object stands twice in one tenth of a second.
    """
    part = to_fractions(part)
    found = sorted((rounded(part, point) for point in part.points), key=_appearance)
    ids: dict[int | None, int] = {}
    for point in found:
        ids.setdefault(point.id, len(ids) + 1)
    _check_once(part.label, found)
    points = [dataclasses.replace(point, id=ids[point.id]) for point in found]
    return dataclasses.replace(part, points=tuple(sorted(points, key=lambda p: (p.time or 0.0, p.id or 0))))


def _appearance(point: Point) -> tuple[float, float, float, int]:
    return (point.time or 0.0, point.x, point.y, point.id or 0)


def _check_once(label: str, points: list[Point]) -> None:
    seen = set()
    for point in points:
        if (point.time, point.id) in seen:
            raise DataError(
                f"tracks '{label}': object {point.id} stands twice at {point.time} s (to one decimal); "
                "align the tracks to the sampled frames first"
            )
        seen.add((point.time, point.id))
