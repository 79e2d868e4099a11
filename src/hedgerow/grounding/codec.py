"""Points and tracks as text, and back: the form that Molmo2 writes (html-v2; arXiv 2601.10611, appendix A).

    <points coords="HEAD ID X Y ID X Y;HEAD ID X Y">label</points>

HEAD is seconds with one decimal, or the number of an image from 1; ID counts from 1; X and Y are
thousandths of width and height in three digits (1000 has four). In a label `<` is written `&lt;`, and `&`
is written `&amp;` where it would otherwise read as one of the two: any label comes back, and common ones
look as they are.
"""

import re
from typing import Literal, NamedTuple

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding import points, tracks

NO_POINTS = "There are none."
NO_TRACKS = "No tracks available."

_Kind = Literal["points", "tracks"]
_KINDS: dict[str, _Kind] = {"<points": "points", "<tracks": "tracks"}
_START = re.compile(rf"<(?:points|tracks)(?=[\s/>]|\Z)|{re.escape(NO_POINTS)}|{re.escape(NO_TRACKS)}")
_ATTRIBUTE = re.compile(r'\s*(?P<name>[a-z_]+)="')
_VALUE = {"coords": re.compile(r'[^"<>]*')}
_OTHER_VALUE = re.compile(r'[^"]*')
_QUOTE = re.compile(r'"')
_TAG_END = re.compile(r"\s*(?P<empty>/?)>")
_STRAY = re.compile(r'\s*[^\s<>]+?(?=coords="|[\s<>]|/>|\Z)')
_CLOSE = re.compile(r"</(?P<kind>points|tracks)>|(?=<(?:points|tracks)[\s/>])")
_UNCLOSED_LABEL = re.compile(r"[^<]*")
_GROUP = re.compile(r"[^\t:;,]+")  # html-v1 parts groups by a tab; public parsers take these four
_WORD = re.compile(r"\S+")
# Bounded, for a number too long to convert would raise.
_HEAD = re.compile(r"[0-9]{1,9}(?P<decimals>\.[0-9]{1,9})?")
_ID = re.compile(r"[1-9][0-9]{0,8}")
_COORDINATE = re.compile(r"[0-9]{3,4}")
_ENTITY = re.compile(r"&(amp|lt);")


class Parsed(NamedTuple):
    """What a text holds.

    `parts` are its points and tracks in order, in fractions; a sentence that says there are none is a part
    without points. `problems` tell what was wrong and where. `rest` is the text outside the tags.
    """

    parts: tuple[Points | Tracks, ...]
    problems: tuple[str, ...]
    rest: str


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


def parse(text: str, *, strict: bool = False) -> Parsed:
    """Read the points and tracks of a text, whatever stands around them.

    Any string is read; what cannot be is left out and named in `problems`. A truncated text keeps every
    complete point, a damaged one what can still be told apart. Groups may also be parted by a tab, a
    comma or a colon; tags may close themselves or carry `alt`, the label of a tag that has none.

    Args:
        text: what a model or a person wrote.
        strict: refuse a text with a problem.

    Raises:
        DataError: strict, and there is a problem; the message names the position and what was expected there.
    """
    reader = _Reader(text)
    parts: list[Points | Tracks] = []
    rest, seen = [], 0
    while start := _START.search(text, reader.at):
        reader.at = start.end()
        kind: _Kind | None = _KINDS.get(start[0])
        if kind is None:
            parts.append(Points("") if start[0] == NO_POINTS else Tracks(""))
            continue
        rest.append(text[seen : start.start()])
        part = _read_tag(reader, kind)
        parts.extend([] if part is None else [part])
        seen = reader.at
    if strict and reader.problems:
        raise DataError(f"{reader.problems[0]}; write what hedgerow.grounding.format_points writes")
    return Parsed(tuple(parts), tuple(reader.problems), "".join([*rest, text[seen:]]))


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


