"""Points as older models write them: coordinates as attributes of a tag, or as a list of triples in it.

    <point x="12.3" y="45.6" alt="...">label</point>
    <points x1="12.3" y1="45.6" x2="50.0" y2="7.1" alt="...">label</points>
    <points t1=3.5 x1=12.3 y1=45.6/> <points t2=4.0 x2=50.0 y2=7.1/>
    <points label<TAB>alt<TAB>1 12.3 45.6 2 50.0 7.1/>        <points 3.5<TAB>1 12.3 45.6/>

Numbers are percent of width and height with one decimal (Molmo, arXiv 2409.17146; kept by the public code of
arXiv 2601.10611). In a list three digits without a decimal are thousandths. Qwen2.5-VL writes the first two
forms too, in pixels of the resized image: nothing in the text tells them apart, so whoever asks must say so.
"""

import dataclasses
import re
from collections.abc import Sequence

from hedgerow.content import Frame, Point, Points
from hedgerow.grounding.reader import NUMBER, WORD, Found, Reader, storable, triple

_BODY = re.compile(r"[^<>]*")
_ATTRIBUTE = re.compile(
    r"""(?<![\w.])(?P<name>[a-z]{1,9})(?P<id>[0-9]{0,9})\s*+=\s*+
    (?:"(?P<quoted>[^"]*+)(?P<closed>"?)|(?P<bare>[^\s"/]++))""",
    re.VERBOSE,
)
_VALUE = re.compile(rf"\s*+(?P<number>-?{NUMBER})\s*+")
_TIME = re.compile(rf"\s*+(?P<number>{NUMBER})\s*+")
_POINT = triple(r"[0-9]{1,3}\.[0-9]|[0-9]{3,4}")
_FURTHER = re.compile(r"\s*+(?P<tag><points)(?=\s)")
_EXPECTED = "an id, then x and y with one decimal or in three digits"


def read(reader: Reader, tag: str, start: int, frame: Frame | None) -> Found | None:
    """Read a tag without `coords`; None, and the reader stays, if it holds no coordinate at all.

    Tags of one label that tell a time each and follow one another are the frames of one part.

    Args:
        reader: behind the name of the tag.
        tag: `point` or `points`.
        start: where the tag begins.
        frame: unit of coordinates that are attributes; None: percent.
    """
    first = _read_tag(reader, tag, start, frame)
    found = [] if first is None else [first]
    while found and _is_frame(found[-1]) and (further := _FURTHER.match(reader.text, reader.at)):
        at, before = reader.at, len(reader.problems)
        reader.at = further.end()
        more = _read_tag(reader, "points", further.start("tag"), frame)
        if more is None or not _is_frame(more) or more.part.label != found[0].part.label:
            reader.at = at
            del reader.problems[before:]
            break
        found.append(more)
    if len(found) < 2:
        return first
    points = tuple(point for one in found for point in one.part.points)
    spans = tuple(span for one in found for span in one.spans)
    places = tuple(place for one in found for place in one.places)
    return Found(dataclasses.replace(found[0].part, points=points), spans, places)


def _is_frame(found: Found) -> bool:
    return bool(found.part.points) and all(point.time is not None for point in found.part.points)


def _read_tag(reader: Reader, tag: str, start: int, frame: Frame | None) -> Found | None:
    body = _BODY.match(reader.text, reader.at)
    assert body is not None  # it may be empty
    attributes = list(_ATTRIBUTE.finditer(reader.text, *body.span()))
    names = {found["name"] for found in attributes}
    alt = next((found["quoted"] or "" for found in attributes if found["name"] == "alt"), "")
    if "coords" in names:
        return None
    if names & {"x", "y"}:
        points = _from_attributes(reader, attributes, body.end(), frame or "percent")
    else:
        listed = _find_list(reader.text, body)
        if listed is None:
            return None
        points, alt = _from_list(reader, *listed)
    unit: Frame = "pixels" if frame == "pixels" and names & {"x", "y"} else "fraction"
    reader.at = body.end()
    label = _label(reader, tag, body[0]) or alt
    part = Points(storable(label), tuple(point for _, point in points), frame=unit)
    return Found(part, ((start, reader.at),), tuple(at for at, _ in points))


