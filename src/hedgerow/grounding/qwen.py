"""Points and boxes as Qwen-VL models write them: JSON objects with `point_2d` or `bbox_2d`.

    [{"point_2d": [320, 480], "label": "ball"}, {"bbox_2d": [10, 20, 110, 220], "label": "bat", "time": 1.5}]

The text does not say its unit. Qwen3-VL (as Qwen2-VL before it) counts thousandths of width and height,
Qwen2.5-VL pixels of the image as its processor resized it (repository QwenLM/Qwen3-VL: its notebook
`cookbooks/2d_grounding.ipynb`, its threads 676 and 866). Nor does it say who is who: points have no id, and
boxes of one label at several times are no track.
"""

import json
import re
from dataclasses import dataclass, field

from hedgerow.content import Box, Frame, Point, Points
from hedgerow.grounding.reader import NUMBER, Found, Reader, storable

_TEXT = r'[^"\\\n]*+(?:\\.[^"\\\n]*+)*+'
_TOKEN = re.compile(rf'(?P<brace>[{{}}])|"(?P<text>{_TEXT})(?P<closed>"?)(?P<colon>\s*+:\s*+)?')
_STRING = re.compile(rf'"({_TEXT})"')
_SECONDS = re.compile(rf"({NUMBER})(?=\s*+[,}}])")
_ITEM = rf"\s*+(-?{NUMBER})\s*+"
_LIST = {
    "point_2d": re.compile(rf"\[{_ITEM},{_ITEM}\]"),
    "bbox_2d": re.compile(rf"\[{_ITEM},{_ITEM},{_ITEM},{_ITEM}\]"),
}
_FORM = {"point_2d": "[x, y]", "bbox_2d": "[left, top, right, bottom]"}
_UNFINISHED = re.compile(r"\[?[-0-9.,\s]*+")
_KEYS = re.compile(r'"(?:point_2d|bbox_2d)"\s*+:')


@dataclass(slots=True)
class _Object:
    """What is known of one JSON object."""

    start: int | None = None
    at: int = 0
    point: tuple[float, float] | None = None
    box: Box | None = None
    label: str = ""
    time: float | None = None
    broken: bool = False


@dataclass(slots=True)
class _Label:
    """All points of one label."""

    points: list[Point] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    spans: list[tuple[int, int]] = field(default_factory=list)


def read(reader: Reader, frame: Frame | None) -> list[Found]:
    """Read every object with a complete point or box, whatever stands around it; one part a label.

    A box is the point at its centre, and that point's `box`. Points in pixels stay in pixels.

    Args:
        reader: its whole text is read.
        frame: unit of the numbers; None: nothing is read, and noted if there is something.
    """
    first = _KEYS.search(reader.text)
    if first is None:
        return []
    if frame is None:
        reader.note(first.start(), 'frame="thousandths" or "pixels" to be declared for JSON', "no_frame")
        return []
    labels: dict[str, _Label] = {}
    item, reader.at = _Object(), 0
    while token := _TOKEN.search(reader.text, reader.at):
        reader.at = token.end()
        if token["brace"]:
            _keep(reader, item, token.end() if token["brace"] == "}" else token.start(), frame, labels)
            item = _Object(token.start() if token["brace"] == "{" else None)
        elif token["colon"] and token["closed"]:
            if (token["text"] == "point_2d" and item.point) or (token["text"] == "bbox_2d" and item.box):
                reader.note(token.start(), "}")  # two points in one object are two points
                _keep(reader, item, token.start(), frame, labels)
                item = _Object()
            item.start = token.start() if item.start is None else item.start
            _read_member(reader, item, token["text"])
    if item.point or item.box:
        reader.note(len(reader.text), "}")
    _keep(reader, item, len(reader.text), frame, labels)
    unit: Frame = "pixels" if frame == "pixels" else "fraction"
    return [
        Found(Points(label, tuple(known.points), frame=unit), tuple(known.spans), tuple(known.places))
        for label, known in labels.items()
    ]


def _read_member(reader: Reader, item: _Object, key: str) -> None:
    start = reader.at
    if key in _LIST:
        numbers = reader.take(_LIST[key])
        if numbers is None:
            item.broken = True
            unfinished = _UNFINISHED.match(reader.text, start)
            reader.note(start, _FORM[key], end=unfinished.end() if unfinished else None)
            return
        first, second, *last = map(float, numbers.groups())
        item.at = item.at or start
        if last:
            item.box = (first, second, last[0], last[1])
        else:
            item.point = (first, second)
    elif key == "label" and (text := reader.take(_STRING)):
        item.label = _unescape(text[1])
    elif key == "time" and (seconds := reader.take(_SECONDS)):
        item.time = float(seconds[1])


def _keep(reader: Reader, item: _Object, end: int, frame: Frame, labels: dict[str, _Label]) -> None:
    """Add the point of an object that ends there, if it has one in its frame."""
    span = (item.start or 0, end)
    if item.point is None and item.box is None:
        if item.broken and labels:  # what is left of it is no text
            next(reversed(labels.values())).spans.append(span)
        return
    known = labels.setdefault(item.label, _Label())
    known.spans.append(span)
    box = None if item.box is None else _box(reader, item.at, item.box, frame)
    place = reader.place(item.at, *item.point, frame) if item.point else _centre(box)
    if place is not None:
        known.points.append(Point(*place, time=item.time, box=box))
        known.places.append(item.at)


def _box(reader: Reader, at: int, box: Box, frame: Frame) -> Box | None:
    x0, y0, x1, y1 = box
    if x0 > x1 or y0 > y1:
        reader.note(at, _FORM["bbox_2d"], "bad_order")
    first = reader.place(at, min(x0, x1), min(y0, y1), frame)
    last = reader.place(at, max(x0, x1), max(y0, y1), frame)
    return None if first is None or last is None else (*first, *last)


def _centre(box: Box | None) -> tuple[float, float] | None:
    return None if box is None else ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)


def _unescape(text: str) -> str:
    try:
        label = json.loads(f'"{text}"', strict=False)
    except ValueError:  # no escape that JSON knows: as it stands
        label = text
    return storable(str(label))
