"""Points and tracks as text, and back: the form that Molmo2 writes (html-v2; arXiv 2601.10611, appendix A).

    <points coords="HEAD ID X Y ID X Y;HEAD ID X Y">label</points>

HEAD is seconds with one decimal, or the number of an image from 1; ID counts from 1; X and Y are
thousandths of width and height in three digits (1000 has four). In a label `<` is written `&lt;`, and `&`
is written `&amp;` where it would otherwise read as one of the two: any label comes back, and common ones
look as they are. What other models write is read too, see `legacy.py` and `qwen.py`.
"""

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

from hedgerow.content import Frame, Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import legacy, points, qwen, tracks
from hedgerow.grounding.reader import WORD, Found, Problem, Reader, storable, triple

NO_POINTS = "There are none."
NO_TRACKS = "No tracks available."

_Kind = Literal["points", "tracks"]
_START = re.compile(rf"<(?P<tag>points?|tracks)(?=[\s/>]|\Z)|{re.escape(NO_POINTS)}|{re.escape(NO_TRACKS)}")
_ATTRIBUTE = re.compile(r'\s*(?P<name>[a-z_]+)="')
_VALUE = {"coords": re.compile(r'[^"<>]*')}
_OTHER_VALUE = re.compile(r'[^"]*')
_QUOTE = re.compile(r'"')
_TAG_END = re.compile(r"\s*(?P<empty>/?)>")
_STRAY = re.compile(r'\s*[^\s<>]+?(?=coords="|[\s<>]|/>|\Z)')
_GROUP = re.compile(r"[^\t:;,]+")  # html-v1 parts groups by a tab; public parsers take these four
# Bounded, for a number too long to convert would raise.
_HEAD = re.compile(r"[0-9]{1,9}(?P<decimals>\.[0-9]{1,9})?")
_POINT = triple(r"[0-9]{3,4}")
_UNPADDED_POINT = triple(r"[0-9]{1,4}", unless=r"[0-9]{3,4}")
_ENTITY = re.compile(r"&(amp|lt);")


class Parsed(NamedTuple):
    """What a text holds.

    `parts` are its points and tracks in order, in fractions (of JSON in pixels: in pixels); a sentence that
    says there are none is a part without points. `problems` tell what was wrong and where. `rest` is the text
    outside the `spans`, which say the parts. `places` has, for each part, where each of its points begins.
    """

    parts: tuple[Points | Tracks, ...]
    problems: tuple[Problem, ...]
    rest: str
    spans: tuple[tuple[int, int], ...]
    places: tuple[tuple[int, ...], ...]


def format_points(part: Points) -> str:
    """Write points (in fractions) as text, or a sentence when there are none.

    Raises:
        DataError: a point lies outside the frame or an instance stands twice.
    """
    part = points.canonical(part)
    return _write(part) if part.points else NO_POINTS


def format_tracks(part: Tracks) -> str:
    """Write tracks (in fractions) as text, or a sentence when there are none.

    Raises:
        DataError: a point lies outside the frame or an object stands twice in one tenth of a second.
    """
    part = tracks.canonical(part)
    return _write(part) if part.points else NO_TRACKS