class _Reader:
    """A place in a text, and what was wrong before it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.problems: list[str] = []

    def take(self, token: re.Pattern[str]) -> re.Match[str] | None:
        """Step over the token if it comes next."""
        found = token.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found

    def note(self, at: int, expected: str) -> None:
        """Note that something else than the expected stands there."""
        found = repr(self.text[at : at + 16]) if at < len(self.text) else "the end"
        self.problems.append(f"character {at}: expected {expected}, found {found}")


def _read_tag(reader: _Reader, kind: _Kind) -> Points | Tracks | None:
    start = reader.at
    values, has_label = _read_attributes(reader)
    if "coords" not in values:
        reader.note(start, f'coords="..." in <{kind}>')
        reader.at = start
        return None
    label = _read_label(reader, kind) if has_label else reader.text[slice(*values.get("alt", (0, 0)))]
    found = _read_groups(reader, kind, values["coords"])
    # A lone surrogate is no character: a label with one could not be stored.
    label = _unescape(label).encode("utf-8", "replace").decode("utf-8")
    return Points(label, found) if kind == "points" else Tracks(label, found)


def _read_attributes(reader: _Reader) -> tuple[dict[str, tuple[int, int]], bool]:
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


def _read_label(reader: _Reader, kind: _Kind) -> str:
    start = reader.at
    close = _CLOSE.search(reader.text, start)
    if close is None or not close[0]:
        label = reader.take(_UNCLOSED_LABEL)
        reader.note(reader.at, f"</{kind}>")
        return label[0] if label else ""
    if close["kind"] != kind:
        reader.note(close.start(), f"</{kind}>")
    reader.at = close.end()
    return reader.text[start : close.start()]


def _read_groups(reader: _Reader, kind: _Kind, span: tuple[int, int]) -> tuple[Point, ...]:
    found: list[Point] = []
    seen: set[tuple[float | None, int | None]] = set()
    groups = [
        list(_WORD.finditer(reader.text, *group.span())) for group in _GROUP.finditer(reader.text, *span)
    ]
    groups = [words for words in groups if words]
    if not groups:
        reader.note(span[0], "a time or the number of an image")
    for head, *words in groups:
        place = _read_head(reader, kind, head)
        if place is None:
            continue
        if not words:
            reader.note(head.end(), "an id, x and y")
        for at, point in _read_points(reader, words, *place):
            if kind == "tracks" and (point.time, point.id) in seen:
                reader.note(at, f"object {point.id} once at {point.time} s")
                continue
            seen.add((point.time, point.id))
            found.append(point)
    return tuple(found)


def _read_head(reader: _Reader, kind: _Kind, word: re.Match[str]) -> tuple[float | None, int | None] | None:
    """Return (time, None) or (None, image)."""
    head = _HEAD.fullmatch(word[0])
    if head is None or (kind == "points" and not head["decimals"] and int(head[0]) < 1):
        reader.note(word.start(), "a time or the number of an image")
        return None
    if kind == "points" and not head["decimals"]:
        return None, int(head[0])
    if len(head["decimals"] or "") != len(".0"):
        reader.note(word.start(), "seconds with one decimal")
    return float(head[0]), None


def _read_points(
    reader: _Reader, words: list[re.Match[str]], time: float | None, image: int | None
) -> list[tuple[int, Point]]:
    """Return the points of a group, each with where it stands in the text."""
    found, at = [], 0
    while at < len(words):
        good = next((n for n in range(at, len(words)) if _is_point(words[n : n + 3])), len(words))
        if good > at:
            reader.note(words[at].start(), "an id, then x and y in three digits")
        if good == len(words):
            break
        name, x, y = (int(word[0]) for word in words[good : good + 3])
        if max(x, y) > 1000:
            reader.note(words[good + 1].start(), "x and y up to 1000")
        else:
            found.append((words[good].start(), Point(x / 1000, y / 1000, id=name, time=time, image=image)))
        at = good + 3
    return found


def _is_point(words: list[re.Match[str]]) -> bool:
    forms = (_ID, _COORDINATE, _COORDINATE)
    return len(words) == 3 and all(form.fullmatch(word[0]) for form, word in zip(forms, words, strict=True))
