"""The parts of a message: text, images, videos, points and tracks. Plain frozen data, as users write it."""

from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)

Frame = Literal["fraction", "pixels", "percent", "thousandths"]
Box = tuple[float, float, float, float]
MOST = 1e6  # of one weight; the product of several must stay within float32


def _moderate(weight: float) -> float:
    if weight > MOST:
        raise ValueError(f"a weight may be {MOST:,.0f} at most, or the loss overflows; give a smaller one")
    return weight


Weight = Annotated[float, Field(ge=0.0, strict=True), AfterValidator(_moderate)]


@dataclass(frozen=True, slots=True, config=STRICT)
class Span:
    """Characters `start` to `end` of a text, counted from 0, `end` not included.

    `weight` multiplies the loss weight of their tokens. By its `name` a recipe finds the span: `answer` is
    what a reply comes to, other names are free.
    """

    start: Annotated[int, Field(ge=0)]
    end: Annotated[int, Field(ge=1)]
    weight: Weight | None = None
    name: Annotated[str, Field(min_length=1)] | None = None

    def __post_init__(self) -> None:
        """Refuse a span without a character."""
        if self.end <= self.start:
            raise ValueError(f"a span from {self.start} to {self.end} has no character; let it end later")


@dataclass(frozen=True, slots=True, config=STRICT)
class Text:
    """A piece of text. `weight` multiplies the loss weight of its tokens, `spans` that of some of them.

    Spans may overlap: their weights multiply.
    """

    text: str
    weight: Weight | None = None
    spans: tuple[Span, ...] = ()
    type: Literal["text"] = "text"

    def __post_init__(self) -> None:
        """Refuse a span that leaves the text."""
        for span in self.spans:
            if span.end > len(self.text):
                raise ValueError(
                    f"a span from {span.start} to {span.end} leaves its text of {len(self.text)} characters"
                )


@dataclass(frozen=True, slots=True, config=STRICT)
class Image:
    """An image file, seen upright (EXIF orientation applied).

    `max_crops` is the most overlapping crops of it; None: the processor's.
    """

    path: str
    max_crops: int | None = Field(default=None, ge=1)
    type: Literal["image"] = "image"


@dataclass(frozen=True, slots=True, config=STRICT)
class Subtitle:
    """A line spoken from `start` to `end`, in seconds from the start of the clip."""

    start: float
    end: float
    text: str


@dataclass(frozen=True, slots=True, config=STRICT)
class Video:
    """A video file, or the clip of it from `start` to `end` (seconds of the file; both ends are included).

    A clip with `start == end` is one frame. All times elsewhere in the tree count from the start of the clip.
    `fps` frames a second are sampled, `max_frames` at most; None: the processor's.
    """

    path: str
    start: float | None = None
    end: float | None = None
    subtitles: tuple[Subtitle, ...] = ()
    fps: float | None = Field(default=None, gt=0.0)
    max_frames: int | None = Field(default=None, ge=1)
    type: Literal["video"] = "video"

    def __post_init__(self) -> None:
        """Refuse a clip that ends before it starts."""
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueError(f"clip ends at {self.end} s before it starts at {self.start} s; swap them")


@dataclass(frozen=True, slots=True, config=STRICT)
class Point:
    """One place: `x`, `y` in the part's `frame`; `time` in seconds of the clip, or `image` from 1.

    `id` tells objects apart and stays with an object through time. `box` (x0, y0, x1, y1, same units) is the
    object's true extent: evaluation scores hits with it, the model is never shown it.
    """

    x: float
    y: float
    id: int | None = Field(default=None, ge=1)
    time: float | None = Field(default=None, ge=0.0)
    image: int | None = Field(default=None, ge=1)
    box: Box | None = None


@dataclass(frozen=True, slots=True, config=STRICT)
class Points:
    """Each instance of `label`, once. `frame` names the unit of x and y (fractions of width and height)."""

    label: str
    points: tuple[Point, ...] = ()
    frame: Frame = "fraction"
    weight: Weight | None = None
    type: Literal["points"] = "points"


@dataclass(frozen=True, slots=True, config=STRICT)
class Tracks:
    """Instances of `label` through time: a point for each time an object is visible, its id stable."""

    label: str
    points: tuple[Point, ...] = ()
    frame: Frame = "fraction"
    weight: Weight | None = None
    type: Literal["tracks"] = "tracks"

    def __post_init__(self) -> None:
        """Refuse a track point without a time or an id, and an object seen twice at one time."""
        seen: set[tuple[float, int]] = set()
        for point in self.points:
            if point.time is None or point.id is None:
                raise ValueError(
                    f"a track point needs a time and an id, got time={point.time}, id={point.id}"
                )
            if (point.time, point.id) in seen:
                raise ValueError(f"object {point.id} stands twice at {point.time} s; keep one point of it")
            seen.add((point.time, point.id))


Part = Annotated[Text | Image | Video | Points | Tracks, Field(discriminator="type")]
Media = Image | Video
Grounding = Points | Tracks
