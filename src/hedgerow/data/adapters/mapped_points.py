"""Points and tracks of a row as a mapping says."""

from collections.abc import Iterable
from collections.abc import Sequence as Listing
from typing import Any, TypeVar

from hedgerow.content import Media, Point, Points, Tracks, Video
from hedgerow.data.adapters.mapping import Grounding
from hedgerow.data.adapters.paths import Scope, expanded, filled, items, number_of, value_at
from hedgerow.errors import DataError

P = TypeVar("P", Points, Tracks)
_PER_POINT = ("x", "y", "time", "id", "image", "unless")
_EXTENT = {"fraction": 1.0, "percent": 100.0, "thousandths": 1000.0}
_NO = ("", "0", "false", "no")
_DIGITS = 6  # of a time from which the start of a clip was taken


def grounded(
    rule: Grounding, scope: Scope, shown: Listing[Media], kind: type[P]
) -> tuple[P, tuple[str, ...]]:
    """Return the points or tracks of a row, and what it calls the objects that they number from 1.

    Args:
        rule: where they stand.
        scope: the columns.
        shown: what the root shows; times of the file are brought to the start of its clip.
        kind: `Points` or `Tracks`.

    Raises:
        DataError: a column is missing, lists differ in length, or a value is no number.
    """
    paths = {name: path for name in _PER_POINT if (path := getattr(rule, name)) is not None}
    rows = [row for row in expanded(paths, scope) if row["x"] is not None and row["y"] is not None]
    rows = [row for row in rows if not _is_true(row.get("unless"))]
    if rule.among is not None:
        wanted = {str(name) for name in items(value_at(rule.among, scope), rule.among)}
        rows = [row for row in rows if str(row["id"]) in wanted]
    width, height = _size(rule, scope)
    start = _start(shown) if rule.times == "file" else 0.0
    ids = {name: number for number, name in enumerate(dict.fromkeys(str(row.get("id")) for row in rows), 1)}
    points = [
        Point(
            x=_placed(row["x"], rule.x, rule, width),
            y=_placed(row["y"], rule.y, rule, height),
            id=None if rule.id is None else ids[str(row["id"])],
            time=None if rule.time is None else _time(row["time"], rule.time, start),
            image=row.get("image"),
        )
        for row in rows
    ]
    frame = "fraction" if width is not None else rule.frame
    part = kind(filled(rule.label, scope), tuple(_kept(points, rule.only)), frame)
    return part, () if rule.id is None else tuple(ids)


def _size(rule: Grounding, scope: Scope) -> tuple[float | None, float | None]:
    if rule.width is None or rule.height is None:
        return None, None
    width, height = (_number(value_at(path, scope), path) for path in (rule.width, rule.height))
    if width <= 0 or height <= 0:
        raise DataError(
            f"{rule.width}: a frame of {width:g} x {height:g} pixels holds no point; correct the row"
        )
    return width, height


def _start(shown: Listing[Media]) -> float:
    return next((media.start or 0.0 for media in shown if isinstance(media, Video)), 0.0)


def _placed(value: Any, path: str, rule: Grounding, side: float | None) -> float:
    number = _number(value, path) / (side or 1.0)
    most = 1.0 if side is not None else _EXTENT.get(rule.frame)
    return min(max(number, 0.0), most) if rule.clamp and most is not None else number


def _time(value: Any, path: str, start: float) -> float:
    time = round(_number(value, path) - start, _DIGITS)
    if time < 0:
        raise DataError(
            f"{path}: {value} s lies before the clip, which starts at {start:g} s; correct the row"
        )
    return time


def _number(value: Any, path: str) -> float:
    number = number_of(value)
    if number is None:
        raise DataError(f"{path}: {value!r} is no number; correct the row or the path")
    return number


def _is_true(value: Any) -> bool:
    """Whether a value, or the text of it, says yes."""
    return str(value).strip().lower() not in _NO if isinstance(value, str) else bool(value)


def _kept(points: Listing[Point], only: str) -> Iterable[Point]:
    if only == "all":
        return points
    spans: dict[int | None, list[float]] = {}
    for point in points:
        spans.setdefault(point.id, []).append(point.time or 0.0)
    return [point for point in points if point.time in (min(spans[point.id]), max(spans[point.id]))]