def parse(text: str, *, strict: bool = False, frame: Frame | None = None) -> Parsed:
    """Read the points and tracks of a text, whatever stands around them.

    Any string is read; what cannot be is left out and named in `problems`. A truncated text keeps every
    complete point, a damaged one what can still be told apart. Groups may also be parted by a tab, a
    comma or a colon; tags may close themselves or carry `alt`, the label of a tag that has none. Coordinates
    with too few digits are read and noted. Each tag is read as what it holds: `coords`, or an older form.
    JSON is read only from a text without such a tag.

    Args:
        text: what a model or a person wrote.
        strict: refuse a text with a problem.
        frame: unit of numbers whose form does not fix it: JSON (None: not read), and coordinates that
            are attributes (None: percent). `coords` are always thousandths.

    Raises:
        DataError: strict, and there is a problem; the message names the position and what was expected there.
    """
    reader = Reader(text)
    found = list(_read_tags(reader, frame))
    if not any(item.spans for item in found):
        found += qwen.read(reader, frame)
    if strict and reader.problems:
        raise DataError(f"{reader.problems[0]}; write what hedgerow.grounding.format_points writes")
    spans = tuple(sorted(span for item in found for span in item.spans))
    edges = [0, *(edge for span in spans for edge in span), len(text)]
    rest = "".join(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
    parts, _, places = zip(*found, strict=True) if found else ((), (), ())
    return Parsed(parts, tuple(reader.problems), rest, spans, places)


def _write(part: Points | Tracks) -> str:
    groups: dict[str, list[str]] = {}
    for point in part.points:
        place = f"{points.thousandths(point.x):03d} {points.thousandths(point.y):03d}"
        groups.setdefault(points.head(point), []).append(f"{point.id} {place}")
    coords = ";".join(f"{head} {' '.join(places)}" for head, places in groups.items())
    return f'<{part.type} coords="{coords}">{_escape(part.label)}</{part.type}>'


def _escape(label: str) -> str:
    return re.sub(r"&(?=amp;|lt;)", "&amp;", label).replace("<", "&lt;")


def _unescape(label: str) -> str:
    return _ENTITY.sub(lambda entity: "&" if entity[1] == "amp" else "<", label)


def _read_tags(reader: Reader, frame: Frame | None) -> Iterator[Found]:
    while start := _START.search(reader.text, reader.at):
        reader.at = start.end()
        tag = start["tag"]
        if tag is None:
            yield Found(Points("") if start[0] == NO_POINTS else Tracks(""), (), ())
        elif (found := _read_tag(reader, tag, start.start(), frame)) is not None:
            yield found


def _read_tag(reader: Reader, tag: str, start: int, frame: Frame | None) -> Found | None:
    at, before = reader.at, len(reader.problems)
    values, has_label = _read_attributes(reader)
    if "coords" in values:
        label = reader.label(tag) if has_label else reader.text[slice(*values.get("alt", (0, 0)))]
        end = reader.at
        part, places = _read_coords(reader, tag, values["coords"], storable(_unescape(label)))
        return Found(part, ((start, end),), places)
    del reader.problems[before:]  # they were looked for in another form
    reader.at = at
    found = None if tag == "tracks" else legacy.read(reader, tag, start, frame)
    if found is None:
        reader.note(at, f'coords="..." in <{tag}>')
    return found


def _read_attributes(reader: Reader) -> tuple[dict[str, tuple[int, int]], bool]:
    """Return the span of each attribute's value, and whether a label follows."""
    values: dict[str, tuple[int, int]] = {}
    strayed = False
    while True:
        start = reader.at
        if end := reader.take(_TAG_END):
            return values, not end["empty"]
        if attribute := reader.take(_ATTRIBUTE):
            name = attribute["name"]
            value = reader.take(_VALUE.get(name, _OTHER_VALUE))
            values.setdefault(name, value.span() if value else (reader.at, reader.at))
            if not reader.take(_QUOTE):
                reader.note(reader.at, 'a closing "')
        elif reader.take(_STRAY):
            if not strayed:
                reader.note(start, 'coords="..." or >')
            strayed = True
        else:
            reader.note(start, ">")
            return values, False


def _read_coords(
    reader: Reader, tag: str, span: tuple[int, int], label: str
) -> tuple[Points | Tracks, tuple[int, ...]]:
    """Return the part, and where each of its points begins."""
    kind: _Kind = "tracks" if tag == "tracks" else "points"
    check = _each if kind == "points" else _each_once
    inside: list[Point] = []
    places: list[int] = []
    for at, point in check(reader, _read_groups(reader, kind, span)):
        inside.append(point)
        places.append(at)
    part = Points(label, tuple(inside)) if kind == "points" else Tracks(label, tuple(inside))
    return part, tuple(places)


def _read_groups(reader: Reader, kind: _Kind, span: tuple[int, int]) -> Iterator[tuple[int, Point]]:
    empty = True
    for group in _GROUP.finditer(reader.text, *span):
        head = WORD.match(reader.text, *group.span())
        if head is None:
            continue
        empty = False
        place = _read_head(reader, kind, head)
        if place is None:
            continue
        if WORD.match(reader.text, head.end(), group.end()) is None:
            reader.note(head.end(), "an id, x and y")
        yield from _read_points(reader, head.end(), group.end(), *place)
    if empty:
        reader.note(span[0], "a time or the number of an image")


def _each_once(reader: Reader, found: Iterator[tuple[int, Point]]) -> Iterator[tuple[int, Point]]:
    """Yield the first point of each object at each time; note what comes twice or too late."""
    seen: set[tuple[float, int]] = set()
    before = (0.0, 0)
    for at, point in found:
        key = (point.time or 0.0, point.id or 0)
        if key in seen:
            reader.note(at, f"object {point.id} once at {point.time} s", "duplicate_id")
            continue
        if key < before:
            reader.note(at, "points by time, then id", "bad_order")
        seen.add(key)
        before = key
        yield at, point


def _each(reader: Reader, found: Iterator[tuple[int, Point]]) -> Iterator[tuple[int, Point]]:
    """Yield every point; note ids that come twice, and points that come too late."""
    seen: set[int] = set()
    before, last = (0.0, 0.0, 0.0, 0.0), 0
    for at, point in found:
        key, name = points.reading_order(point), point.id or 0
        if name in seen:
            reader.note(at, f"id {name} once", "duplicate_id")
        elif key < before or name < last:
            reader.note(at, "points by time or image, then x, then y, their ids upward", "bad_order")
        seen.add(name)
        before, last = key, name
        yield at, point


def _read_head(reader: Reader, kind: _Kind, word: re.Match[str]) -> tuple[float | None, int | None] | None:
    """Return (time, None) or (None, image)."""
    head = _HEAD.fullmatch(word[1])
    if head is None or (kind == "points" and not head["decimals"] and int(head[0]) < 1):
        reader.note(word.start(1), "a time or the number of an image")
        return None
    if kind == "points" and not head["decimals"]:
        return None, int(head[0])
    if len(head["decimals"] or "") != len(".0"):
        reader.note(word.start(1), "seconds with one decimal")
    return float(head[0]), None


def _read_points(
    reader: Reader, start: int, end: int, time: float | None, image: int | None
) -> Iterator[tuple[int, Point]]:
    """Yield the points of a group, each with where it begins."""
    expected = "an id, then x and y in three digits"
    for found in reader.triples(start, end, _POINT, expected, loose=_UNPADDED_POINT):
        name, x, y = found.groups()
        if len(x) < 3 or len(y) < 3:
            reader.note(found.start(2), "x and y in three digits", "unpadded")
        place = reader.place(found.start(2), int(x), int(y), "thousandths")
        if place is not None:
            yield found.start(1), Point(*place, id=int(name), time=time, image=image)