def _label(reader: Reader, tag: str, body: str) -> str:
    if not reader.text.startswith(">", reader.at):
        reader.note(reader.at, ">")
        return ""
    reader.at += 1
    return "" if body.endswith("/") else reader.label(tag)


def _from_attributes(
    reader: Reader, attributes: Sequence[re.Match[str]], end: int, frame: Frame
) -> list[tuple[int, Point]]:
    """Return the points whose x and y stand there, in the order in which they are complete."""
    points: list[tuple[int, Point]] = []
    open_: dict[tuple[str, str], tuple[int, float]] = {}
    time: float | None = None
    seen: set[str] = set()
    for found in attributes:
        axis, name, number = found["name"], found["id"], _number(reader, found)
        if axis not in ("x", "y", "t") or number is None:
            continue
        if axis == "t":
            time = _time(reader, found.start(), number)
            continue
        if (axis, name) in open_:
            reader.note(found.start(), f"{'yx'[axis == 'y']}{name} after {axis}{name}")
        open_[axis, name] = found.start(), number
        if ("x", name) not in open_ or ("y", name) not in open_:
            continue
        (x_at, x), (y_at, y) = open_.pop(("x", name)), open_.pop(("y", name))
        at = min(x_at, y_at)
        if name in seen:
            reader.note(at, f"x{name} and y{name} once", "duplicate_id")
        seen.add(name)
        place = reader.place(at, x, y, frame)
        if place is not None:
            points.append((at, Point(*place, id=int(name or 0) or None, time=time)))
    for (_, name), (at, _) in open_.items():
        reader.note(at, f"x{name} and y{name}", end=end)
    return points


def _number(reader: Reader, found: re.Match[str]) -> float | None:
    """Return the value of x, y or t; None, with a note, where it is no number or may not be whole."""
    if found["name"] not in ("x", "y", "t"):
        return None
    value = _VALUE.fullmatch(found["bare"] if found["quoted"] is None else found["quoted"])
    cut = found.end() == len(reader.text) and not found["closed"]
    if value is None or (cut and "." not in value[0]):
        reader.note(found.start(), f"a number for {found['name']}{found['id']}", end=found.end())
        return None
    return float(value["number"])


def _time(reader: Reader, at: int, seconds: float) -> float | None:
    if seconds >= 0:
        return seconds
    reader.note(at, "seconds from 0", "out_of_range")
    return None


def _find_list(text: str, body: re.Match[str]) -> tuple[int, int, list[str]] | None:
    """Return start and end of a list of triples and the fields before it, or None if there is none."""
    *fields, last = body[0].removesuffix("/").split("\t")
    start = body.start() + sum(len(field) + 1 for field in fields)
    end = start + len(last)
    if _POINT.match(text, start, end):
        return start, end, fields
    head = WORD.match(text, start, end)
    if not fields and head and _TIME.fullmatch(head[1]) and _POINT.match(text, head.end(), end):
        return head.end(), end, [head[1]]
    return None


def _from_list(
    reader: Reader, start: int, end: int, fields: list[str]
) -> tuple[list[tuple[int, Point]], str]:
    """Return points and label."""
    head = _TIME.fullmatch(fields[0]) if len(fields) == 1 else None
    time = None if head is None else float(head["number"])
    points: list[tuple[int, Point]] = []
    for found in reader.triples(start, end, _POINT, _EXPECTED):
        at = found.start(1)
        x, y = (float(word) * (10.0 if "." in word else 1.0) for word in found.groups()[1:])
        place = reader.place(at, x, y, "thousandths")
        if place is not None:
            points.append((at, Point(*place, id=int(found[1]), time=time)))
    return points, fields[0].strip() if fields and head is None else ""
