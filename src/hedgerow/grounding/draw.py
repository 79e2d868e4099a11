"""Points and tracks on pictures: what is true as a ring (and its box), what was predicted as a cross.

A colour is an id's. Tracks trail the way they came, fading; a contact sheet puts many pictures on one.
`hedgerow.vision.drawn` writes drawn frames as an animation.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from PIL import Image, ImageDraw

from hedgerow.content import Point, Points, Tracks
from hedgerow.errors import DataError
from hedgerow.grounding.draw_pen import Kind, Pen, Stop, font
from hedgerow.grounding.points import head, printed_time
from hedgerow.sequence import Array

Part = Points | Tracks

COLOURS = (  # of ids 1, 2, 3, ...
    "#e6194b", "#3cb44b", "#4363d8", "#f58231", "#911eb4",
    "#42d4f4", "#f032e6", "#bfef45", "#fabed4", "#ffe119",
)  # fmt: skip
_GAP, _LINE, _LETTERS = 8, 16, 12  # pixels: between pictures, of a line of text, of its letters


def draw(
    picture: Array | Image.Image, *, true: Sequence[Point] = (), predicted: Sequence[Point] = ()
) -> Image.Image:
    """Return an RGB copy of the picture with points on it.

    Args:
        picture: one image or frame, upright: a picture, or uint8 [H, W, 3].
        true: points of this frame in fractions: a ring each, and a rectangle if it has a box.
        predicted: points of this frame in fractions: a cross each.
    """
    pen = Pen(_picture(picture))
    kinds: tuple[tuple[Sequence[Point], Kind], ...] = ((true, "true"), (predicted, "predicted"))
    for points, kind in kinds:
        for point in points:
            _mark(pen, point, kind)
    return pen.finished()


def draw_frames(
    frames: Array | Sequence[Array | Image.Image],
    times: Sequence[float],
    *,
    true: Sequence[Part] = (),
    predicted: Sequence[Part] = (),
    trail: float = 2.0,
) -> list[Image.Image]:
    """Return frames of a video with what stands on each of them, ids written beside it, and the way it came.

    A point stands on the frames whose time is printed (one decimal) as its own. An object of `Tracks` draws a
    line behind it. The line breaks where the object was away: at the time of a frame, or of any point of the
    part, at which it has no point. So if frames are closer in time than points are, `align` the part to them.

    Args:
        frames: uint8 [H, W, 3] each, as `hedgerow.vision.decode_frames` gives them, or pictures.
        times: of the frames, in seconds from the start of the clip; one for each.
        true: points and tracks in fractions: rings, and rectangles where there are boxes.
        predicted: the same as crosses, such as `parse(reply).parts`; what stands on no frame is left out.
        trail: seconds of the past that a line shows; 0 for none.

    Raises:
        DataError: there is not one time for each frame, a part is not in fractions, or of a true part no
            point stands on a frame.
    """
    if len(frames) != len(times):
        raise DataError(f"{len(frames)} frames, {len(times)} times; give one time in seconds for each frame")
    for part in true:
        _check_on_frames(part, times)
    parts: list[tuple[Part, Kind]] = [(part, "true") for part in true]
    parts += [(part, "predicted") for part in predicted]
    for part, _ in parts:
        _check_unit(part)
    several = len({part.label for part, _ in parts}) > 1
    shown = [_Shown.of(part, kind, times, several=several) for part, kind in parts]
    return [_drawn(frame, time, shown, trail) for frame, time in zip(frames, times, strict=True)]


def contact_sheet(
    pictures: Sequence[Image.Image], captions: Sequence[str], *, columns: int, width: int
) -> Image.Image:
    """Return pictures side by side, row after row, each with its caption below it.

    Args:
        pictures: of any sizes, one at least; each is scaled to `width`, and stands at the top of its place.
        captions: one for each picture; lines that are too long are broken between words.
        columns: pictures in a row.
        width: pixels of a picture.

    Raises:
        ValueError: there is no picture, or not one caption for each.
    """
    if not pictures or len(pictures) != len(captions):
        raise ValueError(f"{len(pictures)} pictures, {len(captions)} captions: give one caption for each")
    scaled = [picture.convert("RGB").resize((width, _height(picture, width))) for picture in pictures]
    texts = [_broken(caption, width) for caption in captions]
    tall = max(picture.height for picture in scaled)
    row = tall + _LINE * max(len(lines) for lines in texts) + 2 * _GAP
    across = min(columns, len(pictures))
    size = (across * (width + _GAP) + _GAP, -(-len(pictures) // across) * row + _GAP)
    sheet = Image.new("RGB", size, "#ffffff")
    pen = ImageDraw.Draw(sheet)
    for number, (picture, lines) in enumerate(zip(scaled, texts, strict=True)):
        left, top = _GAP + number % across * (width + _GAP), _GAP + number // across * row
        sheet.paste(picture, (left, top))
        place = (left, top + tall + _GAP // 2)
        pen.multiline_text(place, "\n".join(lines), fill="#000000", font=font(_LETTERS))
    return sheet


def colour_of(point: Point) -> str:
    """Return the colour of a point as `#rrggbb`, the same for the same id."""
    return COLOURS[((point.id or 1) - 1) % len(COLOURS)]


@dataclasses.dataclass(frozen=True, slots=True)
class _Shown:
    """A part ready to be drawn: its points by printed time, and how each object moved while it was there."""

    kind: Kind
    prefix: str
    at: Mapping[str, Sequence[Point]]
    runs: Sequence[Sequence[Point]]

    @classmethod
    def of(cls, part: Part, kind: Kind, times: Sequence[float], *, several: bool) -> "_Shown":
        at: dict[str, list[Point]] = {}
        for point in part.points:
            if point.time is not None:
                at.setdefault(printed_time(point.time), []).append(point)
        looked = sorted({printed_time(time) for time in times} | set(at), key=float)
        runs = _runs([at.get(time, []) for time in looked]) if isinstance(part, Tracks) else []
        return cls(kind, f"{part.label} " if several else "", at, runs)

    def trails(self, now: float, seconds: float) -> Iterator[tuple[str, list[Stop]]]:
        """The ways that objects came in the last seconds, each with its colour."""
        for run in self.runs:
            stops = [Stop(p.x, p.y, (now - float(head(p))) / seconds) for p in run]
            recent = [
                stop for stop, after in pairwise([*stops, stops[-1]]) if stop.age >= 0 and after.age < 1
            ]
            if recent:
                yield colour_of(run[0]), recent


def _runs(looked: Sequence[Sequence[Point]]) -> list[list[Point]]:
    """The points of each object between its absences, from what was seen at each time in order."""
    found: list[list[Point]] = []
    going: dict[int | None, list[Point]] = {}
    for points in looked:
        seen = {point.id: point for point in points}
        going = {name: going.get(name, []) for name in seen}
        for name, point in seen.items():
            if not going[name]:
                found.append(going[name])
            going[name].append(point)
    return found


def _drawn(frame: Array | Image.Image, time: float, shown: Sequence[_Shown], trail: float) -> Image.Image:
    pen = Pen(_picture(frame))
    now = printed_time(time)
    if trail > 0:
        for one in shown:
            for colour, stops in one.trails(float(now), trail):
                pen.path(stops, colour, one.kind)
    here = [(one, point) for one in shown for point in one.at.get(now, [])]
    for one, point in here:
        _mark(pen, point, one.kind)
    for one, point in here:
        if point.id is not None or one.prefix:
            text, box = f"{one.prefix}{point.id or ''}".strip(), point.box if one.kind == "true" else None
            pen.name(point.x, point.y, text, colour_of(point), box=box)
    return pen.finished()


def _picture(given: Array | Image.Image) -> Image.Image:
    return given if isinstance(given, Image.Image) else Image.fromarray(np.asarray(given))


def _mark(pen: Pen, point: Point, kind: Kind) -> None:
    if point.box is not None and kind == "true":
        pen.box(point.box, colour_of(point), kind)
    pen.mark(point.x, point.y, colour_of(point), kind)


def _check_unit(part: Part) -> None:
    if part.frame != "fraction":
        raise DataError(
            f"{part.type} '{part.label}' are in {part.frame}, what is drawn is in fractions; "
            "give to_fractions(part, size=(width, height))"
        )


def _check_on_frames(part: Part, times: Sequence[float]) -> None:
    printed = {printed_time(time) for time in times}
    if part.points and not any(p.time is not None and printed_time(p.time) in printed for p in part.points):
        listed = ", ".join(sorted(printed, key=float)[:6])
        raise DataError(
            f"{part.type} '{part.label}': none of {len(part.points)} points is at the time of a frame "
            f"({listed} s, to one decimal); give the frames' times in seconds from the start of the clip, or "
            "align the part"
        )


def _height(picture: Image.Image, width: int) -> int:
    return max(1, round(picture.height * width / picture.width))


def _broken(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font(_LETTERS).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
