"""Canonical order of tracks: ids say who is who through time."""

import dataclasses

from hedgerow.content import Point, Points, Tracks
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


def first_and_last(part: Tracks) -> Tracks:
    """Return the tracks with the first and the last point of each object alone, as annotated or aligned.

    Align first: what is first among sampled frames is not always first among annotations.
    """
    seen: dict[int | None, list[float]] = {}
    for point in part.points:
        seen.setdefault(point.id, []).append(point.time or 0.0)
    ends = {name: (min(times), max(times)) for name, times in seen.items()}
    return dataclasses.replace(part, points=tuple(p for p in part.points if p.time in ends[p.id]))


def of_object(part: Tracks, name: int) -> Tracks:
    """Return the track of one object.

    Raises:
        DataError: no point has this id.
    """
    points = tuple(point for point in part.points if point.id == name)
    if not points:
        known = ", ".join(map(str, sorted({point.id or 0 for point in part.points}))) or "none"
        raise DataError(f"tracks '{part.label}' have no object {name}; its ids are {known}")
    return dataclasses.replace(part, points=points)


def visible_point(part: Tracks, name: int, number: int = 0) -> Points:
    """Return one visible point of an object, as a question for its track shows it.

    Args:
        part: tracks.
        name: id of the object.
        number: which of its points, in time, from 0; the default is where it appears first.

    Raises:
        DataError: the object is unknown, or has no such point.
    """
    points = sorted(of_object(part, name).points, key=lambda point: point.time or 0.0)
    if not 0 <= number < len(points):
        raise DataError(
            f"object {name} of tracks '{part.label}' is visible {len(points)} times, so its points are "
            f"0 to {len(points) - 1}; got {number}"
        )
    return Points(part.label, (points[number],), frame=part.frame)
